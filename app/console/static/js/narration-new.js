// A new narration: a book or a text, its chapters and characters, a paragraph to hear first, and what it will take.

import { api } from "./api.js";
import { button, check, dollars, empty, field, h, icon, plural, problem, span } from "./dom.js";
import { namesPart } from "./names.js";
import { Utterance } from "./speech.js";
import { voicePicker } from "./voice-picker.js";

const FORMATS = { m4b: "M4B, with chapters and cover", mp3: "MP3", flac: "FLAC", opus: "Opus", wav: "WAV" };

export async function show(main, { signal, go, may }) {
  if (!may("narrate")) return go("/narrations");
  const { voices } = await api("GET", "/v1/audio/voices", { signal });
  main.append(h("header", { class: "stack tight" }, h("a", { href: "/narrations", class: "small" }, "Narrations"), h("h1", {}, "New narration")));
  if (!voices.length) {
    main.append(h("div", { class: "card" }, empty("book", "No voice yet", "No worker is ready. The fleet page shows how far they are.")));
    return;
  }
  const page = new NewNarration(main, voices, signal, go);
  signal.addEventListener("abort", () => page.sample?.close());
}

class NewNarration {
  constructor(main, voices, signal, go) {
    Object.assign(this, { voices, signal, go, book: null, file: null, cover: null, cast: new Map() });
    this.fault = h("div");
    this.plan = h("div", { class: "stack" });
    main.append(this.#source(), this.fault, this.plan);
  }

  #source() {
    const chooser = h("input", { type: "file", id: "book", class: "sr-only", accept: ".epub,.docx,.html,.htm,.xhtml,.md,.markdown,.ssml,.txt,text/plain,application/epub+zip",
      onchange: () => (this.read(chooser.files[0]), (chooser.value = "")) }); // so that the same file can be chosen again
    this.zone = h("label", { class: "drop", for: "book" }, icon("book"), h("span", {}, h("strong", {}, "Drop a book here"), " or choose one"), h("span", { class: "muted small" }, "EPUB, DOCX, HTML, Markdown or plain text"));
    this.zone.addEventListener("dragover", (event) => (event.preventDefault(), this.zone.classList.add("over")));
    this.zone.addEventListener("dragleave", () => this.zone.classList.remove("over"));
    this.zone.addEventListener("drop", (event) => {
      event.preventDefault();
      this.zone.classList.remove("over");
      this.read(event.dataTransfer.files[0]);
    });
    const text = h("textarea", { rows: 6, placeholder: "# Chapter one\n\nThe bell rang over the island." });
    const pasted = h("details", {}, h("summary", {}, "Or paste a text"),
      h("div", { class: "stack pasted" }, field("Text", text, "Markdown: a heading begins a chapter; [robin] alone on a line gives the next lines to that character."),
        h("div", {}, button("Look at it", { onclick: () => this.read(new File([text.value], "text.md", { type: "text/markdown" })) }))));
    return h("section", { class: "card stack", "aria-label": "The text" }, this.zone, chooser, pasted);
  }

