// Speak: a text, a voice, and what became of it.

import { api } from "./api.js";
import { button, download, empty, h, icon, milliseconds, problem, toast } from "./dom.js";
import { wav } from "./player.js";
import { snippets } from "./snippets.js";
import { Utterance } from "./speech.js";
import { Transcript } from "./transcript.js";
import { voicePicker } from "./voice-picker.js";
import { Waterfall, partsOf } from "./waterfall.js";
import { Wave } from "./wave.js";

const WELCOME = "Hello. I am Carillon, and I speak with many voices. Type anything, and hear it while you type.";
const STREAM_MS = 70;
const KEPT = 30;

/** What was said since the page was opened; nothing is stored. */
const history = [];

export async function show(main, { signal, go }) {
  const { voices } = await api("GET", "/v1/audio/voices", { signal });
  if (!voices.length) {
    main.append(h("h1", {}, "Speak"), empty("speak", "No voice yet", "No worker is ready. The fleet page shows how far they are.",
      button("Open the fleet", { kind: "primary", onclick: () => go("/fleet") })));
    return;
  }
  const page = new SpeakPage(main, voices);
  signal.addEventListener("abort", () => page.close());
}

class SpeakPage {
  constructor(main, voices) {
    this.voices = voices;
    this.utterance = null;
    this.sent = 0;
    this.transcript = new Transcript();
    this.waterfall = new Waterfall();
    this.past = h("ol", { class: "history" });
    main.append(h("h1", {}, "Speak"), h("div", { class: "speak" }, this.#composer(), this.#account(), this.#listing()));
    this.#drawHistory();
    this.#idle();
  }

  close() {
    this.utterance?.close();
    clearInterval(this.timer);
    clearInterval(this.streaming);
  }

  #composer() {
    const wanted = new URLSearchParams(location.search).get("voice") ?? localStorage.getItem("voice");
    this.picker = voicePicker({
      voices: this.voices,
      value: wanted,
      onchange: (voice) => (localStorage.setItem("voice", voice.name), this.#drawSnippet()),
    });
    this.text = h("textarea", { id: "text", rows: 5, maxlength: 20_000, "aria-label": "Text to speak", placeholder: "What shall be said?" });
    this.text.value = sessionStorage.getItem("text") ?? WELCOME;
    this.text.addEventListener("input", () => {
      sessionStorage.setItem("text", this.text.value);
      this.#typed();
      this.#drawSnippet();
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#speak();
      if (event.key === "Escape") this.utterance?.cancel();
    });
    this.live = h("input", { type: "checkbox", id: "live", onchange: () => this.#mode() });
    this.speakButton = button("Speak", { icon: "play", kind: "primary large", id: "speak-button", onclick: () => this.#speak() });
    this.stopButton = button("Stop", { icon: "stop", kind: "large", id: "stop", onclick: () => this.utterance?.cancel() });
    this.saveButton = button("WAV", { icon: "download", kind: "quiet", id: "download", onclick: () => this.#download(this.last) });
    this.status = h("p", { class: "muted small status", role: "status" });
    this.fault = h("div");
    const canvas = h("canvas", { class: "wave", role: "img", "aria-label": "The sound as it comes" });
    this.wave = new Wave(canvas);
    return h("section", { class: "card stack composer", "aria-label": "What to say" },
      this.picker,
      this.text,
      h("label", { class: "check" }, this.live, h("span", {}, "Speak while I type, and pasted text as a stream")),
      h("div", { class: "row" }, this.speakButton, this.stopButton, h("span", { class: "grow" }), this.saveButton),
      canvas,
      this.transcript.element,
      this.status,
      this.fault);
  }

  #account() {
    this.code = h("pre", { class: "snippet", tabindex: 0, "aria-label": "The same request as code" });
    this.language = "curl";
    const names = Object.keys(snippets({ text: "", voice: "" }));
    this.tabs = names.map((name) => button(name, {
      kind: "small quiet", "aria-pressed": name === this.language ? "true" : "false",
      onclick: () => ((this.language = name), this.#drawSnippet()),
    }));
    const copy = button("Copy", { icon: "copy", kind: "small", onclick: () => this.#copy() });
    return h("div", { class: "stack" },
      h("section", { class: "card", "aria-label": "Where the time went" }, h("h2", {}, "To the first sound"), this.waterfall.element),
      h("section", { class: "card", "aria-label": "As code" },
        h("header", { class: "row apart" }, h("h2", {}, "As code"), copy), h("div", { class: "row tabs" }, this.tabs), this.code));
  }

  #listing() {
    return h("section", { class: "card listing", "aria-label": "History" },
      h("header", { class: "row apart" }, h("h2", {}, "Said before"), h("span", { class: "muted small" }, "Kept until you close this tab")), this.past);
  }

  #mode() {
    if (this.live.checked) {
      this.text.value = "";
      this.text.placeholder = "Type, or paste a text: it is spoken as it comes.";
      this.text.focus();
    } else {
      this.text.placeholder = "What shall be said?";
      this.#endLive();
    }
    this.#idle();
  }

  /** Everything at once. */
  #speak() {
    const text = this.text.value.trim();
    if (!text) {
      this.status.textContent = "There is nothing to say yet: write a sentence.";
      this.text.focus();
      return;
    }
    if (this.live.checked && this.utterance && !this.utterance.over) {
      this.#endLive();
      return;
    }
    this.#begin();
    this.#send(text);
    this.utterance.end();
  }

  #begin() {
    this.utterance?.close();
    clearInterval(this.timer);
    this.transcript.clear();
    this.waterfall.clear();
    this.wave.show(new Int16Array(0));
    this.wave.play(0);
    this.fault.replaceChildren();
    this.sent = 0;
    const voice = this.voices.find(({ name }) => name === this.picker.value);
    const utterance = (this.utterance = new Utterance({
      voice: voice.name,
      model: voice.model,
      tell: (event, detail) => utterance === this.utterance && this.#told(event, detail, utterance),
    }));
    utterance.voice = voice.name;
    this.drawn = 0;
    this.stopButton.disabled = false;
    this.status.textContent = "Looking for a worker …";
    this.timer = setInterval(() => this.#draw(utterance), 50);
  }

  #send(text) {
    this.utterance.write(text);
    this.transcript.append(text);
  }

  /** What is added at the end is spoken; a change further up is for the next time. Words go whole. */
  #typed() {
    if (!this.live.checked) return;
    const text = this.text.value;
    if (!text.trim()) return;
    if (!this.utterance || this.utterance.over) {
      this.#begin();
      this.taken = "";
    }
    if (!text.startsWith(this.taken)) this.taken = text.slice(0, this.taken.length);
    const fresh = text.slice(this.taken.length);
    const words = fresh.match(/^[\s\S]*\s/u)?.[0] ?? (/[.!?…]$/u.test(fresh) ? fresh : "");
    if (!words) return;
    this.taken += words;
    this.queue = [...(this.queue ?? []), ...(words.match(/\S+\s*|\s+/gu) ?? [])];
    this.streaming ??= setInterval(() => this.#stream(), STREAM_MS);
    this.#stream();
  }

  #stream() {
    const word = this.queue?.shift();
    if (word !== undefined && this.utterance && !this.utterance.over) this.#send(word);
    else {
      clearInterval(this.streaming);
      this.streaming = null;
      this.queue = [];
    }
  }

  #endLive() {
    if (!this.utterance || this.utterance.over || this.utterance.session.ended) return;
    const rest = this.text.value.slice(this.taken?.length ?? 0);
    const waiting = (this.queue ?? []).splice(0).join("") + rest;
    if (waiting) this.#send(waiting);
    this.taken = this.text.value;
    this.utterance.end();
  }

  #told(event, detail, utterance) {
    switch (event) {
      case "ready":
        this.status.textContent = `${detail.voice} speaks from ${detail.worker}${detail.stand_in ? ", with the stand-in: a small model that comes with the code" : ""}.`;
        break;
      case "audio":
        this.waterfall.show(partsOf(null, { waited_ms: utterance.waited, silence_ms: utterance.silence }), utterance.waited + (utterance.silence ?? 0));
        break;
      case "segment":
        this.transcript.segment(detail);
        break;
      case "waiting":
        this.status.textContent = `Waiting: ${detail}`;
        break;
      case "lost":
        this.status.textContent = "The connection broke. It is taken up again where it was …";
        break;
      case "resumed":
        this.status.textContent = "Connected again, at the very sample.";
        break;
      case "done":
        this.#explain(utterance);
        break;
      case "failed":
        this.fault.replaceChildren(problem(detail));
        this.status.textContent = "";
        if (!utterance.samples) this.#finished(utterance);
        break;
      case "finished":
        this.#finished(utterance);
        break;
    }
  }

  #explain(utterance) {
    const { ledger, marks } = utterance;
    const heard = utterance.waited + (ledger.head_silence_ms ?? utterance.silence ?? 0);
    if (!ledger.samples) return;
    this.waterfall.show(partsOf(ledger, { waited_ms: utterance.waited, silence_ms: utterance.silence }), heard);
    const spoken = (marks.done - (marks.text ?? marks.connect) - (ledger.text_ms ?? 0)) / 1000;
    if (ledger.tokens) this.waterfall.speed(ledger.tokens / spoken, ledger.samples / ledger.sample_rate_hz / spoken);
  }

  #draw(utterance) {
    const { player } = utterance;
    if (!utterance.samples && !utterance.over && utterance.marks.text) this.waterfall.wait(utterance.waited);
    if (utterance.samples !== this.drawn) {
      this.drawn = utterance.samples;
      this.wave.show(utterance.pcm);
    }
    const heard = utterance.over && !utterance.cancelled ? utterance.samples : player.played;
    this.wave.play(utterance.samples ? heard / utterance.samples : 0);
    if (heard) this.transcript.play(heard);
  }

  #finished(utterance) {
    clearInterval(this.timer);
    this.#draw(utterance);
    this.stopButton.disabled = true;
    if (utterance.samples) {
      this.last = {
        text: this.transcript.text, voice: utterance.voice, pcm: utterance.pcm, rateHz: utterance.session.rateHz,
        waited: utterance.waited, at: new Date(), gaps: utterance.player.gaps,
      };
      history.unshift(this.last);
      history.splice(KEPT);
      this.#drawHistory();
      this.saveButton.disabled = false;
      const gaps = this.last.gaps ? ` The sound paused ${this.last.gaps} ×: this fleet is slower than speech now.` : "";
      this.status.textContent = `${(utterance.samples / this.last.rateHz).toFixed(1)} s of speech${utterance.cancelled ? ", stopped" : ""}.${gaps}`;
    }
    else if (utterance.cancelled) this.status.textContent = "Stopped before the first sound.";
    if (this.live.checked) this.taken = this.text.value;
  }

