// What npm's `openai` does, run by test_openai_sdk.py: it prints a word for each thing that went well.
import OpenAI from "openai";

const client = new OpenAI();
const voice = process.env.VOICE;

const whole = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: "Hello there.", response_format: "pcm" });
if ((await whole.arrayBuffer()).byteLength > 14_400) console.log("speaks");

const streamed = await client.audio.speech.create({ model: "tts-1", voice, input: "Good morning. How are you?" });
let pieces = 0;
for await (const _ of streamed.body) pieces += 1;
if (pieces > 1) console.log("streams");

if ((await client.models.list()).data.length > 0) console.log("lists");

const wrongKey = new OpenAI({ apiKey: "wrong" });
await wrongKey.audio.speech.create({ model: "tts-1", voice, input: "Hi." }).catch((error) => console.log(error.status));
await client.audio.speech.create({ model: "tts-1", voice: "nobody", input: "Hi." }).catch((error) => console.log(error.status));
