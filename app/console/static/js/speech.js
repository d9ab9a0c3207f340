// One utterance: a session, its sound, its words and its times, together. What a page does with it is the page's.

import { PcmPlayer, joined } from "./player.js";
import { Session } from "./sessions.js";

/** Louder than this is a sound: −50 dBFS, as the server's meter of head silence has it. */
const SOUND = 104;

export class Utterance {
  /**
   * `tell(event, detail)` with: ready, audio, segment, played, waiting, lost, resumed, done, failed, finished (heard to
   * the end, or cancelled).
   */
  constructor({ voice, model, tell, ...options }) {
    this.tell = tell;
    this.chunks = [];
    this.samples = 0;
    this.segments = [];
    this.silence = null;
    this.ledger = null;
    this.cancelled = false;
    this.began = performance.now();
    this.player = new PcmPlayer({ onplayed: (played) => tell("played", played), onfinished: () => this.#finished() });
    this.session = new Session({
      voice,
      model,
      ...options,
      on: {
        ready: (message) => tell("ready", message),
        audio: (samples, offset) => this.#audio(samples, offset),
        segment: (segment) => (this.segments.push(segment), tell("segment", segment)),
        waiting: (reason) => tell("waiting", reason),
        lost: (attempt) => tell("lost", attempt),
        resumed: () => tell("resumed"),
        done: (message) => this.#done(message),
        failed: (error) => this.#failed(error),
      },
    });
  }

  get marks() {
    return this.session.marks;
  }

  /** Milliseconds from the first text to the first audio here, or until now. */
  get waited() {
    return (this.marks.audio ?? performance.now()) - (this.marks.text ?? this.began);
  }

  get pcm() {
    return joined(this.chunks);
  }

  write(text) {
    this.session.write(text);
  }

  end() {
    this.session.end();
  }

  /** Barge in: silence now, and what was not heard is not kept. */
  cancel() {
    if (this.cancelled || this.over) return;
    this.cancelled = true;
    const heard = this.player.played;
    this.player.clear();
    this.session.cancel(heard);
    this.chunks = [this.pcm.subarray(0, heard)];
    this.samples = heard;
    this.#finished();
  }

  close() {
    this.over = true;
    this.session.close();
    this.player.clear();
    this.player.close();
  }

  #audio(samples, offset) {
    if (this.cancelled) return;
    // After a broken connection a little may come twice.
    const known = this.samples - offset;
    if (known >= samples.length) return;
    const fresh = known > 0 ? samples.subarray(known) : samples;
    this.#listen(fresh);
    this.chunks.push(fresh);
    this.samples += fresh.length;
    this.player.push(fresh);
    this.tell("audio", fresh);
  }

  #listen(samples) {
    if (this.silence !== null) return;
    const at = samples.findIndex((sample) => Math.abs(sample) > SOUND);
    if (at >= 0) this.silence = (1000 * (this.samples + at)) / (this.session.rateHz ?? 24_000);
  }

  #done(message) {
    this.ledger = message.ledger;
    if (!this.cancelled) this.player.end();
    this.tell("done", message);
  }

  #failed(error) {
    this.player.end();
    this.tell("failed", error);
  }

  #finished() {
    if (this.over) return;
    this.over = true;
    this.tell("finished");
    this.player.close();
  }
}
