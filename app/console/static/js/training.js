// A voice in the making: which step it is at, how the loss falls, when it will be done; and what the gate measured.

import { button, h, span, svg } from "./dom.js";

const STEPS = [["queued", "Waits"], ["preparing", "Prepares"], ["training", "Trains"], ["gating", "Listens"], ["publishing", "Publishes"]];
const MEANING = {
  queued: "It begins as soon as the tasks process is free.",
  preparing: "The recordings are checked, cut and trimmed.",
  training: "The adapter learns the voice; the best epoch is kept.",
  gating: "The candidate speaks unseen sentences, and is measured.",
  publishing: "The adapter is stored and put in force.",
};

/** What was seen of job `id`'s loss is kept for this tab, so that the curve outlives a reload. */
export function trainingView({ id, cancel }) {
  const steps = h("ol", { class: "steps", "aria-label": "Steps of making" });
  const meaning = h("p", { class: "muted", role: "status" });
  const bar = h("span");
  const progress = h("div", { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "Training" }, bar);
  const figures = h("dl", { class: "figures" });
  const curve = h("div", { class: "curve" });
  const element = h("div", { class: "stack" },
    h("header", { class: "row apart" }, h("h2", {}, "In the making"), button("Stop", { icon: "stop", kind: "small", onclick: cancel })),
    steps, meaning, progress, figures, curve);
  const kept = `losses-${id}`;
  const losses = JSON.parse(sessionStorage.getItem(kept) ?? "[]");

  return {
    element,
    show(job) {
      const at = STEPS.findIndex(([state]) => state === job.state);
      steps.replaceChildren(...STEPS.map(([, word], i) => h("li", { class: i < at ? "done" : i === at ? "next" : "", "aria-current": i === at ? "step" : null }, word)));
      meaning.textContent = job.cancel_requested ? "It stops within ten seconds." : MEANING[job.state] ?? "";
      const told = job.progress;
      const share = told?.steps ? told.step / told.steps : job.state === "gating" || job.state === "publishing" ? 1 : 0;
      bar.style.width = `${100 * share}%`;
      progress.setAttribute("aria-valuenow", Math.round(100 * share));
      if (!told) return;
      // A trainer that was killed goes on from its checkpoint, some steps back.
      while (losses.length && losses.at(-1).step >= told.step) losses.pop();
      if (told.loss !== null) losses.push({ step: told.step, loss: told.loss });
      sessionStorage.setItem(kept, JSON.stringify(losses));
      const list = [["Epoch", `${told.epoch} of ${told.epochs}`], ["Step", `${told.step} of ${told.steps}`],
        ["Loss", told.loss === null ? "–" : told.loss.toFixed(3)], ["Left", told.eta_s === null ? "–" : `about ${span(told.eta_s)}`]];
      figures.replaceChildren(...list.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "number" }, value))));
      curve.replaceChildren(lossCurve(losses, told));
    },
  };
}

/** Training loss by step as it was seen here, and the held-out loss after each epoch. */
export function lossCurve(losses, { steps, epochs, held_out_losses: held }) {
  const [width, height, left, bottom] = [600, 190, 40, 24];
  const points = held.map((loss, epoch) => ({ step: (epoch * steps) / epochs, loss }));
  const values = [...losses, ...points].map(({ loss }) => loss);
  if (!values.length) return h("p", { class: "muted small" }, "The curve begins with the first step.");
  const low = Math.min(...values);
  const high = Math.max(...values, low + 0.1);
  const x = (step) => left + (step / Math.max(1, steps)) * (width - left - 8);
  const y = (loss) => 8 + (1 - (loss - low) / (high - low)) * (height - bottom - 16);
  const line = (list, name) => svg("polyline", { class: name, points: list.map(({ step, loss }) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ") });
  const grid = [low, (low + high) / 2, high].map((loss) => [
    svg("line", { class: "grid", x1: left, x2: width - 8, y1: y(loss), y2: y(loss) }),
    svg("text", { x: left - 6, y: y(loss) + 4, "text-anchor": "end" }, loss.toFixed(2))]);
  const marks = points.map((point) => svg("circle", { class: "held", cx: x(point.step), cy: y(point.loss), r: 4 }));
  return h("figure", {},
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Loss: ${values.at(-1).toFixed(2)} now; held out ${held.map((loss) => loss.toFixed(2)).join(", ") || "not measured yet"}` },
      grid, line(losses, "seen"), line(points, "held"), marks,
      svg("text", { x: left, y: height - 4 }, "0"), svg("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, `step ${steps}`)),
    h("figcaption", { class: "row small muted" }, h("span", { class: "key seen" }), "loss while training", h("span", { class: "key held" }), "loss on clips held out, the base model's first"));
}

const NAMES = {
  head_silence_p50_ms: ["Silence at the head, median", "ms"],
  head_silence_p95_ms: ["Silence at the head, 95 of 100", "ms"],
  ended_share: ["Ended by itself", "share"],
  band_order: ["Order of the codes", ""],
  duration_ratio: ["Pace, beside the speaker's", "×"],
  longest_silence_s: ["Longest pause inside", "s"],
  closeness: ["Distance to the speaker", "nats"],
  word_error_rate: ["Words misheard", "share"],
  sound_share: ["Spoke at all", "share"],
};

function amount(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "share") return `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
  return `${Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3))}${unit && ` ${unit}`}`;
}

export function gateTable(gate) {
  const failed = gate.figures.filter((figure) => figure.passed === false).length;
  return h("div", { class: "stack" },
    h("div", { class: "row" }, h("h3", {}, "The gate"), h("span", { class: `chip ${failed ? "bad" : "good"}` }, failed ? `${failed} not reached` : "passed"),
      h("span", { class: "muted small" }, `${gate.prompts} unseen sentences, spoken by the fleet's own workers`)),
    h("div", { class: "scroller", tabindex: 0, role: "group", "aria-label": "Figures of the gate" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Figure", "Measured", "Base voice", "Limit", ""].map((word) => h("th", { scope: "col" }, word)))),
      h("tbody", {}, gate.figures.map((figure) => {
        const [label, unit] = NAMES[figure.name] ?? [figure.name.replaceAll("_", " "), figure.name.endsWith("_ms") ? "ms" : figure.name.endsWith("_s") ? "s" : ""];
        const verdict = figure.passed === null ? ["told only", ""] : figure.passed ? ["reached", "good"] : ["not reached", "bad"];
        return h("tr", {}, h("td", {}, label, figure.note && h("div", { class: "muted small" }, figure.note)),
          h("td", { class: "number" }, amount(figure.measured, unit)), h("td", { class: "number muted" }, amount(gate.base?.[figure.name], unit)),
          h("td", { class: "number muted" }, figure.limit), h("td", {}, h("span", { class: `chip ${verdict[1]}` }, verdict[0])));
      })))));
}
