// The page of the talk: one button, what is said, and the budget of each turn.
import { Refused, overSocket, overWebrtc } from "./connection.js";
import { drawTable, drawTurn } from "./budget.js";

const $ = (id) => document.getElementById(id);
const WORDS = {
  waiting: "Listening. Say something.",
  hearing: "I hear you.",
  snoozing: "Thinking, in case you have ended.",
  answering: "Answering. Speak to interrupt.",
  held: "Go on, I am listening.",
};

let call = null;
let context = null;
let microphone = null;
let draft = null; // the list item of what is being said, or answered
let turns = []; // of the last conversation, whether or not it has ended

$("call").addEventListener("click", () => (call ? hangUp("The conversation has ended.") : start()));
$("options").addEventListener("submit", (event) => event.preventDefault());
$("key").addEventListener("change", listVoices);
$("export-csv").addEventListener("click", () => save("csv"));
$("export-json").addEventListener("click", () => save("json"));
$("key").value = sessionStorage.getItem("carillon-key") ?? "";
listVoices();
dropLinks();

async function start() {
  problem("");
  $("call").disabled = true;
  say("Asking for the microphone …");
  try {
    microphone = await openMicrophone();
    context = new AudioContext();
    await context.resume();
    say("Connecting …");
    call = await connect();
    sessionStorage.setItem("carillon-key", $("key").value);
    label("Hang up", "stop");
    turns = [];
    meterLoop(call);
  } catch (error) {
    letGo();
    refuse(error);
  }
  $("call").disabled = false;
}

async function openMicrophone() {
  if (!navigator.mediaDevices) {
    throw new Refused({ message: "Browsers give a microphone to pages at https:// or at localhost alone. Open this page there." });
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
  } catch (error) {
    throw new Refused({
      message: error.name === "NotFoundError"
        ? "This machine has no microphone. Connect one, and press Start again."
        : "The microphone was refused. Allow it for this page, in the bar above, and press Start again.",
    });
  }
}

async function connect() {
  const options = { microphone, context, key: $("key").value.trim(), voice: $("voice").value, hear, lost };
  const chosen = $("transport").value;
  if (chosen !== "socket") {
    try {
      return await overWebrtc(options);
    } catch (error) {
      if (chosen === "webrtc" || error.code) throw error;
    }
  }
  return overSocket(options);
}

function lost() {
  hangUp("");
  problem("The connection was lost. Press Start to talk again.");
}

function hangUp(words) {
  letGo();
  say(words || "Press Start and speak.");
  document.body.dataset.state = "";
  label("Start", "mic");
}

function label(words, icon) {
  $("call-label").textContent = words;
  $("call-icon").setAttribute("href", `/console/static/icons.svg#${icon}`);
}

function letGo() {
  call?.close();
  microphone?.getTracks().forEach((track) => track.stop());
  context?.close();
  call = microphone = context = draft = null;
}

function refuse(error) {
  say("Press Start and speak.");
  const keyless = error.code === "authentication_failed";
  if (keyless) $("key-field").hidden = false;
  problem(keyless && !$("key").value ? "This fleet asks for a key. `make up` has printed one: paste it above." : error.message);
  if (keyless) $("key").focus();
}

function hear(event) {
  const act = {
    who: () => ($("who").textContent = `${event.voice} speaks · ${event.ears} hears · ${mindOf(event.mind)}`),
    state: () => {
      document.body.dataset.state = event.state;
      say(WORDS[event.held ? "held" : event.state]);
    },
    heard: () => write("you", event.text, event.sure ? "" : "unsure"),
    answer: () => {
      if (draft?.dataset.attempt !== String(event.attempt)) {
        draft = write("bot", event.text);
        draft.dataset.attempt = event.attempt;
      } else draft.textContent += event.text;
      follow();
    },
    answered: () => {
      if (draft?.dataset.attempt === String(event.attempt)) {
        if (event.text) draft.textContent = event.text;
        draft.classList.toggle("cut", event.cut);
      }
    },
    stop: () => document.querySelector(".said .unsure")?.remove(),
    turn: () => {
      turns = [...turns.filter(({ turn }) => turn !== event.turn), event]; // one that was cut short is told again
      drawTurn(event);
      $("export-csv").disabled = $("export-json").disabled = false;
    },
    table: () => drawTable(event, turns.at(-1)),
    error: () => problem(event.message),
  }[event.type];
  act?.();
}

function mindOf(name) {
  return name === "scripted host" ? "a scripted host answers, no language model" : `${name} answers`;
}

function write(who, text, kind = "") {
  const list = $("transcript");
  list.querySelector(".nothing")?.remove();
  list.querySelector(".unsure")?.remove();
  if (who === "you" && !text) return null;
  const item = document.createElement("li");
  item.className = `${who} ${kind}`.trim();
  item.textContent = text;
  list.append(item);
  follow();
  return item;
}

function follow() {
  $("transcript").scrollTop = $("transcript").scrollHeight;
}

function say(words) {
  if ($("state").textContent !== words) $("state").textContent = words;
}

function problem(words) {
  $("problem").textContent = words;
  $("problem").hidden = !words;
}

/** Every turn's budget, as a file. */
function save(format) {
  const rows = turns.map(({ type, ...row }) => row);
  const names = Object.keys(rows[0]);
  const lines = [names, ...rows.map((row) => names.map((name) => row[name] ?? ""))].map((line) => line.join(","));
  const text = format === "csv" ? `${lines.join("\n")}\n` : JSON.stringify(rows, null, 2);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: format === "csv" ? "text/csv" : "application/json" }));
  link.download = `carillon-talk.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser reads it after the click
}

function meterLoop(mine) {
  if (call !== mine) return;
  $("call").style.setProperty("--level", mine.level().toFixed(2));
  requestAnimationFrame(() => meterLoop(mine));
}

async function listVoices() {
  const key = $("key").value.trim();
  try {
    const response = await fetch("/v1/audio/voices", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
    if (response.status === 401) $("key-field").hidden = false;
    const { voices } = await response.json();
    const chosen = $("voice").value;
    $("voice").replaceChildren(...voices.map(({ name }) => new Option(name, name, false, name === chosen)));
  } catch {
    // The list is a convenience: without it the fleet chooses.
  }
}

/** Where the console is switched off, its pages are not offered. */
async function dropLinks() {
  const response = await fetch("/console/session").catch(() => null);
  if (response?.status === 404) for (const link of document.querySelectorAll("#pages a:not([aria-current])")) link.remove();
}
