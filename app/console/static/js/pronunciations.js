// Words that are said otherwise than they are written: a dictionary of the API, of a voice or of a key.

import { api } from "./api.js";
import { button, field, h, problem, toast } from "./dom.js";
import { sayButton } from "./say-button.js";

/** `voice()` gives `{voice, model}` to try a word with. */
export async function pronunciationsPart({ path, title, help, voice, signal }) {
  let { words } = await api("GET", path, { signal });
  const list = h("ul", { class: "plain-list words" });
  const fault = h("div", { "aria-live": "polite" });
  const written = h("input", { type: "text", maxlength: 100, required: true, autocomplete: "off", placeholder: "Nguyen" });
  const said = h("input", { type: "text", maxlength: 200, required: true, autocomplete: "off", placeholder: "win" });

  async function keep(changed, told) {
    try {
      ({ words } = await api("PUT", path, { json: { words: changed }, signal }));
      fault.replaceChildren();
      draw();
      toast(told);
      return true;
    } catch (error) {
      if (!signal.aborted) fault.replaceChildren(problem(error));
      return false;
    }
  }

  function draw() {
    list.replaceChildren(...Object.entries(words).sort(([a], [b]) => a.localeCompare(b)).map(([word, as]) => h("li", { class: "row" },
      sayButton({ label: `Say ${word}`, signal, what: () => ({ text: word, ...voice() }) }),
      h("strong", {}, word), h("span", { class: "muted" }, "is said"), h("span", { class: "grow" }, as),
      button("", { icon: "trash", kind: "round quiet", label: `Forget ${word}`, onclick: () => {
        const { [word]: _, ...rest } = words;
        keep(rest, `${word} is said as it is written again.`);
      } }))));
    list.hidden = !Object.keys(words).length;
  }

  const form = h("form", { class: "row end", async onsubmit(event) {
    event.preventDefault();
    const [word, as] = [written.value.trim(), said.value.trim()];
    if (!(await keep({ ...words, [word]: as }, `${word} is said ${as} from now on.`))) return;
    written.value = said.value = "";
    written.focus();
  } },
    h("div", { class: "grow" }, field("As it is written", written)),
    h("div", { class: "grow" }, field("As it is said", said)),
    sayButton({ label: "Hear it", signal, what: () => ({ text: said.value.trim() || written.value.trim() || "Nothing to say.", ...voice() }) }),
    button("Keep it", { icon: "plus", type: "submit" }));
  draw();
  return h("section", { class: "card stack", "aria-label": title, id: "pronunciations" },
    h("header", { class: "stack tight" }, h("h2", {}, title), h("p", { class: "muted" }, help)), list, form, fault);
}
