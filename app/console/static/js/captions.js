// A book's words under its sound: the sentence and the word that sound now are marked; a click plays from there.

import { button, h } from "./dom.js";

export class Captions {
  /** A longer silence than `paragraphAfterS` begins a paragraph, and so does another voice; a chapter has its title. */
  constructor({ sound, segments, chapters, paragraphAfterS, speakAgain }) {
    this.sound = sound;
    this.lines = segments.filter((segment) => segment.start_s !== null);
    this.current = null;
    this.element = h("div", { class: "captions", tabindex: 0, role: "group", "aria-label": "The text; a click plays from there" });
    const titles = new Map(chapters.map((chapter) => [chapter.number, chapter.title]));
    let before = null;
    for (const line of this.lines) {
      if (line.chapter !== before?.chapter) this.#chapter(line, titles.get(line.chapter));
      else if (before.titled || line.character !== before.character || line.start_s - before.end_s > paragraphAfterS) this.#paragraph(line, before);
      this.#line(line);
      before = line;
    }
    this.again = button("Speak it again", { icon: "again", kind: "small", onclick: () => speakAgain(this.current.number) });
    this.menu = h("span", { class: "line-menu", hidden: true }, this.again);
    this.element.addEventListener("keydown", (event) => this.#key(event));
    sound.addEventListener("play", () => this.#follow());
  }

  close() {
    cancelAnimationFrame(this.frame);
  }

  select(line) {
    this.sound.currentTime = line.start_s;
    this.#mark(line);
    this.menu.hidden = false;
    line.element.after(this.menu);
  }

  /** Show segment `number`, for who wants to know what was found there. */
  reveal(number) {
    const line = this.lines.find((one) => one.number === number);
    if (!line) return;
    this.select(line);
    line.element.scrollIntoView({ block: "center" });
  }

  #chapter(line, title) {
    line.titled = title && line.written.replace(/\W/gu, "") === title.replace(/\W/gu, "");
    if (title && !line.titled) this.element.append(h("h3", {}, title));
    if (line.titled) this.element.append((this.block = h("h3")));
    else this.#paragraph(line, null);
  }

  #paragraph(line, before) {
    this.element.append((this.block = h("p")));
    if (line.character !== "narrator" && line.character !== before?.character) this.block.append(h("span", { class: "speaker" }, line.character));
  }

  #line(line) {
    line.element = h("span", { class: `line ${line.flags.length ? "flagged" : ""}`, role: "button", tabindex: -1,
      title: line.flags.length ? `To listen to: ${line.flags.join(", ").replaceAll("_", " ")}` : null,
      onclick: () => this.select(line) }, line.written, " ");
    this.block.append(line.element);
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.target !== this.element) return;
    event.preventDefault();
    const at = this.lines.indexOf(this.current);
    const line = this.lines[Math.min(this.lines.length - 1, Math.max(0, at + step))];
    if (!line) return;
    this.select(line);
    this.#keepInSight(line);
  }

  /** From picture to picture, while it plays. */
  #follow() {
    if (this.sound.paused) return;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.#follow());
    const time = this.sound.currentTime;
    const line = this.lines.findLast((one) => one.start_s <= time) ?? null;
    if (line !== this.current) {
      this.#mark(line);
      this.#keepInSight(line);
    }
    if (line) this.#word(line, time);
  }

  #mark(line) {
    this.current?.element.classList.remove("now");
    this.current?.marked?.forEach((word) => word.element.classList.remove("now"));
    this.current = line;
    if (!line) return;
    line.element.classList.add("now");
    if (line.marked) return;
    line.marked = line.words.map((word) => ({ ...word, element: h("span", { class: "word" }, word.text, " ") }));
    line.element.replaceChildren(...line.marked.map((word) => word.element));
  }

  #word(line, time) {
    const now = line.marked.findLast((word) => word.start_s <= time) ?? line.marked[0];
    for (const word of line.marked) word.element.classList.toggle("now", word === now);
  }

  #keepInSight(line) {
    if (!line) return;
    const [box, row] = [this.element.getBoundingClientRect(), line.element.getBoundingClientRect()];
    if (row.top < box.top || row.bottom > box.bottom) this.element.scrollTop += row.top - box.top - box.height / 3;
  }
}
