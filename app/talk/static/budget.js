// Draws a turn's budget as a line of time, and the percentiles of all turns.
const PARTS = [
  ["endpoint_ms", "seemed to have ended"],
  ["words_ms", "words recognised"],
  ["token_ms", "first token of the answer"],
  ["ready_ms", "first audio ready"],
  ["sure_ms", "turn was sure"],
  ["heard_ms", "heard"],
];
const ORDER = ["endpoint_ms", "words_ms", "token_ms", "ready_ms", "heard_ms"];

const shown = (value) => (value === null || value === undefined ? "–" : Math.round(value).toString());

export function drawTurn(turn) {
  const track = document.querySelector("#timeline .track");
  const whole = Math.max(turn.heard_ms ?? 0, turn.ready_ms ?? 0, turn.snooze_ms) * 1.08;
  let from = 0;
  const parts = ORDER.filter((name) => turn[name] !== null).map((name) => {
    const part = document.createElement("div");
    part.className = `part ${kind(name)}`;
    part.title = PARTS.find(([it]) => it === name)[1];
    part.style.left = `${(from / whole) * 100}%`;
    part.style.width = `${(Math.max(0, turn[name] - from) / whole) * 100}%`;
    from = Math.max(from, turn[name]);
    return part;
  });
  const snooze = document.createElement("div");
  snooze.className = "snooze";
  snooze.style.left = `${(turn.snooze_ms / whole) * 100}%`;
  track.replaceChildren(...parts, snooze);
  const verdict = document.createElement("span");
  verdict.className = turn.in_the_money ? "money" : "late";
  verdict.textContent = turn.in_the_money ? "in the money" : "late";
  document.getElementById("verdict").replaceChildren(
    `Turn ${turn.turn}: ready after ${shown(turn.ready_ms)} ms, heard after ${shown(turn.heard_ms)} ms: `, verdict,
  );
  drawTable(null, turn);
}

let table = null;

export function drawTable(event, turn) {
  table = event ?? table;
  const rows = PARTS.map(([name, words]) => row([swatch(name), words], shown(turn?.[name]), shown(table?.[name]?.p50), shown(table?.[name]?.p95)));
  if (table) {
    const share = table.in_the_money === null ? "–" : `${Math.round(table.in_the_money * 100)} %`;
    rows.push(row([`in the money, of ${table.turns}`], "", share, ""));
  }
  document.querySelector("#percentiles tbody").replaceChildren(...rows);
}

const kind = (name) => name.replace("_ms", "");

/** The colour of a part in the line of time; being sure takes no time of its own there. */
function swatch(name) {
  const mark = document.createElement("span");
  mark.className = `swatch ${ORDER.includes(name) ? kind(name) : "none"}`;
  mark.setAttribute("aria-hidden", "true");
  return mark;
}

function row(name, ...values) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.append(...name);
  line.append(head, ...values.map((value) => {
    const cell = document.createElement("td");
    cell.textContent = value;
    return cell;
  }));
  return line;
}

drawTable(null, null);
