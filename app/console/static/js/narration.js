// One narration: how far each chapter is, and then the player, whose captions follow the words.

import { api, follow } from "./api.js";
import { bookPlayer } from "./book-player.js";
import { Captions } from "./captions.js";
import { button, clock, confirmed, dollars, h, plural, problem, span, toast } from "./dom.js";
import { STATES } from "./narrations.js";

export async function show(main, { params, signal, go }) {
  const page = new NarrationPage(main, params.id, signal, go);
  page.draw(await api("GET", page.path, { signal }));
  page.watch();
}

class NarrationPage {
  constructor(main, id, signal, go) {
    Object.assign(this, { id, signal, go, path: `/v1/narrations/${id}`, narration: null });
    this.head = h("header", { class: "stack tight" });
    this.state = h("section", { class: "card stack", "aria-label": "Progress" });
    this.listen = h("div");
    this.findings = h("section", { class: "card", hidden: true });
    main.append(this.head, this.listen, this.state, this.findings);
  }

  watch() {
    if (!this.narration.over) follow(`${this.path}/events`, (news) => this.draw({ ...this.narration, ...news }), { signal: this.signal }).catch((error) => toast(error.message, "bad"));
  }

  draw(narration) {
    const before = this.narration;
    this.narration = narration;
    const [words, kind] = STATES[narration.state];
    this.head.replaceChildren(
      h("a", { href: "/narrations", class: "small" }, "Narrations"),
      h("div", { class: "row apart" }, h("h1", {}, narration.title || "Untitled"), h("span", { class: `chip ${kind}` }, words)),
      h("p", { class: "muted" }, `Read by ${[narration.voice, ...Object.entries(narration.cast).map(([who, voice]) => `${voice} as ${who}`)].join(", ")}`));
    this.#progress(narration);
    this.#found(narration.findings);
    if (narration.output && before?.output?.size_bytes !== narration.output.size_bytes) this.#player();
  }

  #progress(narration) {
    const chapters = narration.chapters.map((chapter) => {
      const bar = h("span");
      bar.style.width = `${chapter.segments ? (100 * chapter.segments_done) / chapter.segments : 0}%`;
      return h("li", {}, h("span", { class: "grow" }, chapter.title || `Chapter ${chapter.number}`, " ", chapter.flagged ? h("span", { class: "chip" }, `${chapter.flagged} to listen to`) : null),
        h("span", { class: "muted small number" }, chapter.finished ? clock(chapter.audio_s) : `${chapter.segments_done} of ${chapter.segments}`), h("span", { class: "bar" }, bar),
        chapter.error && problem(chapter.error));
    });
    const facts = [
      ["Segments", `${narration.segments_done} of ${narration.segments}`],
      ["Audio", clock(narration.output?.duration_s ?? narration.audio_s)],
      ["Left", narration.eta_s === null ? "–" : `about ${span(narration.eta_s)}`],
      [narration.over ? "Cost" : "Cost so far", dollars(narration.cost_usd) ?? "no price is set"],
    ];
    if (narration.over) facts.splice(2, 1, ["Loudness", narration.output ? `${narration.output.loudness_lufs.toFixed(1)} LUFS` : "–"]);
    this.state.replaceChildren(
      h("header", { class: "row apart" }, h("h2", {}, "Progress"), h("div", { class: "row" }, this.#actions(narration))),
      narration.error ? problem(narration.error) : "",
      narration.cancel_requested && !narration.over ? h("p", { class: "notice" }, "It stops within some seconds. What was spoken is kept.") : "",
      h("dl", { class: "figures" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "number" }, value)))),
      chapters.length ? h("ol", { class: "uploads chapters" }, chapters) : h("p", { class: "muted" }, "The text is being planned: chapters appear in a moment."));
  }

  #actions(narration) {
    if (!narration.over) return [button("Stop", { icon: "stop", kind: "small", onclick: () => this.act("cancel") })];
    return [
      narration.state === "completed" ? null : button("Go on", { icon: "play", kind: "small", onclick: () => this.act("resume") }),
      button("Delete", { icon: "trash", kind: "small danger", onclick: () => this.remove() }),
    ].filter(Boolean);
  }

  async act(what) {
    try {
      this.draw(await api("POST", `${this.path}/${what}`, { json: {} }));
      if (what !== "cancel") this.watch();
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  async remove() {
    if (!(await confirmed("Delete this narration?", "The text and the finished file go. What was spoken is kept for a while, for a narration of the same words.", "Delete it"))) return;
    try {
      await api("DELETE", this.path);
      this.go("/narrations");
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  #found(findings = []) {
    this.findings.hidden = !findings.length;
    this.findings.replaceChildren(h("h2", {}, "Found on the way"), h("ul", { class: "summary" }, findings.slice(0, 100).map((finding) => h("li", {},
      finding.message, finding.segment ? button("Go there", { kind: "small quiet", onclick: () => this.captions?.reveal(finding.segment) }) : null))));
  }

  async #player() {
    const { narration } = this;
    const [{ chapters }, { data: segments }] = await Promise.all([api("GET", `${this.path}/chapters`, { signal: this.signal }), api("GET", `${this.path}/segments?words=true`, { signal: this.signal })]);
    const src = `${this.path}/audio?v=${narration.output.size_bytes}`;
    const { element: player, sound } = bookPlayer({ src, chapters, duration: narration.output.duration_s, signal: this.signal });
    const at = this.captions?.sound.currentTime ?? 0;
    sound.addEventListener("loadedmetadata", () => (sound.currentTime = Math.min(at, sound.duration)), { once: true });
    this.captions?.close();
    this.captions?.sound.pause();
    const { pauses } = narration.options;
    const paragraphAfterS = ((pauses.sentence_s ?? pauses.segment_s) + pauses.paragraph_s) / 2;
    this.captions = new Captions({ sound, segments, chapters, paragraphAfterS, speakAgain: (number) => this.again(number) });
    this.signal.addEventListener("abort", () => this.captions.close());
    const jump = h("ol", { class: "chapter-jump" }, chapters.map((chapter) => h("li", {}, button(chapter.title || `Chapter ${chapter.number}`, { kind: "small quiet", onclick: () => {
      sound.currentTime = chapter.start_s;
      sound.play();
    } }), h("span", { class: "muted small number" }, clock(chapter.start_s)))));
    this.listen.replaceChildren(h("section", { class: "card stack", "aria-label": "Listen", id: "player" },
      player,
      h("div", { class: "row" },
        h("a", { class: "button small", href: `${this.path}/audio`, download: "" }, `Download ${narration.output.format.toUpperCase()}`),
        h("a", { class: "button small quiet", href: `${this.path}/captions.vtt`, download: "captions.vtt" }, "Captions, VTT"),
        h("a", { class: "button small quiet", href: `${this.path}/captions.srt`, download: "captions.srt" }, "SRT"),
        h("span", { class: "muted small" }, `${clock(narration.output.duration_s)}, ${plural(segments.length, "segment")}`)),
      h("div", { class: "reading" }, chapters.length > 1 ? jump : "", this.captions.element)));
  }

  async again(number) {
    try {
      this.draw(await api("POST", `${this.path}/segments/${number}/regenerate`, {}));
      toast("It is spoken again. The file is made again around it; until then the old one plays.");
      this.watch();
    } catch (error) {
      toast(error.message, "bad");
    }
  }
}
