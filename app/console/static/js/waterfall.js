// Where the time before the first sound went: the four factors (first token, tokens a second, network, head silence),
// and what lies between them.

import { h, milliseconds } from "./dom.js";

export const MONEY_MS = 1500;

const PARTS = [
  ["place", "Place", "Waiting for a worker, and for its answer"],
  ["text", "Text", "What the splitter waited for, before it had enough to speak"],
  ["first-token", "First token", "The engine reads the text and writes its first code"],
  ["tokens", "Tokens", "Until there were enough codes for the first audio"],
  ["decode", "Decode", "The codec makes sound of codes"],
  ["network", "Network", "What is left of the wait that this browser measured"],
  ["silence", "Head silence", "Before the voice begins, in the audio itself"],
];

/** The parts in milliseconds: from the ledger of `done`, and from the moments this browser measured. */
export function partsOf(ledger, { waited_ms: waited, silence_ms: silence }) {
  const server = [
    ["place", sum(ledger?.queue_ms, ledger?.route_ms)],
    ["text", ledger?.text_ms],
    ["first-token", ledger?.prefill_ms],
    ["tokens", ledger?.first_frames_ms],
    ["decode", ledger?.decode_ms],
  ];
  const known = server.reduce((total, [, ms]) => total + (ms ?? 0), 0);
  const network = ledger ? Math.max(0, waited - Math.max(known, ledger.first_audio_ms ?? 0)) : null;
  return new Map([...server, ["network", network], ["silence", ledger?.head_silence_ms ?? silence]]);
}

function sum(...values) {
  return values.some((value) => value != null) ? values.reduce((total, value) => total + (value ?? 0), 0) : null;
}

export class Waterfall {
  constructor() {
    this.total = h("strong", { class: "waterfall-total number" }, "–");
    this.verdict = h("span", { class: "chip" }, "first audio");
    this.rate = h("span", { class: "muted small number" }, "");
    this.rows = new Map();
    const list = h("dl", { class: "waterfall" });
    for (const [name, label, meaning] of PARTS) {
      const bar = h("span", { class: `part part-${name}` });
      const value = h("dd", { class: "number" }, "–");
      list.append(h("div", {}, h("dt", { title: meaning }, label), h("span", { class: "track", "aria-hidden": "true" }, bar), value));
      this.rows.set(name, { bar, value });
    }
    this.element = h("div", { class: "stack" },
      h("div", { class: "row" }, this.total, this.verdict, h("span", { class: "grow" }), this.rate), list);
    this.clear();
  }

  clear() {
    this.total.textContent = "–";
    this.verdict.textContent = "to the first sound";
    this.verdict.className = "chip";
    this.rate.textContent = "";
    for (const { bar, value } of this.rows.values()) {
      Object.assign(bar.style, { left: "0", width: "0" });
      value.textContent = "–";
    }
  }

  /** While it is waited for. */
  wait(ms) {
    this.total.textContent = milliseconds(ms);
    this.verdict.textContent = "so far";
  }

  /** `parts` as `partsOf` has them, of the `total` that the listener waited. */
  show(parts, total) {
    this.total.textContent = milliseconds(total);
    const inMoney = total <= MONEY_MS;
    this.verdict.textContent = inMoney ? "in the money" : "over 1.5 s";
    this.verdict.className = `chip ${inMoney ? "good" : "bad"}`;
    const scale = Math.max(total, [...parts.values()].reduce((all, ms) => all + (ms ?? 0), 0), 1);
    let at = 0;
    for (const [name, { bar, value }] of this.rows) {
      const ms = parts.get(name) ?? null;
      value.textContent = milliseconds(ms);
      Object.assign(bar.style, { left: `${(100 * at) / scale}%`, width: `${(100 * (ms ?? 0)) / scale}%` });
      at += ms ?? 0;
    }
  }

  speed(tokensPerS, timesRealTime) {
    this.rate.textContent = `${Math.round(tokensPerS)} tokens/s · ${timesRealTime.toFixed(1)} × real time`;
  }
}
