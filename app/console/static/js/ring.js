// The hash ring as a picture: workers around it with their places, and each voice beside its home, with lines to where
// it is loaded.

import { svg } from "./dom.js";

const SIZE = 460;
const CENTRE = SIZE / 2;
const RADIUS = 150;
const MOST_VOICES = 48;

export class RingView {
  constructor() {
    this.element = svg("svg", { class: "ring", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img" });
    this.drawn = "";
  }

  show({ workers, voices }) {
    const facts = JSON.stringify([workers.map((w) => [w.id, w.state, w.capacity, w.inflight, w.background]), voices.slice(0, MOST_VOICES)]);
    if (facts === this.drawn) return;
    this.drawn = facts;
    const sessions = workers.reduce((sum, worker) => sum + worker.inflight, 0);
    const places = workers.reduce((sum, worker) => sum + worker.capacity, 0);
    this.element.setAttribute("aria-label", `${workers.length} workers, ${sessions} of ${places} places taken, ${voices.length} voices`);
    const at = new Map(workers.map((worker, i) => [worker.id, (2 * Math.PI * i) / Math.max(1, workers.length) - Math.PI / 2]));
    const width = (2 * Math.PI) / Math.max(1, workers.length);
    this.element.replaceChildren(
      svg("circle", { class: "ring-line", cx: CENTRE, cy: CENTRE, r: RADIUS }),
      ...this.#voices(voices.slice(0, MOST_VOICES), at, width),
      ...workers.map((worker) => this.#worker(worker, at.get(worker.id))),
      svg("text", { class: "ring-count", x: CENTRE, y: CENTRE - 2, "text-anchor": "middle" }, `${sessions}`),
      svg("text", { class: "ring-words", x: CENTRE, y: CENTRE + 22, "text-anchor": "middle" }, `of ${places} places speak`),
    );
  }

  #worker(worker, angle) {
    const [x, y] = point(angle, RADIUS);
    const share = worker.capacity ? worker.inflight / worker.capacity : 0;
    const around = 2 * Math.PI * 26;
    return svg("g", { class: `ring-worker ${worker.state}` },
      svg("title", {}, `${worker.id}: ${worker.state}, ${worker.inflight} of ${worker.capacity} places${worker.background ? `, ${worker.background} in the background` : ""}`),
      svg("circle", { class: "body", cx: x, cy: y, r: 26 }),
      svg("circle", { class: "load", cx: x, cy: y, r: 26, "stroke-dasharray": `${around * share} ${around}`, transform: `rotate(-90 ${x} ${y})` }),
      svg("text", { x, y: y + 5, "text-anchor": "middle" }, `${worker.inflight}/${worker.capacity}`));
  }

  /** Voices of a home stand side by side outside of it; a line goes to each worker that has one loaded. */
  #voices(voices, at, width) {
    const homes = Map.groupBy(voices.filter((voice) => at.has(voice.home)), (voice) => voice.home);
    const drawn = [];
    for (const [home, list] of homes) {
      list.forEach((voice, i) => {
        const spread = Math.min(width * 0.86, 0.34 * list.length);
        const angle = at.get(home) + (list.length === 1 ? 0 : (i / (list.length - 1) - 0.5) * spread);
        const [x, y] = point(angle, RADIUS + 52);
        const [tx, ty] = point(angle, RADIUS + 64);
        const side = Math.cos(angle) > 0.25 ? "start" : Math.cos(angle) < -0.25 ? "end" : "middle";
        const lines = new Set([...voice.replicas, ...voice.active]);
        for (const worker of lines) {
          if (!at.has(worker)) continue;
          const [wx, wy] = point(at.get(worker), RADIUS);
          drawn.unshift(svg("line", { class: voice.active.includes(worker) ? "link live" : "link", x1: x, y1: y, x2: wx, y2: wy }));
        }
        const state = voice.active.length ? "live" : voice.replicas.length || voice.kind === "built_in" ? "loaded" : "";
        const fewEnough = list.length * at.size <= 24;
        drawn.push(svg("g", { class: `ring-voice ${state}` },
          svg("title", {}, `${voice.name}, at home on ${home}${voice.replicas.length ? `, loaded on ${voice.replicas.join(", ")}` : ""}`),
          svg("circle", { cx: x, cy: y, r: 5 }),
          fewEnough && svg("text", { x: tx, y: ty + 4 + (side === "middle" ? Math.sin(angle) * 8 : 0), "text-anchor": side }, voice.name.length > 9 ? `${voice.name.slice(0, 8)}…` : voice.name)));
      });
    }
    return drawn;
  }
}

function point(angle, radius) {
  return [CENTRE + radius * Math.cos(angle), CENTRE + radius * Math.sin(angle)];
}
