// Sound: PCM as it arrives, without gaps, through an AudioWorklet; and PCM as a WAV file.

export const RATE_HZ = 24_000;

let shared = null;

/** The page's one audio context, at the speech's own rate. Call it first from a click: browsers want that. */
function context(rateHz) {
  if (!shared || shared.rateHz !== rateHz) {
    shared?.audio.close();
    const audio = new AudioContext({ sampleRate: rateHz, latencyHint: "interactive" });
    shared = { audio, rateHz, ready: audio.audioWorklet.addModule("/console/static/js/pcm-worklet.js") };
  }
  shared.audio.resume();
  return shared;
}

/** Plays what is `push`ed. `onplayed(samples)` follows the ear, `onfinished()` comes once after `end()`. */
export class PcmPlayer {
  constructor({ rateHz = RATE_HZ, onplayed, onfinished } = {}) {
    this.played = 0;
    this.gaps = 0;
    const { audio, ready } = context(rateHz);
    this.audio = audio;
    this.opened = ready.then(() => {
      this.node = new AudioWorkletNode(audio, "pcm", { numberOfInputs: 0, outputChannelCount: [1] });
      this.node.port.onmessage = ({ data }) => {
        this.played = data.played;
        this.gaps = data.gaps;
        onplayed?.(data.played);
        if (data.finished) onfinished?.();
      };
      this.node.connect(audio.destination);
    });
  }

  push(samples) {
    const floats = Float32Array.from(samples, (sample) => sample / 32768);
    this.#post({ samples: floats }, [floats.buffer]);
  }

  end() {
    this.#post({ end: true });
  }

  /** Silence at once. */
  clear() {
    this.#post({ clear: true });
    this.played = 0;
  }

  close() {
    this.opened.then(() => this.node.disconnect());
  }

  #post(message, transfer = []) {
    this.opened.then(() => this.node.port.postMessage(message, transfer));
  }
}

/** PCM, mono, 16 bit, as a WAV file. */
export function wav(samples, rateHz = RATE_HZ) {
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((letter, i) => head.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  head.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  head.setUint32(16, 16, true);
  head.setUint16(20, 1, true);
  head.setUint16(22, 1, true);
  head.setUint32(24, rateHz, true);
  head.setUint32(28, 2 * rateHz, true);
  head.setUint16(32, 2, true);
  head.setUint16(34, 16, true);
  text(36, "data");
  head.setUint32(40, 2 * samples.length, true);
  return new Blob([head, samples], { type: "audio/wav" });
}

/** Chunks of samples as one. */
export function joined(chunks) {
  const whole = new Int16Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

/** A file's samples, mono. Raises where the browser cannot decode it. */
export async function decoded(data) {
  const audio = await new OfflineAudioContext(1, 1, RATE_HZ).decodeAudioData(data);
  return { samples: audio.getChannelData(0), rateHz: audio.sampleRate, duration: audio.duration };
}
