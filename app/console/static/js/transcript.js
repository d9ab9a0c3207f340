// The words as they are spoken: a text whose words light up with the samples that say them.

import { h } from "./dom.js";

/** Words of a text with the code points they stand at. */
export function wordsOf(text) {
  const words = [];
  let at = 0;
  for (const piece of text.match(/\s+|\S+/gu) ?? []) {
    const length = Array.from(piece).length;
    words.push({ text: piece, start: at, end: at + length, blank: /^\s/u.test(piece) });
    at += length;
  }
  return words;
}

/** Samples for a character, until a segment says how fast the voice is: 60 ms, as English is read. */
const PACE = 1440;

export class Transcript {
  constructor() {
    this.element = h("p", { class: "transcript" });
    this.clear();
  }

  clear() {
    this.text = "";
    this.words = [];
    this.current = -1;
    this.known = { char: 0, sample: 0 };
    this.pace = PACE;
    this.element.replaceChildren();
  }

  /** More of the text, as it was sent. */
  append(text) {
    this.text += text;
    const words = wordsOf(this.text);
    // The last word so far may have grown.
    const same = Math.max(0, this.words.length - 1);
    this.words.splice(same).forEach((word) => word.element.remove());
    for (const word of words.slice(same)) {
      word.element = h("span", { class: "word" }, word.text);
      this.words.push(word);
      this.element.append(word.element);
    }
    this.#guess();
  }

  /** A segment of the protocol: its words share its samples, each by its length. */
  segment({ start_char: start, end_char: end, start_sample: from, end_sample: to }) {
    if (start === null || end === null || end <= start) return;
    this.pace = (to - from) / (end - start);
    this.known = { char: end, sample: to };
    for (const word of this.words) if (!word.blank && word.end > start && word.start < end) this.#place(word, start, from);
    this.#guess();
  }

  /** A segment is told once it is spoken; until then its words are where this voice's pace would have them. */
  #guess() {
    for (const word of this.words) if (!word.blank && word.start >= this.known.char) this.#place(word, this.known.char, this.known.sample);
  }

  #place(word, char, sample) {
    word.sample = sample + (word.start - char) * this.pace;
    word.until = sample + (word.end - char) * this.pace;
  }

  /** The ear is at this sample. */
  play(sample) {
    for (const [index, word] of this.words.entries()) {
      if (word.sample === undefined) continue;
      const now = sample >= word.sample && sample < word.until;
      word.element.classList.toggle("said", sample >= word.sample);
      word.element.classList.toggle("now", now);
      if (now && index !== this.current) {
        this.current = index;
        word.element.scrollIntoView({ block: "nearest", behavior: "auto" });
      }
    }
  }
}
