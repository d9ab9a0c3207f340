// The speaker's consent: the phrase with the number that was issued for this voice, read aloud.

import { api, upload } from "./api.js";
import { button, clock, field, h, problem, when } from "./dom.js";
import { Recorder, advice } from "./recorder.js";

export function consentPart({ voice, signal, changed, may }) {
  const body = h("div", { class: "stack" });
  const part = h("section", { class: "card stack", "aria-label": "Consent", id: "consent" }, h("h2", {}, "Consent"), body);

  function given(consent) {
    const how = consent.kind === "operator" ? `An operator's word: ${consent.statement}`
      : consent.checked ? "Recorded; the phrase and its number were heard in it." : "Recorded. Nobody has heard whether it is the phrase: its language has no recogniser here.";
    body.replaceChildren(h("p", { class: "notice good" }, h("strong", {}, "The speaker has consented"), `${how} ${when(consent.created_at)}.`));
  }

  function asked() {
    const verdict = h("div", { "aria-live": "polite" });
    const chooser = h("input", { type: "file", accept: "audio/*", id: "consent-file", class: "sr-only", onchange: () => (send(chooser.files[0]), (chooser.value = "")) });
    let recorder = null;
    const level = h("span");
    const time = h("span", { class: "muted small number", id: "consent-time" });
    const meter = h("div", { class: "row", hidden: true }, h("span", { class: "bar level grow", "aria-hidden": "true" }, level), time);
    const record = button("Record it", { icon: "mic", kind: "primary", id: "record-consent", onclick: toggle });
    signal.addEventListener("abort", () => recorder?.close());

    async function toggle() {
      if (recorder?.take) {
        const take = recorder.end();
        recorder.close();
        recorder = null;
        meter.hidden = true;
        record.lastChild.textContent = "Record it again";
        const wrong = advice(take.peak);
        if (wrong) verdict.replaceChildren(h("p", { class: "notice bad" }, wrong));
        else send(new File([take.blob], "consent.wav", { type: "audio/wav" }));
        return;
      }
      try {
        recorder = await Recorder.open((peak, seconds) => {
          level.style.width = `${Math.min(100, 100 * Math.sqrt(peak))}%`;
          time.textContent = clock(seconds);
        });
        recorder.begin();
        meter.hidden = false;
        record.lastChild.textContent = "Stop and send";
        verdict.replaceChildren(h("p", { class: "muted" }, "Recording. Read the phrase as it stands, with its number."));
      } catch (error) {
        verdict.replaceChildren(problem(error));
      }
    }

    async function send(file) {
      const form = new FormData();
      form.append("recording", file);
      verdict.replaceChildren(h("p", { class: "muted" }, "It is heard …"));
      try {
        given(await upload(`/v1/voices/${voice.id}/consent`, form, { signal }));
        changed();
      } catch (error) {
        verdict.replaceChildren(problem(error));
      }
    }

    const statement = h("input", { type: "text", placeholder: "Signed form of 3 May, in the safe; Mary Smith" });
    const operator = h("details", {}, h("summary", {}, "It is kept elsewhere"),
      h("div", { class: "row end" }, h("div", { class: "grow" }, field("Where, and whose it is", statement, "Your word is logged with your key.")),
        button("Confirm it", { onclick: async () => {
          try {
            given(await api("POST", `/v1/voices/${voice.id}/consent`, { json: { statement: statement.value } }));
            changed();
          } catch (error) {
            verdict.replaceChildren(problem(error));
          }
        } })));
    body.replaceChildren(
      h("p", { class: "muted" }, "The speaker reads this aloud. The number was issued for this voice alone, so no other recording can stand in for it."),
      h("blockquote", { class: "prompt" }, voice.consent_phrase),
      h("div", { class: "row" }, record, h("label", { class: "button", for: "consent-file" }, "Upload a recording of it"), chooser),
      meter,
      verdict,
      ...(may("admin") ? [operator] : []));
  }

  if (voice.consent) given(voice.consent);
  else asked();
  return part;
}
