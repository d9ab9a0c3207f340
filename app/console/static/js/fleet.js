// The fleet, live: the ring, each worker's places, how quickly it answers, and what it costs.

import { api, poll, send } from "./api.js";
import { button, confirmed, dollars, empty, h, milliseconds, problem, toast } from "./dom.js";
import { bucketsOf, quantile, samplesOf, shareBelow } from "./prometheus.js";
import { RingView } from "./ring.js";
import { MONEY_MS } from "./waterfall.js";

const FLEET_MS = 1000;
const METRICS_MS = 3000;
const LATENCY = "carillon_latency_seconds";

export async function show(main, { signal, may }) {
  if (!may("fleet")) {
    main.append(h("h1", {}, "Fleet"), empty("ring", "This key does not see the fleet", "Sign in with a key of the scope fleet to watch workers and to drain them."));
    return;
  }
  const page = new FleetPage(main);
  page.draw(await api("GET", "/console/fleet", { signal }));
  poll(async () => {
    page.draw(await api("GET", "/console/fleet", { signal }));
    page.away(null);
  }, FLEET_MS, { signal, onerror: (error) => page.away(error) });
  poll(async () => page.figures(await (await send("GET", "/metrics", { signal })).text()), METRICS_MS, { signal });
}

class FleetPage {
  constructor(main) {
    this.ring = new RingView();
    this.fault = h("div");
    this.workers = h("tbody");
    this.values = new Map();
    this.before = null;
    const tile = (name, label, help) => {
      const value = h("dd", { class: "number" }, "–");
      const note = h("dd", { class: "muted small" }, help);
      this.values.set(name, { value, note });
      return h("div", { class: "card tile" }, h("dt", {}, label), value, note);
    };
    this.none = h("div", { class: "card", hidden: true }, empty("ring", "No worker yet", "Start one with make up, or carillon worker on another machine with the same settings. It appears here as soon as it reports."));
    this.board = h("div", { class: "fleet" },
      h("section", { class: "card ring-card", "aria-label": "The ring" }, this.ring.element,
        h("p", { class: "muted small centre" }, "Outside: voices at their home on the ring. Lines: where a clone is loaded.")),
      h("section", { class: "card", "aria-label": "Workers" }, h("h2", {}, "Workers"),
        h("div", { class: "scroller", tabindex: 0, role: "group", "aria-label": "Table of workers" }, h("table", { class: "workers" },
          h("thead", {}, h("tr", {}, ["Worker", "Sessions", "LoRA slots", ""].map((word) => h("th", { scope: "col" }, word || h("span", { class: "sr-only" }, "Drain"))))),
          this.workers))));
    main.append(h("h1", {}, "Fleet"), this.fault,
      h("dl", { class: "tiles" },
        tile("p50", "First audio, median", "since this front door began"),
        tile("p95", "First audio, 95 of 100", "since this front door began"),
        tile("money", "In the money", `answered within ${MONEY_MS / 1000} s`),
        tile("queue", "For a place, median", "from the request to a worker"),
        tile("audio", "Spoken", "since this front door began"),
        tile("cost", "An hour of audio", "all workers, at what is spoken now")),
      this.none, this.board);
  }

  away(error) {
    this.fault.replaceChildren(error ? problem(error) : "");
  }

  draw(fleet) {
    this.fleet = fleet;
    this.none.hidden = fleet.workers.length > 0;
    this.board.hidden = !fleet.workers.length;
    this.ring.show(fleet);
    const rows = JSON.stringify(fleet.workers);
    if (rows === this.rows) return;
    this.rows = rows;
    // The row that has the focus keeps it.
    const focused = document.activeElement?.dataset?.worker;
    this.workers.replaceChildren(...fleet.workers.map((worker) => this.#row(worker)));
    if (focused) this.workers.querySelector(`[data-worker="${CSS.escape(focused)}"]`)?.focus();
  }

  #row(worker) {
    const state = { active: "good", starting: "glow", draining: "bad" }[worker.state];
    const used = new Set([...worker.active_adapters, ...worker.background_adapters]).size;
    const share = worker.capacity ? worker.inflight / worker.capacity : 0;
    const bar = h("span");
    bar.style.width = `${100 * share}%`;
    return h("tr", {},
      h("td", {}, h("div", { class: "row tight" }, h("strong", {}, worker.id), h("span", { class: `chip ${state}` }, worker.state)),
        h("div", { class: "muted small" }, worker.part || `${worker.model.name}${worker.pace_s_per_s === null ? "" : ` · ${worker.pace_s_per_s.toFixed(2)} s of work a second of speech`}`)),
      h("td", { class: "number" }, `${worker.inflight} of ${worker.capacity}`, worker.background ? h("span", { class: "muted" }, ` + ${worker.background}`) : null,
        h("div", { class: "bar", "aria-hidden": "true" }, bar)),
      h("td", { class: "number" }, `${used} of ${worker.max_voices}`),
      h("td", {}, worker.state === "active" && button("Drain", { kind: "small", dataset: { worker: worker.id }, onclick: () => this.drain(worker) })));
  }

  async drain(worker) {
    if (!(await confirmed(`Drain ${worker.id}?`, "It takes no new session, and its sessions go on at others. Whoever supervises it starts it again.", "Drain it"))) return;
    try {
      await api("POST", `/v1/fleet/workers/${encodeURIComponent(worker.id)}/drain`, { json: {} });
      toast(`${worker.id} drains.`);
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  figures(page) {
    const set = (name, text, note) => {
      this.values.get(name).value.textContent = text;
      if (note) this.values.get(name).note.textContent = note;
    };
    const first = bucketsOf(page, LATENCY, { part: "first_audio" });
    const ms = (buckets, share) => {
      const value = quantile(buckets, share);
      return value === null ? "–" : milliseconds(1000 * value);
    };
    set("p50", ms(first, 0.5));
    set("p95", ms(first, 0.95));
    const share = shareBelow(first, MONEY_MS / 1000);
    set("money", share === null ? "–" : `${(100 * share).toFixed(share > 0.995 ? 0 : 1)} %`);
    set("queue", ms(bucketsOf(page, LATENCY, { part: "queue" }), 0.5));
    const audio = samplesOf(page, "carillon_audio_seconds_total").reduce((sum, { value }) => sum + value, 0);
    set("audio", audio >= 3600 ? `${(audio / 3600).toFixed(1)} h` : `${(audio / 60).toFixed(1)} min`);
    this.#cost(audio, set);
  }

  /** What the workers cost while an hour of audio is made, by what was made since the last look. */
  #cost(audio, set) {
    const now = performance.now() / 1000;
    const { workers, worker_usd_per_hour: price } = this.fleet;
    if (price === null) {
      set("cost", "–", "no price is set: worker_usd_per_hour");
      return;
    }
    this.before ??= { at: now, audio };
    const [time, made] = [now - this.before.at, audio - this.before.audio];
    if (time > 60) this.before = { at: now, audio };
    if (made > 0 && time > 1) set("cost", dollars((price * workers.length * time) / made), "all workers, by the last minute");
    else set("cost", "–", `nothing is spoken; the workers cost ${dollars(price * workers.length)} an hour`);
  }
}
