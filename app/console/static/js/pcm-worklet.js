// Plays mono samples in the order they are posted. It says how far it is, and counts what it had to wait for.

const REPORT_SAMPLES = 960;

class Pcm extends AudioWorkletProcessor {
  constructor() {
    super();
    this.clear();
    this.port.onmessage = ({ data }) => {
      if (data.samples) {
        this.chunks.push(data.samples);
        this.waitingSamples += data.samples.length;
      } else if (data.clear) this.clear();
      else if (data.end) this.ended = true;
    };
  }

  clear() {
    this.chunks = [];
    this.offset = 0;
    this.waitingSamples = 0;
    this.played = 0;
    this.reported = 0;
    this.gaps = 0;
    this.ended = false;
    this.flowing = false;
  }

  process(_, [[out]]) {
    // A tenth of a second in hand before it begins, and twice that after it ran dry.
    const wanted = sampleRate * (this.gaps ? 0.2 : 0.1);
    if (!this.flowing && this.waitingSamples && (this.ended || this.waitingSamples >= wanted)) this.flowing = true;
    if (!this.flowing) {
      if (this.ended && !this.waitingSamples) this.finish();
      return true;
    }
    let at = 0;
    while (at < out.length && this.chunks.length) {
      const chunk = this.chunks[0];
      const count = Math.min(out.length - at, chunk.length - this.offset);
      out.set(chunk.subarray(this.offset, this.offset + count), at);
      at += count;
      this.offset += count;
      if (this.offset === chunk.length) {
        this.chunks.shift();
        this.offset = 0;
      }
    }
    this.played += at;
    this.waitingSamples -= at;
    if (this.played - this.reported >= REPORT_SAMPLES || !this.waitingSamples) {
      this.reported = this.played;
      this.port.postMessage({ played: this.played, gaps: this.gaps });
    }
    if (!this.waitingSamples) {
      this.flowing = false;
      if (this.ended) this.finish();
      else this.gaps += 1;
    }
    return true;
  }

  finish() {
    this.ended = false;
    this.port.postMessage({ finished: true, played: this.played, gaps: this.gaps });
  }
}

registerProcessor("pcm", Pcm);
