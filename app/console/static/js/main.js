// The frame: who is signed in, and which page the address names.

import { api } from "./api.js";
import { button, h, problem, toast, waiting } from "./dom.js";
import { signInForm } from "./sign-in.js";
import "./theme.js";

const PAGES = [
  [/^\/$/, "speak", "Speak", () => import("./speak.js")],
  [/^\/voices$/, "voices", "Voices", () => import("./voices.js")],
  [/^\/voices\/(?<id>[^/]+)$/, "voices", "Voice", () => import("./voice.js")],
  [/^\/narrations$/, "narrations", "Narrations", () => import("./narrations.js")],
  [/^\/narrations\/new$/, "narrations", "New narration", () => import("./narration-new.js")],
  [/^\/narrations\/(?<id>[^/]+)$/, "narrations", "Narration", () => import("./narration.js")],
  [/^\/fleet$/, "fleet", "Fleet", () => import("./fleet.js")],
];

const main = document.querySelector("#main");
const signOut = document.querySelector("#sign-out");
let leaving = new AbortController();
let session = null;

/** Whether the key in use may do what `scope` says. */
function may(scope) {
  return session.scopes.includes(scope) || session.scopes.includes("admin");
}

/** Go to a page of the console. */
export function go(path) {
  history.pushState(null, "", path);
  show({ focus: true });
}

async function show({ focus = false } = {}) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const path = location.pathname.replace(/(.)\/$/, "$1");
  const [pattern, name, title, load] = PAGES.find(([pattern]) => pattern.test(path)) ?? PAGES[0];
  for (const link of document.querySelectorAll("[data-page]")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${title} · Carillon`;
  main.className = `page-${name}`;
  main.replaceChildren(waiting());
  try {
    session ??= await api("GET", "/console/session", { signal });
    if (session.state === "signed_out") return askToSignIn();
    signOut.hidden = session.state !== "signed_in";
    const page = await load();
    if (signal.aborted) return;
    main.replaceChildren();
    await page.show(main, { signal, may, go, params: pattern.exec(path)?.groups ?? {}, session });
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    if (error.status === 401) return;
    main.replaceChildren(h("h1", {}, title), problem(error, button("Try again", { kind: "small", icon: "again", onclick: () => show() })));
  }
  if (focus && !signal.aborted) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

function askToSignIn() {
  session = null;
  signOut.hidden = true;
  leaving.abort();
  const used = new URLSearchParams(location.search).get("link") === "used";
  if (used) history.replaceState(null, "", location.pathname);
  main.className = "page-sign-in";
  main.replaceChildren(signInForm({ used, done: () => show({ focus: true }) }));
}

addEventListener("signed-out", askToSignIn);

addEventListener("popstate", () => show());

addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  if (link.origin !== location.origin || link.hasAttribute("download") || link.hasAttribute("data-external")) return;
  if (!PAGES.some(([pattern]) => pattern.test(link.pathname))) return;
  event.preventDefault();
  go(link.pathname);
});

signOut.addEventListener("click", async () => {
  await api("DELETE", "/console/session").catch(() => null);
  askToSignIn();
  toast("Signed out.");
});

show();
