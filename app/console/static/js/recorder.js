// The microphone: one take after the other, as WAV files, and how loud it is.

import { wav } from "./player.js";

const REFUSED = "The browser has not let this page use the microphone. Allow it beside the address, or upload a recording.";
const NONE = "There is no microphone here. Plug one in, or upload a recording made elsewhere.";

export class Recorder {
  /**
   * `onlevel(peak, seconds)` tells how loud it is, and how long the take is by now.
   * Raises an Error in words where there is no microphone, or it is refused. Nothing of it is made louder or cleaner.
   */
  static async open(onlevel) {
    if (!navigator.mediaDevices) throw new Error("Browsers record on https and on this machine only. Upload a recording made elsewhere.");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
      });
    } catch (error) {
      throw new Error(error.name === "NotAllowedError" ? REFUSED : NONE);
    }
    const audio = new AudioContext();
    await audio.audioWorklet.addModule("/console/static/js/recorder-worklet.js");
    return new Recorder(stream, audio, onlevel);
  }

  constructor(stream, audio, onlevel) {
    this.stream = stream;
    this.audio = audio;
    this.take = null;
    this.node = new AudioWorkletNode(audio, "recorder", { numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => {
      this.take?.push(data);
      let most = 0;
      for (const sample of data) most = Math.max(most, Math.abs(sample));
      onlevel?.(most, this.seconds);
    };
    audio.createMediaStreamSource(stream).connect(this.node);
  }

  get seconds() {
    return (this.take ?? []).reduce((sum, part) => sum + part.length, 0) / this.audio.sampleRate;
  }

  begin() {
    this.take = [];
  }

  /** The take since `begin`, and the loudest sample of it. */
  end() {
    const take = this.take ?? [];
    this.take = null;
    const samples = new Int16Array(take.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    let most = 0;
    for (const part of take) {
      for (const sample of part) {
        most = Math.max(most, Math.abs(sample));
        samples[at++] = Math.max(-32768, Math.min(32767, Math.round(32768 * sample)));
      }
    }
    return { blob: wav(samples, this.audio.sampleRate), samples, seconds: samples.length / this.audio.sampleRate, peak: most };
  }

  close() {
    this.stream.getTracks().forEach((track) => track.stop());
    this.audio.close();
  }
}

/** What to tell whoever recorded, about how loud it was; null: fine. */
export function advice(peak) {
  if (peak >= 0.99) return "Too loud: it is cut off at the top. Move back a little and read it again.";
  if (peak < 0.05) return "Very quiet. Come closer, or turn the microphone up, and read it again.";
  return null;
}
