// Speech over the native protocol: `WS /v1/sessions`. Text goes in as it is written, audio and its words come out.

const HEADER_BYTES = 20;
const RESUMES = 9;
const MAX_PAUSE_MS = 5000;

/**
 * One session on a socket of its own. `on` has what is to be told, all optional:
 * ready(message), audio(Int16Array, offset), segment(message), waiting(reason), done(message), resumed(message),
 * failed(Error), lost(attempt): the connection broke and is taken up again.
 */
export class Session {
  constructor({ voice, model = null, on = {}, ...options }) {
    this.on = on;
    this.start = { type: "start", session: "s", voice, model, resumable: true, ...options };
    this.token = null;
    this.received = 0;
    this.text = "";
    this.base = 0;
    this.ended = false;
    this.over = false;
    this.attempts = 0;
    this.marks = {};
    this.#connect();
  }

  /** More text. */
  write(text) {
    this.marks.text ??= performance.now();
    this.text += text;
    this.#send({ type: "text", text });
  }

  /** No more text. */
  end() {
    this.ended = true;
    this.#send({ type: "eos" });
  }

  /** Stop speaking. `played` are the samples that were heard. */
  cancel(played) {
    this.#send({ type: "cancel", played_samples: played });
    this.end();
  }

  close() {
    this.over = true;
    this.socket.close();
  }

  #connect() {
    const url = new URL("/v1/sessions", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this.socket = new WebSocket(url, ["carillon.v1"]));
    socket.binaryType = "arraybuffer";
    this.marks.connect ??= performance.now();
    this.outbox = this.token
      ? [{ type: "resume", token: this.token, received_samples: this.received }]
      : [this.start, ...(this.text ? [{ type: "text", text: this.text }] : []), ...(this.ended ? [{ type: "eos" }] : [])];
    socket.onopen = () => this.#drain();
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.#told(JSON.parse(data)) : this.#heard(data));
    socket.onclose = () => this.#closed(socket);
  }

  #send(message) {
    if (this.over) return;
    this.outbox.push(message);
    this.#drain();
  }

  #drain() {
    if (this.socket.readyState !== WebSocket.OPEN || this.resuming) return;
    for (const message of this.outbox.splice(0)) {
      this.socket.send(JSON.stringify({ ...message, session: "s" }));
      if (message.type === "resume") {
        this.resuming = true;
        return;
      }
    }
  }

  #told(message) {
    switch (message.type) {
      case "ready":
        this.marks.ready ??= performance.now();
        this.token = message.resume_token;
        this.rateHz = message.sample_rate_hz;
        this.on.ready?.(message);
        break;
      case "resumed":
        this.#resumed(message);
        break;
      case "segment":
        this.on.segment?.(message);
        break;
      case "waiting":
        this.on.waiting?.(message.reason);
        break;
      case "cancelled":
        this.text = "";
        break;
      case "done":
        this.marks.done = performance.now();
        this.close();
        this.on.done?.(message);
        break;
      case "error":
        if (message.closed || message.session === null) this.#failed(new Error(message.message));
        break;
      case "goaway":
        this.socket.close();
        break;
    }
  }

  /** What the server has not: the rest of the text. It counts code points, strings here count halves of them. */
  #resumed(message) {
    this.resuming = false;
    this.attempts = 0;
    this.received = message.sample_offset;
    const rest = Array.from(this.text).slice(message.text_chars).join("");
    this.outbox = [...(rest ? [{ type: "text", text: rest }] : []), ...(this.ended && !message.ended ? [{ type: "eos" }] : [])];
    this.on.resumed?.(message);
    this.#drain();
  }

  #heard(data) {
    this.marks.audio ??= performance.now();
    const offset = Number(new DataView(data).getBigUint64(12, true));
    const samples = new Int16Array(data.slice(HEADER_BYTES));
    this.received = offset + samples.length;
    this.on.audio?.(samples, offset);
  }

  async #closed(socket) {
    if (this.over || socket !== this.socket) return;
    this.resuming = false;
    this.attempts += 1;
    if (this.attempts > RESUMES) {
      this.#failed(new Error("The connection to the front door broke, and it does not answer. Is it still running? Speak again once it is."));
      return;
    }
    this.on.lost?.(this.attempts);
    await new Promise((resolve) => setTimeout(resolve, Math.min(MAX_PAUSE_MS, 250 * 2 ** (this.attempts - 1))));
    if (!this.over) this.#connect();
  }

  #failed(error) {
    this.close();
    this.on.failed?.(error);
  }
}
