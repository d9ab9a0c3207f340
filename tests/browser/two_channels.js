// What a test hears in a page: the microphone on the left, the answer on the right, on one clock.

class TwoChannels extends AudioWorkletProcessor {
  process([input]) {
    const [left, right] = [input[0], input[1]].map((channel) => channel ?? new Float32Array(128));
    this.port.postMessage([left.slice(), right.slice()]);
    return true;
  }
}

registerProcessor("two-channels", TwoChannels);
