// The same request for a terminal and for programs.

const KEY = "CARILLON_KEY";

export function snippets({ text, voice, model }) {
  const base = location.origin;
  const body = { model: model ?? "tts-1", voice, input: text, response_format: "wav" };
  const shell = JSON.stringify(body).replaceAll("'", "'\\''");
  return {
    curl: `curl ${base}/v1/audio/speech -o out.wav \\
  -H "Authorization: Bearer $${KEY}" \\
  -H 'Content-Type: application/json' \\
  -d '${shell}'`,
    Python: `import os
from openai import OpenAI

client = OpenAI(base_url="${base}/v1", api_key=os.environ["${KEY}"])
with client.audio.speech.with_streaming_response.create(
    model=${JSON.stringify(body.model)}, voice=${JSON.stringify(voice)}, response_format="wav",
    input=${JSON.stringify(text)},
) as speech:
    speech.stream_to_file("out.wav")`,
    JavaScript: `import { writeFile } from "node:fs/promises";

const speech = await fetch("${base}/v1/audio/speech", {
  method: "POST",
  headers: { authorization: \`Bearer \${process.env.${KEY}}\`, "content-type": "application/json" },
  body: JSON.stringify(${JSON.stringify(body)}),
});
await writeFile("out.wav", Buffer.from(await speech.arrayBuffer()));`,
  };
}
