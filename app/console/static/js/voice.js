// One voice, from its first recording to its last version.

import { api, follow } from "./api.js";
import { button, clock, confirmed, field, h, problem, toast, when } from "./dom.js";
import { comparison } from "./comparison.js";
import { consentPart } from "./consent.js";
import { dataReport } from "./data-report.js";
import { pronunciationsPart } from "./pronunciations.js";
import { recordingsPart } from "./recordings.js";
import { gateTable, trainingView } from "./training.js";

export async function show(main, context) {
  const page = new VoicePage(main, context);
  await page.load();
}

class VoicePage {
  constructor(main, { params, signal, go, may }) {
    Object.assign(this, { main, signal, go, may, id: params.id });
    this.head = h("header", { class: "stack tight" });
    this.steps = h("ol", { class: "steps", "aria-label": "Steps to a voice" });
    this.job = h("section", { class: "card stack", "aria-label": "Making the voice", id: "making" });
    this.report = h("div");
    this.listen = h("div");
    this.words = h("div");
    this.versions = h("section", { class: "card stack", "aria-label": "Versions" });
  }

  async load() {
    const [voice, { data: samples }, { data: jobs }] = await Promise.all([
      api("GET", `/v1/voices/${this.id}`, { signal: this.signal }),
      api("GET", `/v1/voices/${this.id}/samples`, { signal: this.signal }),
      api("GET", `/v1/clones?voice=${encodeURIComponent(this.id)}&limit=20`, { signal: this.signal }),
    ]);
    Object.assign(this, { voice, samples, jobs });
    const changed = () => this.refresh();
    this.recordings = recordingsPart({ voice, samples, signal: this.signal, changed, told: (list) => ((this.samples = list), this.draw()) });
    this.consent = consentPart({ voice, signal: this.signal, changed, may: this.may });
    const making = [this.listen, this.job, this.report];
    const giving = [this.recordings, this.consent];
    const begun = voice.version || jobs.length;
    this.main.append(this.head, this.steps, ...(begun ? [...making, ...giving] : [...giving, ...making]), this.words, this.versions);
    if (jobs.length) await this.watch(jobs[0]);
    this.draw();
  }

  /** The voice as it is now; the parts that people type into stay. */
  async refresh() {
    try {
      this.voice = await api("GET", `/v1/voices/${this.id}`, { signal: this.signal });
      this.draw();
    } catch (error) {
      if (!this.signal.aborted) toast(error.message, "bad");
    }
  }

  draw() {
    const { voice } = this;
    this.head.replaceChildren(
      h("a", { href: "/voices", class: "small" }, "Voices"),
      h("div", { class: "row apart" },
        h("h1", {}, voice.name),
        voice.version ? h("a", { class: "button primary", href: `/?voice=${encodeURIComponent(voice.name)}`, "data-external": true }, "Speak with it") : null),
      voice.description && h("p", { class: "muted" }, voice.description));
    const done = [this.samples.length > 0, Boolean(voice.consent), Boolean(voice.version)];
    const words = ["Recordings", "Consent", "Make and listen"];
    const next = done.indexOf(false);
    this.steps.replaceChildren(...words.map((word, i) => h("li", {
      class: done[i] ? "done" : i === next ? "next" : "", "aria-current": i === next ? "step" : null,
    }, word)));
    this.drawJob();
    this.drawVersions();
    if (voice.version && !this.listen.firstChild) this.listen.append(comparison({ voice, samples: this.samples, signal: this.signal }));
    if (!voice.version) this.listen.replaceChildren();
    this.drawWords();
  }

  /** Only a voice that speaks has a dictionary. */
  async drawWords() {
    const { voice, signal } = this;
    if (!voice.version || this.worded) return;
    this.worded = true;
    try {
      this.words.replaceChildren(await pronunciationsPart({
        path: `/v1/voices/${this.id}/pronunciations`, title: "Pronunciations", signal,
        help: "Words that this voice says otherwise than they are written, for everybody who speaks with it.",
        voice: () => ({ voice: voice.name, model: voice.model }),
      }));
    } catch (error) {
      this.worded = false;
      if (!signal.aborted) this.words.replaceChildren(problem(error));
    }
  }

