// The recordings of a voice: dropped in, chosen, or read from a sheet into the microphone; each with a verdict.

import { api, upload } from "./api.js";
import { bytes, button, clock, h, icon, plural, toast } from "./dom.js";
import { parseManifest } from "./manifest.js";
import { promptSheet } from "./prompt-sheet.js";

const AT_ONCE = 2;
const SHOWN = 50;
const MANIFEST = /\.(csv|jsonl)$/i;
const SOUND = /\.(wav|flac|mp3|ogg|oga|opus|m4a|mp4|aac|webm)$/i;

/** `told(samples)` follows every change; `changed()` says that the voice is another. */
export function recordingsPart({ voice, samples, signal, changed, told }) {
  const base = `/v1/voices/${voice.id}/samples`;
  const list = h("ul", { class: "recordings" });
  const queue = h("ul", { class: "uploads", "aria-label": "Uploads" });
  const total = h("p", { class: "muted" });
  const chooser = h("input", { type: "file", multiple: true, accept: "audio/*,.txt,.csv,.jsonl,.webm,.flac,.opus", id: "recording-files", class: "sr-only",
    onchange: () => (add([...chooser.files]), (chooser.value = "")) });
  const zone = h("label", { class: "drop", for: "recording-files" }, icon("upload"),
    h("span", {}, h("strong", {}, "Drop recordings here"), " or choose files"),
    h("span", { class: "muted small" }, "WAV, FLAC, MP3, OGG, M4A, AAC or WebM, short or long. Transcripts: a .txt of the same name beside each, or a manifest.csv."));
  let running = 0;
  let waiting = [];
  let all = SHOWN;

  zone.addEventListener("dragover", (event) => (event.preventDefault(), zone.classList.add("over")));
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    add([...event.dataTransfer.files]);
  });

  async function add(files) {
    const stem = (name) => name.replace(/\.[^.]*$/, "");
    let words = new Map();
    try {
      for (const file of files.filter(({ name }) => MANIFEST.test(name))) words = new Map([...words, ...parseManifest(file.name, await file.text())]);
    } catch (error) {
      toast(error.message, "bad");
      return;
    }
    for (const file of files) if (/\.txt$/i.test(file.name)) words.set(stem(file.name), await file.text());
    const sounds = files.filter(({ name }) => !MANIFEST.test(name) && !/\.txt$/i.test(name));
    if (!sounds.length) toast("There are no recordings among these files.", "bad");
    for (const file of sounds) enqueue(file, words.get(file.name) ?? words.get(stem(file.name)) ?? "");
  }

  function enqueue(file, transcript) {
    const bar = h("span");
    const verdict = h("span", { class: "muted small" }, SOUND.test(file.name) ? "waits" : "waits; this may be no recording");
    const row = h("li", {}, h("span", { class: "grow" }, file.name), h("span", { class: "muted small number" }, bytes(file.size)),
      h("span", { class: "bar" }, bar), verdict);
    queue.append(row);
    waiting.push({ file, transcript, row, bar, verdict });
    next();
  }

  async function next() {
    if (running >= AT_ONCE || !waiting.length) return;
    const { file, transcript, row, bar, verdict } = waiting.shift();
    running += 1;
    try {
      const form = new FormData();
      form.append("files", file);
      if (transcript.trim()) form.append("transcripts", transcript);
      const answer = await upload(base, form, {
        signal,
        onprogress: (share) => {
          bar.style.width = `${100 * share}%`;
          verdict.textContent = share < 1 ? "is sent" : "is looked into";
        },
      });
      const refused = answer.rejected.map((one) => one.message).join(" ");
      if (answer.samples.length) {
        samples = [...samples, ...answer.samples];
        verdict.className = "chip good";
        verdict.textContent = "kept";
        setTimeout(() => row.remove(), 4000);
      } else throw new Error(refused);
    } catch (error) {
      if (signal.aborted) return;
      bar.style.width = "100%";
      row.classList.add("bad");
      verdict.className = "small";
      verdict.textContent = error.message;
      row.append(button("", { icon: "close", kind: "round quiet", label: `Put ${file.name} away`, onclick: () => row.remove() }));
    } finally {
      running -= 1;
    }
    draw();
    told(samples);
    if (!running && !waiting.length) changed();
    next();
  }

  function draw() {
    const seconds = samples.reduce((sum, sample) => sum + sample.facts.duration_s, 0);
    const enough = seconds >= 1800 ? "That is plenty." : seconds >= 600 ? "Enough to try; thirty minutes sound better." : "Ten minutes are the least, thirty are better.";
    total.textContent = samples.length ? `${plural(samples.length, "recording")}, ${clock(seconds)}. ${enough}` : "None yet. " + enough;
    const shown = samples.slice(0, all);
    list.replaceChildren(...shown.map(row));
    if (samples.length > all) list.append(h("li", {}, button(`Show ${samples.length - all} more`, { kind: "small quiet", onclick: () => ((all = Infinity), draw()) })));
  }

  function row(sample) {
    const words = h("input", { type: "text", value: sample.transcript ?? "", "aria-label": `What is said in ${sample.file_name}`,
      placeholder: "What is said; left empty, it is heard by a recogniser", onchange: () => correct(sample, words) });
    const player = h("audio", { preload: "none", src: `${base}/${sample.id}/audio` });
    const play = button("", { icon: "play", kind: "round quiet", label: `Play ${sample.file_name}`, onclick: () => (player.paused ? player.play() : player.pause()) });
    player.addEventListener("play", () => play.replaceChildren(icon("stop")));
    for (const end of ["pause", "ended"]) player.addEventListener(end, () => play.replaceChildren(icon("play")));
    return h("li", {}, play, player,
      h("div", { class: "recording-name" }, h("span", {}, sample.file_name), h("span", { class: "muted small number" }, `${clock(sample.facts.duration_s)} · ${Math.round(sample.facts.sample_rate_hz / 100) / 10} kHz`)),
      words,
      button("", { icon: "trash", kind: "round quiet", label: `Remove ${sample.file_name}`, onclick: () => remove(sample) }));
  }

  async function correct(sample, input) {
    try {
      Object.assign(sample, await api("PUT", `${base}/${sample.id}/transcript`, { json: { text: input.value } }));
      toast("The transcript is kept.");
    } catch (error) {
      toast(error.message, "bad");
      input.value = sample.transcript ?? "";
    }
  }

  async function remove(sample) {
    try {
      await api("DELETE", `${base}/${sample.id}`);
      samples = samples.filter((other) => other !== sample);
      draw();
      told(samples);
      changed();
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  const sheet = h("div");
  const record = button("Record here", { icon: "mic", id: "record", onclick: () => {
    if (sheet.firstChild) return;
    sheet.append(promptSheet({ signal, keep: (file, text) => enqueue(file, text), close: () => sheet.replaceChildren() }));
  } });
  draw();
  return h("section", { class: "card stack", "aria-label": "Recordings", id: "recordings" },
    h("header", { class: "row apart" }, h("h2", {}, "Recordings"), record), total, sheet, zone, chooser, queue, list);
}
