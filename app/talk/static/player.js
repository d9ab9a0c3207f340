// Plays 16-bit audio of 24 kHz as it comes, at the rate of the audio context; pauses, goes on and forgets when told.
const SOURCE_HZ = 24000;

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.forget();
    this.paused = false;
    this.port.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer) this.take(new Int16Array(data));
      else if (data === "hold") this.paused = true;
      else if (data === "resume") this.paused = false;
      else if (data === "stop") { this.forget(); this.paused = false; }
    };
  }

  forget() {
    this.packets = [];
    this.waiting = 0;
    this.place = 0; // in the first packet, between samples
  }

  take(samples) {
    this.packets.push(samples);
    this.waiting += samples.length;
  }

  process(_, [output]) {
    const out = output[0];
    const step = SOURCE_HZ / sampleRate;
    for (let i = 0; i < out.length; i++) {
      if (this.paused || this.waiting < 2) break;
      const first = this.packets[0];
      const whole = Math.floor(this.place);
      const next = whole + 1 < first.length ? first[whole + 1] : (this.packets[1]?.[0] ?? first[whole]);
      const part = this.place - whole;
      out[i] = (first[whole] * (1 - part) + next * part) / 32768;
      this.place += step;
      if (this.place >= first.length) {
        this.place -= first.length;
        this.waiting -= first.length;
        this.packets.shift();
      }
    }
    for (const channel of output.slice(1)) channel.set(out);
    return true;
  }
}

registerProcessor("player", Player);