  drawJob() {
    const { current } = this;
    if (current && !current.over) {
      if (!this.view) this.view = trainingView({ id: current.id, cancel: () => this.cancel() });
      this.view.show(current);
      if (this.job.firstChild !== this.view.element) this.job.replaceChildren(this.view.element);
      return;
    }
    this.view = null;
    const missing = !this.samples.length ? "Add recordings first: ten minutes at least, thirty are better."
      : !this.voice.consent ? "The speaker's consent is missing: it is recorded below." : null;
    const epochs = h("select", {}, [5, 4, 3, 2, 1].map((count) => h("option", { value: count }, count === 5 ? "5 at most (as recommended)" : `${count} at most`)));
    const fault = h("div");
    const start = button(this.voice.version ? "Make another version" : "Make the voice", {
      kind: "primary", id: "make", disabled: Boolean(missing),
      onclick: async () => {
        start.disabled = true;
        const overrides = epochs.value === "5" ? {} : { train: { epochs: Number(epochs.value) } };
        try {
          this.watch(await api("POST", "/v1/clones", { json: { voice: this.id, overrides } }));
          this.draw();
        } catch (error) {
          start.disabled = false;
          fault.replaceChildren(problem(error));
        }
      },
    });
    this.job.replaceChildren(
      h("h2", {}, "Make"),
      ...(current ? [this.#ended(current)] : []),
      missing ? h("p", { class: "muted" }, missing)
        : h("p", { class: "muted" }, `${clock(this.samples.reduce((sum, sample) => sum + sample.facts.duration_s, 0))} of recordings are prepared, trained on, and spoken with before anything is published. It can be stopped at any time.`),
      h("div", { class: "row end" }, field("Epochs", epochs), start),
      fault);
  }

  #ended(job) {
    const words = {
      completed: h("p", { class: "notice good" }, `Version ${job.version} passed the gate and is in force, since ${when(job.finished_at)}.`),
      cancelled: h("p", { class: "notice" }, "The last run was cancelled. Nothing of it was kept."),
      failed: problem({ message: job.error?.message ?? "The last run failed." }),
    };
    return h("div", { class: "stack" }, words[job.state], job.gate && gateTable(job.gate));
  }

  async watch(job) {
    this.current = job;
    const told = (news) => {
      const over = news.over && !this.current.over;
      this.current = { ...this.current, ...news };
      this.drawReport();
      this.drawJob();
      if (over) {
        this.refresh();
        toast(news.state === "completed" ? `${this.voice.name} has a new version.` : `Making ${this.voice.name}: ${news.state}.`);
      }
    };
    if (job.over) told(await api("GET", `/v1/clones/${job.id}`, { signal: this.signal }));
    else follow(`/v1/clones/${job.id}/events`, told, { signal: this.signal }).catch((error) => toast(error.message, "bad"));
  }

  async cancel() {
    if (!(await confirmed("Stop making this voice?", "What was trained so far is lost. The recordings stay.", "Stop it"))) return;
    await api("POST", `/v1/clones/${this.current.id}/cancel`, {}).catch((error) => toast(error.message, "bad"));
  }

  drawReport() {
    const { report } = this.current;
    if (!report || this.shownReport === JSON.stringify(report)) return;
    this.shownReport = JSON.stringify(report);
    this.report.replaceChildren(dataReport({ report, samples: this.samples, voiceId: this.id, signal: this.signal }));
  }

  drawVersions() {
    const { voice } = this;
    this.versions.replaceChildren(
      h("h2", {}, "Versions"),
      voice.versions.length
        ? h("ul", { class: "plain-list" }, [...voice.versions].reverse().map((version) => h("li", { class: "row" },
            h("span", { class: "grow" }, `Version ${version}`),
            version === voice.version ? h("span", { class: "chip good" }, "in force")
              : button("Put in force", { kind: "small", onclick: () => this.rollBack(version) }))))
        : h("p", { class: "muted" }, "None yet. A version appears when the gate is passed; earlier ones are kept, to go back to."),
      h("hr"),
      h("div", { class: "row apart" },
        h("p", { class: "muted small grow" }, "Deleting withdraws the consent: recordings, consent, versions and every worker's copy go."),
        button("Delete this voice", { icon: "trash", kind: "danger small", id: "delete-voice", onclick: () => this.remove() })));
  }

  async rollBack(version) {
    try {
      this.voice = await api("POST", `/v1/voices/${this.id}/rollback`, { json: { version } });
      toast(`Version ${version} is in force. New sessions speak with it.`);
      this.draw();
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  async remove() {
    const text = "Its recordings, its consent and every version are removed everywhere. This cannot be undone.";
    if (!(await confirmed(`Delete ${this.voice.name}?`, text, "Delete it"))) return;
    try {
      await api("DELETE", `/v1/voices/${this.id}`);
      toast(`${this.voice.name} is deleted.`);
      this.go("/voices");
    } catch (error) {
      toast(error.message, "bad");
    }
  }
}
