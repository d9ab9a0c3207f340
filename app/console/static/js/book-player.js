// A finished book's player: play, skip, speed, and a line with its chapters on it.

import { button, clock, h, icon } from "./dom.js";

const SKIP_S = 15;
const SPEEDS = [0.8, 1, 1.2, 1.5, 2];

/** `chapters` are those of the API: `{number, title, start_s}`. Returns its element, and the sound in it. */
export function bookPlayer({ src, chapters, duration, signal }) {
  const sound = h("audio", { preload: "metadata", src });
  const place = h("input", { type: "range", min: 0, max: duration.toFixed(1), step: 0.1, value: 0, "aria-label": "Place in the book" });
  const time = h("span", { class: "muted small number" });
  const title = h("span", { class: "grow player-title" });
  const play = button("", { icon: "play", kind: "round primary", label: "Play", id: "play", onclick: () => (sound.paused ? sound.play() : sound.pause()) });
  const speed = h("select", { class: "speed", "aria-label": "Speed", onchange: () => (sound.playbackRate = Number(speed.value)) },
    SPEEDS.map((value) => h("option", { value, selected: value === 1 }, `${value} ×`)));
  const by = (seconds) => (sound.currentTime = Math.max(0, Math.min(duration, sound.currentTime + seconds)));
  const marks = chapters.slice(1).map(({ start_s: start }) => {
    const mark = h("span", { class: "chapter-mark" });
    mark.style.left = `${(100 * start) / duration}%`;
    return mark;
  });
  let held = false;

  function draw() {
    const at = sound.currentTime;
    if (!held) place.value = at;
    place.style.setProperty("--played", `${(100 * Number(place.value)) / duration}%`);
    const chapter = chapters.findLast((one) => one.start_s <= at + 0.05) ?? chapters[0];
    title.textContent = chapter ? chapter.title || `Chapter ${chapter.number}` : "";
    time.textContent = `${clock(held ? Number(place.value) : at)} / ${clock(duration)}`;
    place.setAttribute("aria-valuetext", `${clock(at)} of ${clock(duration)}, ${title.textContent}`);
  }

  place.addEventListener("input", () => ((held = true), draw()));
  place.addEventListener("change", () => ((held = false), (sound.currentTime = Number(place.value))));
  for (const event of ["timeupdate", "seeked", "loadedmetadata"]) sound.addEventListener(event, draw);
  for (const [event, name, label] of [["play", "pause", "Pause"], ["pause", "play", "Play"]]) {
    sound.addEventListener(event, () => (play.replaceChildren(icon(name)), play.setAttribute("aria-label", label), (play.title = label)));
  }
  signal.addEventListener("abort", () => sound.pause());
  draw();
  const element = h("div", { class: "book-player", role: "group", "aria-label": "Player" },
    h("div", { class: "row player-keys" },
      button("", { icon: "back", kind: "round quiet", label: `Back ${SKIP_S} seconds`, onclick: () => by(-SKIP_S) }), play,
      button("", { icon: "forward", kind: "round quiet", label: `Forward ${SKIP_S} seconds`, onclick: () => by(SKIP_S) }),
      title, time, speed),
    h("div", { class: "player-line" }, place, h("div", { class: "chapter-marks", "aria-hidden": "true" }, marks)), sound);
  return { element, sound };
}
