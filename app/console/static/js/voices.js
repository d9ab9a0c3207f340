// Voices: those made here, those that came with the model, and how to make one.

import { api } from "./api.js";
import { button, clock, empty, field, h, plural, problem, when } from "./dom.js";
import { pronunciationsPart } from "./pronunciations.js";

const SHOWN = 60;
const SEARCHED = 9;

export async function show(main, { signal, may, go }) {
  if (!may("clone")) {
    main.append(h("h1", {}, "Voices"), empty("voices", "This key makes no voices", "Sign in with a key of the scope clone to make and manage voices. Speaking goes on without it."));
    return;
  }
  const [made, { voices }] = await Promise.all([
    allMade(signal),
    api("GET", "/v1/audio/voices", { signal }),
  ]);
  const create = () => newVoice(go);
  const builtIn = voices.filter((voice) => voice.kind === "built_in");
  main.append(
    h("header", { class: "row apart" }, h("h1", {}, "Voices"), button("New voice", { icon: "plus", kind: "primary", id: "new-voice", onclick: create })),
    made.length
      ? yours(made)
      : h("section", { class: "card" }, empty("voices", "Make your first voice",
          "Ten to thirty minutes of one person's speech become a voice. You need their recordings, or a microphone and some time, and their spoken consent.",
          button("New voice", { icon: "plus", kind: "primary", onclick: create }))),
    h("section", { class: "card" },
      h("h2", {}, "Built in"),
      builtIn.length
        ? h("ul", { class: "plain-list" }, builtIn.map((voice) => h("li", { class: "row" },
            h("strong", { class: "grow" }, voice.name),
            h("span", { class: "muted small" }, `${voice.model} · ${voice.language}`),
            h("a", { class: "button small", href: `/?voice=${encodeURIComponent(voice.name)}`, "data-external": true }, "Speak"))))
        : h("p", { class: "muted" }, "No worker is ready, so no model says which voices it has. The fleet page shows how far the workers are.")),
    may("speak") && builtIn.length ? await pronunciationsPart({
      path: "/v1/pronunciations", title: "Pronunciations", signal,
      help: "Words that are said otherwise than they are written, in all that your key has spoken, by any voice.",
      voice: () => ({ voice: builtIn[0].name, model: builtIn[0].model }),
    }) : "",
  );
}

async function allMade(signal) {
  const made = [];
  for (let after = ""; ;) {
    const page = await api("GET", `/v1/voices${after && `?after=${after}`}`, { signal });
    made.push(...page.data);
    if (!page.has_more) return made;
    after = page.data.at(-1).id;
  }
}

/** The cards of all, or of those that a search finds where there are many. */
function yours(made) {
  const cards = h("div", { class: "cards" });
  const more = h("p", { class: "muted small", role: "status" });
  const search = h("input", { type: "search", placeholder: "Search your voices", "aria-label": "Search your voices", oninput: draw });

  function draw() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = made.filter((voice) => words.every((word) => `${voice.name} ${voice.description} ${voice.language}`.toLowerCase().includes(word)));
    cards.replaceChildren(...found.slice(0, SHOWN).map(card));
    more.textContent = found.length > SHOWN ? `${plural(found.length - SHOWN, "more voice")}: search for one by its name.` : found.length ? "" : "No voice is named like this.";
  }
  draw();
  return h("section", { class: "stack", "aria-label": "Your voices" }, made.length > SEARCHED && search, cards, more);
}

const STATES = { empty: ["no recordings yet", ""], collecting: ["in the making", "glow"], ready: ["ready to speak", "good"] };

function card(voice) {
  const [words, kind] = STATES[voice.state];
  return h("a", { class: "card voice-card", href: `/voices/${voice.id}` },
    h("header", { class: "row apart" }, h("h2", {}, voice.name), h("span", { class: `chip ${kind}` }, words)),
    h("p", { class: "muted" }, voice.description || `${plural(voice.sample_count, "recording")}, ${clock(voice.sample_s)} of speech`),
    h("p", { class: "small muted" }, voice.version ? `Version ${voice.version} · ` : "", `${voice.language} · made ${when(voice.created_at)}`));
}

function newVoice(go) {
  const name = h("input", { type: "text", required: true, maxlength: 100, autocomplete: "off" });
  const language = h("input", { type: "text", value: "en", required: true, maxlength: 35 });
  const description = h("input", { type: "text", maxlength: 2000 });
  const fault = h("div");
  const dialog = h(
    "dialog",
    { "aria-labelledby": "new-voice-title", onclose: () => dialog.remove() },
    h("form",
      {
        async onsubmit(event) {
          event.preventDefault();
          try {
            const voice = await api("POST", "/v1/voices", { json: { name: name.value.trim(), language: language.value.trim(), description: description.value } });
            dialog.close();
            go(`/voices/${voice.id}`);
          } catch (error) {
            fault.replaceChildren(problem(error));
          }
        },
      },
      h("h2", { id: "new-voice-title" }, "New voice"),
      field("Name", name, "As it is asked for when it speaks."),
      field("Language", language, "A BCP 47 tag, such as en or en-GB."),
      field("Description", description, "For you: whose voice it is, how it sounds."),
      fault,
      h("div", { class: "row" },
        button("Make it", { kind: "primary", type: "submit" }),
        button("Cancel", { kind: "quiet", onclick: () => dialog.close() }))),
  );
  document.body.append(dialog);
  dialog.showModal();
}
