// Narrations: what is being read aloud, and what was.

import { api, poll } from "./api.js";
import { button, clock, empty, h, plural, problem, when } from "./dom.js";

const POLL_MS = 3000;
export const STATES = {
  queued: ["waits", ""], planning: ["is planned", "glow"], rendering: ["is read", "glow"], mastering: ["is mastered", "glow"],
  completed: ["finished", "good"], failed: ["failed", "bad"], cancelled: ["stopped", ""],
};

export async function show(main, { signal, may, go }) {
  if (!may("narrate")) {
    main.append(h("h1", {}, "Narrations"), empty("book", "This key narrates nothing", "Sign in with a key of the scope narrate to have books read aloud."));
    return;
  }
  const create = () => go("/narrations/new");
  const list = h("div");
  const fault = h("div");
  main.append(h("header", { class: "row apart" }, h("h1", {}, "Narrations"), button("New narration", { icon: "plus", kind: "primary", id: "new-narration", onclick: create })), fault, list);
  let shown = "";

  async function draw() {
    const { data } = await api("GET", "/v1/narrations?limit=200", { signal });
    fault.replaceChildren();
    if (JSON.stringify(data) === shown) return;
    shown = JSON.stringify(data);
    list.className = data.length ? "cards" : "card";
    list.replaceChildren(...(data.length ? data.map(card) : [empty("book", "Have something read aloud",
      "Hand in an EPUB, a Markdown or a text file. You hear a paragraph first, and get one file with chapters and captions.",
      button("New narration", { icon: "plus", kind: "primary", onclick: create }))]));
  }
  await draw();
  poll(draw, POLL_MS, { signal, onerror: (error) => fault.replaceChildren(problem(error)) });
}

function card(narration) {
  const [words, kind] = STATES[narration.state];
  const share = narration.segments ? narration.segments_done / narration.segments : 0;
  const bar = h("span");
  bar.style.width = `${100 * (narration.state === "completed" ? 1 : share)}%`;
  return h("a", { class: "card voice-card", href: `/narrations/${narration.id}` },
    h("header", { class: "row apart" }, h("h2", {}, narration.title || "Untitled"), h("span", { class: `chip ${kind}` }, words)),
    h("p", { class: "muted" }, `Read by ${narration.voice}${Object.keys(narration.cast).length ? ` and ${plural(Object.keys(narration.cast).length, "character")}` : ""}, ${narration.output ? clock(narration.output.duration_s) : `${clock(narration.audio_s)} so far`}`),
    h("span", { class: "bar", "aria-hidden": "true" }, bar),
    h("p", { class: "small muted" }, when(narration.created_at)));
}
