// The voice beside a base voice and beside the speaker: the same words, one after the other, by name or blind.

import { api, send } from "./api.js";
import { button, h, icon, problem } from "./dom.js";
import { decoded } from "./player.js";
import { Wave } from "./wave.js";

const SENTENCE = "The path goes up through the beech wood, and then the view opens all at once.";

export function comparison({ voice, samples, signal }) {
  const text = h("input", { type: "text", value: samples.find((sample) => sample.transcript)?.transcript ?? SENTENCE, maxlength: 500, "aria-label": "What both say" });
  const fault = h("div");
  const tracks = h("div", { class: "tracks" });
  const blind = h("input", { type: "checkbox" });
  const go = button("Compare", { icon: "play", kind: "primary", id: "compare", onclick: run });
  let playing = null;

  async function run() {
    go.disabled = true;
    fault.replaceChildren();
    tracks.replaceChildren(h("p", { class: "muted", role: "status" }, "Both are speaking …"));
    try {
      const { voices } = await api("GET", "/v1/audio/voices", { signal });
      const base = voices.find((other) => other.kind === "built_in" && other.model === voice.model);
      const speakers = [[voice.name, "this voice", voice.name], ...(base ? [[base.name, "the base voice", base.name]] : [])];
      const spoken = await Promise.all(speakers.map(async ([name, , asked]) => speak(asked, name)));
      const list = spoken.map((sound, i) => ({ ...sound, label: speakers[i][0], role: speakers[i][1] }));
      const recorded = samples.find((sample) => sample.transcript === text.value) ?? samples[0];
      if (blind.checked && Math.random() < 0.5) list.reverse();
      if (recorded) list.push({ ...(await recording(recorded)), label: recorded.file_name, role: "the speaker" });
      tracks.replaceChildren(...list.map((sound, i) => track(sound, "ABC"[i])));
    } catch (error) {
      tracks.replaceChildren();
      if (!signal.aborted) fault.replaceChildren(problem(error));
    }
    go.disabled = false;
  }

  async function speak(name) {
    const json = { model: voice.model, voice: name, input: text.value, response_format: "wav" };
    return sounding(await (await send("POST", "/v1/audio/speech", { json, signal })).arrayBuffer());
  }

  async function recording(sample) {
    return sounding(await (await send("GET", `/v1/voices/${voice.id}/samples/${sample.id}/audio`, { signal })).arrayBuffer());
  }

  async function sounding(data) {
    const url = URL.createObjectURL(new Blob([data]));
    signal.addEventListener("abort", () => URL.revokeObjectURL(url));
    return { url, ...(await decoded(data)) };
  }

  function track({ url, samples: pcm, duration, label, role }, letter) {
    const canvas = h("canvas", { class: "wave low", role: "img", "aria-label": `The sound of ${letter}` });
    const wave = new Wave(canvas);
    wave.show(pcm);
    const sound = new Audio(url);
    const play = button("", { icon: "play", kind: "round", label: `Play ${letter}`, onclick: () => {
      if (playing && playing !== sound) playing.pause();
      playing = sound;
      if (sound.paused) sound.play();
      else sound.pause();
    } });
    sound.addEventListener("play", () => play.replaceChildren(icon("pause")));
    sound.addEventListener("pause", () => play.replaceChildren(icon("play")));
    sound.addEventListener("timeupdate", () => wave.play(sound.currentTime / duration));
    signal.addEventListener("abort", () => sound.pause());
    const name = h("span", {}, h("strong", {}, label), h("span", { class: "muted" }, ` ${role}`));
    const hidden = blind.checked && role !== "the speaker";
    const reveal = hidden ? button("Which is it?", { kind: "small", onclick: () => reveal.replaceWith(name) }) : name;
    return h("div", { class: "track-row" }, play, h("span", { class: "letter" }, letter), canvas, reveal);
  }

  return h("section", { class: "card stack", "aria-label": "Listen", id: "listen" },
    h("h2", {}, "Listen"),
    h("div", { class: "row" }, h("div", { class: "grow" }, text), go),
    h("label", { class: "check" }, blind, h("span", {}, "Blind: say which is which afterwards")),
    fault, tracks);
}
