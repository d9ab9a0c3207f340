// The names of a book, to hear before it is read, and how each shall be said.

import { button, h, plural } from "./dom.js";
import { sayButton } from "./say-button.js";

const SHOWN = 8;

/** The element has `replacements`: what is to be said otherwise. `voice()` gives `{voice, model}` to hear a name with. */
export function namesPart({ names, voice, signal }) {
  const rows = [];
  const list = h("ul", { class: "plain-list words" });

  function row(name) {
    const said = h("input", { type: "text", maxlength: 200, autocomplete: "off", placeholder: "as it is written", "aria-label": `${name.word} is said` });
    const element = h("li", { class: "name-row" },
      sayButton({ label: `Hear ${name.word}`, signal, what: () => ({ text: said.value.trim() || name.word, ...voice() }) }),
      h("span", {}, h("strong", {}, name.word), h("span", { class: "muted small" }, ` ${plural(name.count, "time")}`)),
      said);
    rows.push({ word: name.word, said });
    return element;
  }

  function more() {
    const written = h("input", { type: "text", maxlength: 100, autocomplete: "off", placeholder: "another word", "aria-label": "Another word, as it is written" });
    const said = h("input", { type: "text", maxlength: 200, autocomplete: "off", placeholder: "as it is said", "aria-label": "How that word is said" });
    rows.push({ get word() { return written.value.trim(); }, said });
    list.append(h("li", { class: "name-row" },
      sayButton({ label: "Hear that word", signal, what: () => ({ text: said.value.trim() || written.value.trim() || "Nothing to say.", ...voice() }) }),
      written, said));
    return written;
  }

  list.append(...names.slice(0, SHOWN).map(row));
  const rest = names.slice(SHOWN);
  const all = rest.length ? button(`Show ${rest.length} more`, { kind: "small quiet", onclick: () => (list.append(...rest.map(row)), all.remove()) }) : null;
  const element = h("section", { class: "card stack", "aria-label": "Words", id: "words" },
    h("header", { class: "stack tight" }, h("h2", {}, "Words"),
      h("p", { class: "muted" }, names.length ? "Names that were found in the text. Hear how they are said, and spell those that are wrong as they sound."
        : "Words that are said otherwise than they are written, whole and in any case: spell them as they sound.")),
    list,
    h("div", { class: "row" }, all, button("Another word", { icon: "plus", kind: "small", onclick: () => more().focus() })));
  Object.defineProperty(element, "replacements", {
    get: () => Object.fromEntries(rows.map(({ word, said }) => [word, said.value.trim()]).filter(([word, said]) => word && said)),
  });
  if (!names.length) more();
  return element;
}
