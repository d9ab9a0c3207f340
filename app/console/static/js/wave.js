// Sound as a picture: peaks on a canvas, with a playhead and shaded stretches. Colours are the canvas's own CSS.

const BAR = 3;
const GAP = 2;

/** The loudest sample of each of `count` stretches, 0 to 1. */
export function peaks(samples, count) {
  const scale = samples instanceof Int16Array ? 32768 : 1;
  const size = samples.length / count;
  return Float32Array.from({ length: count }, (_, i) => {
    let most = 0;
    const end = Math.min(samples.length, Math.ceil((i + 1) * size));
    // Every sixteenth is enough to see, and cheap for a recording of an hour.
    for (let at = Math.floor(i * size); at < end; at += 16) most = Math.max(most, Math.abs(samples[at]));
    return most / scale;
  });
}

export class Wave {
  constructor(canvas) {
    this.canvas = canvas;
    this.samples = new Int16Array(0);
    this.values = new Float32Array(0);
    this.played = 0;
    this.marks = [];
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(canvas);
    addEventListener("theme", () => this.draw());
  }

  get bars() {
    return Math.max(16, Math.floor(this.canvas.clientWidth / (BAR + GAP)));
  }

  /** Show these samples. */
  show(samples) {
    this.samples = samples;
    this.values = new Float32Array(0);
    this.draw();
  }

  /** How much was heard, 0 to 1 of the width. */
  play(share) {
    this.played = share;
    this.draw();
  }

  /** Stretches to shade: `{start, end, kind}`, 0 to 1 of the width. */
  mark(marks) {
    this.marks = marks;
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    const { bars } = this;
    if (this.values.length !== bars) this.values = peaks(this.samples, bars);
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const style = getComputedStyle(canvas);
    const [played, ahead, bad] = [style.color, style.borderTopColor, style.outlineColor];
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    for (const { start, end, kind } of this.marks) {
      pen.globalAlpha = 0.16;
      pen.fillStyle = kind === "rejected" ? bad : ahead;
      pen.fillRect(start * width, 0, Math.max(2, (end - start) * width), height);
    }
    pen.globalAlpha = 1;
    for (let i = 0; i < bars; i += 1) {
      const value = this.values[i] ?? 0;
      const tall = Math.max(2, Math.min(1, Math.sqrt(value)) * (height - 4));
      const inside = this.marks.find(({ start, end }) => i / bars >= start && i / bars < end);
      pen.fillStyle = inside?.kind === "rejected" ? bad : i / bars < this.played ? played : ahead;
      pen.globalAlpha = inside ? 0.55 : this.samples.length ? 1 : 0.35;
      pen.beginPath();
      pen.roundRect(i * (BAR + GAP), (height - tall) / 2, BAR, tall, 1.5);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }
}
