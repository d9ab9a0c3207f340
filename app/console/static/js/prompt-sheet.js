// Recording in the browser: a sheet of sentences, read one after the other.

import { button, h, problem } from "./dom.js";
import { PROMPTS } from "./prompts.js";
import { Recorder, advice } from "./recorder.js";

/** `keep(file, text)` takes a recording that its reader was content with. */
export function promptSheet({ signal, keep, close }) {
  let recorder = null;
  let take = null;
  let at = 0;
  let kept = 0;
  const level = h("span");
  const words = h("p", { class: "prompt", "aria-live": "polite" });
  const hint = h("p", { class: "muted small", role: "status" });
  const count = h("span", { class: "muted small number" });
  const own = h("audio", { controls: true, class: "grow", hidden: true });
  const main = button("Record", { icon: "mic", kind: "primary", onclick: toggle });
  const again = button("Again", { icon: "again", onclick: begin });
  const good = button("Keep it, next", { icon: "check", kind: "primary", onclick: accept });
  const skip = button("Another sentence", { kind: "quiet", onclick: () => step() });
  const element = h("div", { class: "sheet stack", role: "group", "aria-label": "Read aloud" },
    h("header", { class: "row apart" }, h("span", { class: "label" }, "Read aloud"), count, button("", { icon: "close", kind: "round quiet", label: "Close the sheet", onclick: end })),
    words, h("span", { class: "bar level", "aria-hidden": "true" }, level), hint,
    h("div", { class: "row" }, main, again, good, skip, own));
  signal.addEventListener("abort", () => recorder?.close());

  function step() {
    at = (at + 1) % PROMPTS.length;
    idle();
  }

  function idle() {
    take = null;
    words.textContent = PROMPTS[at];
    count.textContent = `${at + 1} of ${PROMPTS.length}, ${kept} kept`;
    own.hidden = again.hidden = good.hidden = true;
    main.hidden = skip.hidden = false;
    main.lastChild.textContent = "Record";
    hint.textContent = "A quiet room, a hand's breadth from the microphone, and your own way of speaking.";
  }

  async function begin() {
    try {
      recorder ??= await Recorder.open((peak) => (level.style.width = `${Math.min(100, 100 * Math.sqrt(peak))}%`));
    } catch (error) {
      hint.replaceChildren(problem(error));
      return;
    }
    recorder.begin();
    own.hidden = again.hidden = good.hidden = skip.hidden = true;
    main.hidden = false;
    main.lastChild.textContent = "Stop";
    hint.textContent = "Recording. Read the sentence, then stop.";
  }

  function toggle() {
    if (!recorder?.take) return begin();
    take = recorder.end();
    own.src = URL.createObjectURL(take.blob);
    own.hidden = again.hidden = good.hidden = false;
    main.hidden = true;
    hint.textContent = advice(take.peak) ?? `${take.seconds.toFixed(1)} s. Listen, and keep it if it is right.`;
  }

  function accept() {
    keep(new File([take.blob], `read-${String(at + 1).padStart(2, "0")}-${Date.now()}.wav`, { type: "audio/wav" }), PROMPTS[at]);
    kept += 1;
    step();
  }

  function end() {
    recorder?.close();
    close();
  }

  idle();
  return element;
}