  #form(wanted) {
    const form = new FormData();
    form.append("narration", JSON.stringify(wanted));
    form.append("file", this.file);
    return form;
  }

  async read(file) {
    if (!file) return;
    this.file = file;
    this.fault.replaceChildren(h("p", { class: "muted", role: "status" }, `${file.name} is taken apart …`));
    this.plan.replaceChildren();
    try {
      this.book = await api("POST", "/v1/narrations/preview", { form: this.#form({ voice: this.voices[0].name }), signal: this.signal });
      this.fault.replaceChildren();
      this.draw();
    } catch (error) {
      if (!this.signal.aborted) this.fault.replaceChildren(problem(error));
    }
  }

  draw() {
    const { book } = this;
    this.chosen = new Set(book.chapters.map((chapter) => chapter.number));
    this.cast.clear();
    this.title = h("input", { type: "text", value: book.title, maxlength: 300 });
    this.format = h("select", {}, Object.entries(FORMATS).map(([name, words]) => h("option", { value: name }, words)));
    this.narrator = voicePicker({ voices: this.voices, value: localStorage.getItem("voice"), label: "Narrator" });
    this.words = namesPart({ names: book.names, voice: () => this.#voice(this.narrator.value), signal: this.signal });
    this.estimate = h("p", { class: "muted", role: "status" });
    this.start = button("Read it aloud", { kind: "primary large", id: "narrate", onclick: () => this.submit() });
    this.plan.replaceChildren(
      h("section", { class: "card stack", "aria-label": "Who reads" },
        h("div", { class: "row end" }, h("div", { class: "grow" }, field("Title", this.title)), h("div", {}, field("As", this.format))),
        this.narrator, this.#casting(), this.#first()),
      this.#chapters(),
      this.words,
      book.findings.length ? h("section", { class: "card" }, h("h2", {}, "Found in the text"), h("ul", { class: "summary" }, book.findings.map((finding) => h("li", {}, finding.message)))) : "",
      h("section", { class: "card row apart" }, h("div", { class: "grow" }, this.estimate, this.refusal = h("div")), this.start));
    this.#sum();
  }

  #voice(wanted) {
    const { name, model } = this.voices.find(({ name }) => name === wanted);
    return { voice: name, model };
  }

  #casting() {
    const others = this.book.characters.filter(({ name }) => name !== "narrator");
    if (!others.length) return null;
    return h("fieldset", { class: "cast" }, h("legend", { class: "label" }, "Cast"),
      others.map(({ name, chars }) => {
        const picker = voicePicker({ voices: this.voices, none: "The narrator", label: `Voice of ${name}`, onchange: () => this.cast.set(name, picker.value) });
        return h("div", { class: "row" }, h("span", { class: "grow" }, h("strong", {}, name), h("span", { class: "muted small" }, ` ${chars.toLocaleString("en")} characters of text`)), h("div", { class: "cast-voice" }, picker));
      }));
  }

  #first() {
    const chapter = this.book.chapters.find((one) => one.first);
    if (!chapter) return null;
    const hear = button("Hear it first", { icon: "play", id: "hear-first", onclick: () => {
      if (this.sample && !this.sample.over) return this.sample.cancel();
      const voice = this.#voice(this.cast.get(chapter.first_character) || this.narrator.value);
      hear.replaceChildren(icon("stop"), "Stop");
      const done = () => hear.replaceChildren(icon("play"), "Hear it first");
      this.sample = new Utterance({ ...voice, tell: (event, detail) => {
        if (event === "finished") done();
        if (event === "failed") (done(), this.fault.replaceChildren(problem(detail)));
      } });
      this.sample.write(chapter.first);
      this.sample.end();
    } });
    return h("div", { class: "stack" }, h("blockquote", { class: "prompt first" }, chapter.first), h("div", {}, hear));
  }

  #chapters() {
    const boxes = this.book.chapters.map((chapter) => check(
      h("span", { class: "row" }, h("span", { class: "grow" }, chapter.title || `Chapter ${chapter.number}`), h("span", { class: "muted small number" }, `about ${span(chapter.audio_s)}`)),
      { checked: true, onchange: (event) => (event.target.checked ? this.chosen.add(chapter.number) : this.chosen.delete(chapter.number), this.#sum()) }));
    const all = (checked) => {
      for (const box of boxes) box.firstChild.checked = checked;
      this.chosen = new Set(checked ? this.book.chapters.map(({ number }) => number) : []);
      this.#sum();
    };
    return h("section", { class: "card", "aria-label": "Chapters" },
      h("header", { class: "row apart" }, h("h2", {}, "Chapters"), h("div", { class: "row" }, button("All", { kind: "small quiet", onclick: () => all(true) }), button("None", { kind: "small quiet", onclick: () => all(false) }))),
      h("div", { class: "chapter-list", tabindex: 0, role: "group", "aria-label": "Chapters to read" }, boxes));
  }

  #sum() {
    const chosen = this.book.chapters.filter((chapter) => this.chosen.has(chapter.number));
    const seconds = chosen.reduce((sum, chapter) => sum + chapter.audio_s, 0);
    const cost = this.book.cost_usd === null || !this.book.audio_s ? null : (this.book.cost_usd * seconds) / this.book.audio_s;
    this.estimate.textContent = chosen.length
      ? `${plural(chosen.length, "chapter")}, about ${span(seconds)} of audio${cost === null ? "" : `, at most ${dollars(cost)}`}. It takes spare places only.`
      : "Choose a chapter at least.";
    this.start.disabled = !chosen.length;
  }

  async submit() {
    this.start.disabled = true;
    const everything = this.chosen.size === this.book.chapters.length;
    const wanted = {
      voice: this.narrator.value,
      cast: Object.fromEntries([...this.cast].filter(([, voice]) => voice)),
      format: this.format.value,
      title: this.title.value.trim() || null,
      options: { replacements: this.words.replacements, chapters: everything ? null : [...this.chosen].sort((a, b) => a - b) },
    };
    try {
      const narration = await api("POST", "/v1/narrations", { form: this.#form(wanted) });
      this.go(`/narrations/${narration.id}`);
    } catch (error) {
      this.start.disabled = false;
      this.refusal.replaceChildren(problem(error));
    }
  }
}
