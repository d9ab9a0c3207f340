// A button beside a text that has it said; pressed again, it stops.

import { send } from "./api.js";
import { button, icon, toast } from "./dom.js";

let playing = null;

/** `what()` gives the `{text, voice, model}` of the moment. One says something at a time. */
export function sayButton({ label, signal, what }) {
  const control = button("", { icon: "play", kind: "round quiet", label, onclick: () => (playing?.control === control ? stop() : say()) });

  async function say() {
    stop();
    const mine = (playing = { control, sound: null });
    control.replaceChildren(icon("stop"));
    try {
      const { text, voice, model } = what();
      const json = { model, voice, input: text, response_format: "wav" };
      const answer = await send("POST", "/v1/audio/speech", { json, signal });
      const url = URL.createObjectURL(await answer.blob());
      if (playing !== mine) return;
      mine.sound = new Audio(url);
      mine.sound.addEventListener("ended", () => playing === mine && stop());
      await mine.sound.play();
    } catch (error) {
      if (playing === mine) stop();
      if (!signal.aborted && error.name !== "AbortError") toast(error.message, "bad");
    }
  }

  signal.addEventListener("abort", () => playing?.control === control && stop());
  return control;
}

function stop() {
  if (!playing) return;
  playing.control.replaceChildren(icon("play"));
  if (playing.sound) {
    playing.sound.pause();
    URL.revokeObjectURL(playing.sound.src);
  }
  playing = null;
}
