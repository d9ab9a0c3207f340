// Passes the microphone's samples on, a tenth of a second at a time.

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.buffer = new Float32Array(Math.round(sampleRate / 10));
    this.length = 0;
  }

  process([[input]]) {
    if (!input) return true;
    for (const sample of input) {
      this.buffer[this.length++] = sample;
      if (this.length === this.buffer.length) {
        this.port.postMessage(this.buffer);
        this.length = 0;
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
