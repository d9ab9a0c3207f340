// Where a page is audible: the microphone on the left, the answer on the right, on one clock of samples.

const AUDIBLE = 330 / 32768; // as the front door counts it: −40 dBFS
const loud = (sample) => Math.abs(sample) >= AUDIBLE;

class TwoChannels extends AudioWorkletProcessor {
  process([input]) {
    input.forEach((samples, channel) => {
      const first = samples.findIndex(loud);
      if (first >= 0) this.port.postMessage({ channel, first: currentFrame + first, last: currentFrame + samples.findLastIndex(loud) });
    });
    return true;
  }
}

registerProcessor("two-channels", TwoChannels);
