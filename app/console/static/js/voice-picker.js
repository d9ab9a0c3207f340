// Choosing one of many voices: a box to search in, with a list below it (the ARIA combobox pattern).

import { h, icon, plural } from "./dom.js";

const SHOWN = 60;
let pickers = 0;

/**
 * `voices` are those of `/v1/audio/voices`. The element has `value` (a name) and tells `onchange(voice)`. With `none`, the
 * words for it, there may be no voice at all.
 */
export function voicePicker({ voices, value, onchange, label = "Voice", none }) {
  if (none) voices = [{ name: none, kind: "none", language: "", model: "", none }, ...voices];
  const id = `voices-${++pickers}`;
  const input = h("input", {
    type: "text", id, role: "combobox", autocomplete: "off", spellcheck: "false",
    "aria-expanded": "false", "aria-controls": `${id}-list`, "aria-autocomplete": "list",
  });
  const list = h("ul", { id: `${id}-list`, role: "listbox", "aria-label": label, class: "picker-list", hidden: true });
  const more = h("div", { class: "picker-more", "aria-live": "polite", hidden: true });
  const box = h(
    "div",
    { class: "field picker" },
    h("label", { for: id }, label),
    h("div", { class: "picker-box" }, input, icon("chevron"), h("div", { class: "picker-drop" }, list, more)),
  );
  let current = voices.find((voice) => voice.name === value) ?? voices[0] ?? null;
  let found = [];
  let active = -1;

  function choose(voice) {
    current = voice;
    box.value = voice?.none ? null : (voice?.name ?? null);
    input.value = voice?.name ?? "";
    close();
    onchange?.(voice);
  }

  function open(query) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (voice) => `${voice.name} ${voice.kind.replace("_", "-")} ${voice.language} ${voice.model}`.toLowerCase();
    found = voices.filter((voice) => words.every((word) => text(voice).includes(word)));
    list.replaceChildren(...found.slice(0, SHOWN).map(option));
    const hidden = found.length - SHOWN;
    more.textContent = found.length ? `${plural(hidden, "more voice")}: type to find one` : "No voice is named like this";
    more.hidden = hidden <= 0 && found.length > 0;
    list.hidden = !found.length;
    box.classList.add("open");
    input.setAttribute("aria-expanded", "true");
    mark(Math.max(0, found.indexOf(current)));
  }

  function option(voice, index) {
    return h(
      "li",
      { role: "option", id: `${id}-${index}`, "aria-selected": voice === current ? "true" : "false",
        onmousedown: (event) => event.preventDefault(), onclick: () => choose(voice) },
      h("span", { class: "grow" }, voice.name),
      !voice.none && h("span", { class: `chip ${voice.kind === "clone" ? "glow" : ""}` }, voice.kind === "clone" ? "cloned" : "built in"),
      h("span", { class: "muted small" }, voice.language),
    );
  }

  function mark(index) {
    list.children[active]?.classList.remove("active");
    active = Math.min(index, list.children.length - 1);
    const element = list.children[active];
    element?.classList.add("active");
    element?.scrollIntoView({ block: "nearest" });
    if (element) input.setAttribute("aria-activedescendant", element.id);
    else input.removeAttribute("aria-activedescendant");
  }

  function close() {
    box.classList.remove("open");
    list.hidden = more.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  const isOpen = () => input.getAttribute("aria-expanded") === "true";
  input.addEventListener("focus", () => input.select());
  input.addEventListener("click", () => isOpen() || open(""));
  input.addEventListener("input", () => open(input.value));
  input.addEventListener("blur", () => {
    close();
    input.value = current?.name ?? "";
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!isOpen()) open("");
      else mark(Math.max(0, active + (event.key === "ArrowDown" ? 1 : -1)));
    } else if (event.key === "Enter" && isOpen()) {
      event.preventDefault();
      if (found[active]) choose(found[active]);
    } else if (event.key === "Escape" && isOpen()) {
      event.preventDefault();
      input.value = current?.name ?? "";
      close();
    }
  });
  input.value = current?.name ?? "";
  box.value = current?.none ? null : (current?.name ?? null);
  return box;
}
