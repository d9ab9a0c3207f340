// The form for a key, where no link has signed the browser in.

import { button, field, h, problem } from "./dom.js";

export function signInForm({ used, done }) {
  const key = h("input", { type: "password", name: "key", autocomplete: "off", spellcheck: "false", placeholder: "cari_…", required: true });
  const fault = h("div", { "aria-live": "assertive" });
  const submit = button("Sign in", { kind: "primary", type: "submit" });
  const form = h(
    "form",
    {
      class: "stack",
      async onsubmit(event) {
        event.preventDefault();
        submit.disabled = true;
        fault.replaceChildren();
        try {
          const answer = await fetch("/console/session", {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify({ key: key.value }),
          });
          if (!answer.ok) throw new Error((await answer.json()).error.message);
          key.value = "";
          done();
        } catch (error) {
          fault.replaceChildren(problem(error));
          key.focus();
        } finally {
          submit.disabled = false;
        }
      },
    },
    field("API key", key, "It goes to the front door once, and stays there: this page keeps no key."),
    submit,
    fault,
  );
  return h(
    "section",
    { class: "sign-in card stack" },
    h("h1", {}, "Sign in"),
    used && h("p", { class: "notice" }, "This link has been used or is older than 15 minutes. ", h("code", {}, "carillon console"), " prints another."),
    h("p", { class: "muted" },
      "Where the fleet runs, ", h("code", {}, "carillon console"), " prints a link that signs this browser in. Elsewhere, paste a key: ",
      h("code", {}, "carillon keys create NAME"), " makes one."),
    form,
  );
}