  #idle() {
    this.stopButton.disabled = true;
    this.saveButton.disabled = !this.last;
    this.speakButton.lastChild.textContent = this.live.checked ? "Say the rest" : "Speak";
    this.#drawSnippet();
  }

  #drawSnippet() {
    const voice = this.voices.find(({ name }) => name === this.picker.value);
    const text = this.text.value.trim() || "Hello.";
    const all = snippets({ text: text.length > 300 ? `${text.slice(0, 300)}…` : text, voice: voice.name, model: voice.model });
    this.code.textContent = all[this.language];
    for (const tab of this.tabs) tab.setAttribute("aria-pressed", tab.textContent === this.language ? "true" : "false");
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.code.textContent);
      toast(`Copied as ${this.language}. It takes the key from $CARILLON_KEY.`);
    } catch {
      getSelection().selectAllChildren(this.code);
      toast("The browser does not let this page copy: the code is selected, press Ctrl-C.");
    }
  }

  #download(said) {
    if (said) download(wav(said.pcm, said.rateHz), `${said.voice}.wav`);
  }

  #drawHistory() {
    if (!history.length) {
      this.past.replaceChildren(h("li", { class: "muted" }, "Nothing yet. What you hear is listed here, to hear again and to keep."));
      return;
    }
    this.past.replaceChildren(...history.map((said) => h("li", {},
      button("", { icon: "play", kind: "round quiet", label: `Hear again: ${said.text.slice(0, 60)}`, onclick: (event) => this.#replay(said, event.currentTarget) }),
      h("div", { class: "grow" },
        h("div", { class: "history-text" }, said.text),
        h("div", { class: "muted small number" }, `${said.voice} · ${(said.pcm.length / said.rateHz).toFixed(1)} s · first audio ${milliseconds(said.waited)}`)),
      button("", { icon: "download", kind: "round quiet", label: "Download as WAV", onclick: () => this.#download(said) }))));
  }

  #replay(said, control) {
    this.sounding?.pause();
    if (this.sounding?.said === said) {
      this.sounding = null;
      control.replaceChildren(icon("play"));
      return;
    }
    const url = URL.createObjectURL(wav(said.pcm, said.rateHz));
    const sound = Object.assign(new Audio(url), { said });
    const stopped = () => {
      control.replaceChildren(icon("play"));
      URL.revokeObjectURL(url);
      if (this.sounding === sound) this.sounding = null;
    };
    sound.addEventListener("ended", stopped);
    sound.addEventListener("pause", stopped);
    this.sounding = sound;
    control.replaceChildren(icon("stop"));
    sound.play();
  }
}
