// What became of the recordings: what was used, what was trimmed, what was left out and why, with the sound itself.

import { send } from "./api.js";
import { button, clock, h, plural } from "./dom.js";
import { decoded } from "./player.js";
import { Wave } from "./wave.js";

const MAX_DRAWN_BYTES = 40e6;
const SHOWN = 20;
const SEVERITY = { rejected: ["left out", "bad"], fixed: ["mended", "glow"], check: ["have a look", ""] };

export function dataReport({ report, samples, voiceId, signal }) {
  const order = [...report.recordings].sort((a, b) => rank(b) - rank(a));
  const list = h("ul", { class: "report" });
  const draw = (count) => list.replaceChildren(...order.slice(0, count).map((one) => recording(one, { samples, voiceId, signal })),
    order.length > count && h("li", {}, button(`Show ${order.length - count} more`, { kind: "small quiet", onclick: () => draw(Infinity) })) || "");
  draw(SHOWN);
  const used = report.recordings.filter((one) => one.clips).length;
  const figures = [
    ["Usable speech", clock(report.usable_s)],
    ["Clips", report.clips.toLocaleString("en")],
    ["Recordings used", `${used} of ${report.recordings.length}`],
    ["Silence before, median", report.median_head_silence_s === null ? "–" : `${Math.round(1000 * report.median_head_silence_s)} ms`],
    ...(report.voice_matches === null ? [] : [["Who consented", report.voice_matches ? "the same voice" : "another voice"]]),
  ];
  return h("section", { class: "card stack", "aria-label": "What became of the recordings", id: "report" },
    h("h2", {}, "What became of the recordings"),
    h("dl", { class: "figures" }, figures.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "number" }, value)))),
    report.shortfall && h("p", { class: "notice bad" }, report.shortfall),
    h("ul", { class: "summary muted" }, report.summary.map((line) => h("li", {}, line))),
    h("p", { class: "small muted" }, "Open a recording to see and hear it: shaded red was left out, shaded grey was trimmed or mended."),
    list);
}

/** Those with something to say come first. */
function rank(one) {
  return one.findings.reduce((sum, finding) => sum + { rejected: 100, check: 10, fixed: 1 }[finding.severity], 0);
}

function recording(one, { samples, voiceId, signal }) {
  const counts = Object.keys(SEVERITY).map((severity) => [severity, one.findings.filter((finding) => finding.severity === severity).length]);
  const inside = h("div", { class: "stack" });
  const details = h("details", { ontoggle: () => details.open && !inside.firstChild && fill() },
    h("summary", {}, h("span", { class: "grow" }, one.file_name),
      h("span", { class: "muted small number" }, `${clock(one.used_s)} of ${clock(one.duration_s)} used, ${plural(one.clips, "clip")}${one.snr_db === null ? "" : `, ${one.snr_db} dB over noise`}`),
      counts.filter(([, count]) => count).map(([severity, count]) => h("span", { class: `chip ${SEVERITY[severity][1]}` }, `${count} ${SEVERITY[severity][0]}`))),
    inside);

  async function fill() {
    inside.append(
      one.transcription ? h("p", { class: "small" }, h("span", { class: "muted" }, `Heard by ${one.transcription.by}: `), one.transcription.text) : "",
      h("ul", { class: "findings" }, one.findings.length ? one.findings.map((finding) => h("li", {},
        h("span", { class: `chip ${SEVERITY[finding.severity][1]}` }, SEVERITY[finding.severity][0]), " ",
        finding.start_s !== null && h("span", { class: "muted number" }, `${clock(finding.start_s)} `), finding.message))
        : h("li", { class: "muted" }, "Used as it is.")));
    const sample = samples.find((other) => other.file_name === one.file_name);
    if (!sample || sample.size_bytes > MAX_DRAWN_BYTES) return;
    const canvas = h("canvas", { class: "wave", role: "img", "aria-label": `The sound of ${one.file_name}` });
    const path = `/v1/voices/${voiceId}/samples/${sample.id}/audio`;
    const sound = h("audio", { controls: true, preload: "none", src: path });
    inside.prepend(canvas, h("div", { class: "row" }, sound, headButtons(sound, one)));
    const wave = new Wave(canvas);
    try {
      const { samples: pcm, duration } = await decoded(await (await send("GET", path, { signal })).arrayBuffer());
      wave.show(pcm);
      sound.addEventListener("timeupdate", () => wave.play(sound.currentTime / duration));
      wave.mark(one.findings.filter((finding) => finding.start_s !== null && finding.end_s !== null).map((finding) => ({
        start: finding.start_s / duration, end: finding.end_s / duration, kind: finding.severity })));
    } catch {
      canvas.replaceWith(h("p", { class: "muted small" }, "This browser cannot decode the file, so it is not drawn."));
    }
  }
  return h("li", {}, details);
}

/** How it begins, with what was before the speech and without. */
function headButtons(sound, one) {
  const head = one.findings.find((finding) => finding.code === "head_silence");
  if (!head) return null;
  const from = (seconds) => () => {
    sound.currentTime = seconds;
    sound.play();
  };
  return [
    button("As recorded", { icon: "play", kind: "small quiet", onclick: from(0) }),
    button("As trimmed", { icon: "play", kind: "small quiet", onclick: from(head.end_s) }),
  ];
}
