// The canvas over the picture: queues by importance, lanes from lanes.js, pictures from sprites.js, one frame at a time.
import { Lanes } from "./lanes.js";
import { HOST, MERGED, OWN, PAID, PLAIN, Sprites, flyingText } from "./sprites.js";

export { HOST, MERGED, OWN, PAID, PLAIN };
const WAIT_S = [4, 6, 4, 2, 0.8];            // how long each kind may wait for a lane before it is left to the chat list
const QUEUE_MAX = 60;
const FRAMES = 900;
const SLOW_FRAMES = 120, SLOW_MS = 20, FAST_MS = 17, BACK_MS = 30_000;
const STILL = 3, STILL_MS = 4000;            // with reduced motion so many stand still, so long
const reduced = matchMedia("(prefers-reduced-motion: reduce)");

export class Stage {
  #steps = 0;                                // what was given up for speed: 1 resolution, 2 sprites, 3 density, 4 frames
  #stepAt = 0;

  constructor(canvas, options = {}) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.lanes = new Lanes();
    this.sprites = new Sprites(this.context);
    this.queues = WAIT_S.map(() => []);
    this.options = { density: 0.5, size: 22, opacity: 0.9, paused: false, off: false, ...options };
    this.counts = { flew: 0, noRoom: 0 };
    this.still = [];
    this.frames = new Float32Array(FRAMES);
    this.work = new Float32Array(FRAMES);
    this.frame = 0;
    this.last = 0;
    this.meanWidth = 160;
    new ResizeObserver(() => this.#layout()).observe(canvas);
    document.addEventListener("visibilitychange", () => this.#onVisibility());
    document.fonts?.ready.then(() => this.sprites.clear());
    this.#watchRatio();
    this.#layout();
    requestAnimationFrame((at) => this.#tick(at));
  }

  set(options) { Object.assign(this.options, options); if (options.off) this.clear(); this.#layout(); }

  /** Takes {text, kind, count, color, userId}. What finds no lane in time is counted and never drawn over another. */
  push(message) {
    if (document.hidden || this.options.off) { this.counts.noRoom += 1; return; }
    const queue = this.queues[message.kind];
    if (queue.length >= QUEUE_MAX) { queue.shift(); this.counts.noRoom += 1; }
    queue.push({ ...message, text: flyingText(message.text), since: performance.now() });
  }

  /** Takes back what is deleted: `isGone(message)`. */
  remove(isGone) {
    this.queues = this.queues.map((queue) => queue.filter((each) => !isGone(each)));
    this.lanes.remove(({ message }) => isGone(message));
    this.still = this.still.filter(({ message }) => !isGone(message));
  }

  clear() {
    for (const queue of this.queues) { this.counts.noRoom += queue.length; queue.length = 0; }
    this.lanes.clear();
    this.still = [];
  }

  get capacity() { return this.lanes.capacity(this.meanWidth, this.#speed(this.meanWidth)); }

  stats() {
    const n = Math.min(this.frame, FRAMES), at = (array, q) => (n ? array.slice(0, n).sort()[Math.min(n - 1, Math.floor(n * q))] : 0);
    return {
      frames: n, p50: at(this.frames, 0.5), p95: at(this.frames, 0.95), workP50: at(this.work, 0.5), workP95: at(this.work, 0.95),
      flying: this.lanes.flying, lanes: this.lanes.lanes.length, capacity: this.capacity, steps: this.#steps,
      spriteMB: this.sprites.bytes / 1048576, ...this.counts,
    };
  }

  resetStats() { this.frame = 0; }

  /** Pairs of items in flight that touch; 0 always. */
  overlaps() {
    let found = 0;
    for (const lane of this.lanes.lanes) {
      const items = [...lane].sort((a, b) => a.x - b.x);
      for (let i = 1; i < items.length; i += 1) if (items[i].x < items[i - 1].x + items[i - 1].w) found += 1;
    }
    return found;
  }

  #watchRatio() {
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", () => { this.#layout(); this.#watchRatio(); }, { once: true });
  }

  #layout() {
    const { clientWidth: width, clientHeight: height } = this.canvas, { size } = this.options;
    const ratio = Math.min(devicePixelRatio || 1, this.#steps >= 1 ? 1 : 2);
    this.laneHeight = Math.round(size * 1.6);
    if (this.sprites.configure(size, this.laneHeight, ratio)) this.lanes.clear();
    this.ratio = ratio;
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const most = Math.floor(height / this.laneHeight), density = this.options.density * (this.#steps >= 3 ? 0.6 : 1);
    this.lanes.resize(width, Math.max(Math.min(2, most), Math.min(most, Math.round(most * density))));
  }

  #onVisibility() {
    this.last = 0;
    if (document.hidden) for (const queue of this.queues) { this.counts.noRoom += queue.length; queue.length = 0; }
  }

  /** All cross in about the same time: 8 s when calm, 5.5 s when many wait; long ones are a little faster. */
  #speed(w) {
    const { width } = this.lanes, pressure = Math.min(1, this.queues[PLAIN].length / 12);
    const crossing = (width < 500 ? 6.5 : 8) - 2.5 * pressure;
    return (width + 160) / crossing * (1 + 0.25 * Math.min(1, w / (width || 1)));
  }

  #tick(at) {
    requestAnimationFrame((next) => this.#tick(next));
    const delta = this.last ? at - this.last : 16.7;
    if (this.#steps >= 4 && delta < 30) return;
    this.last = at;
    const start = performance.now();
    if (!this.options.paused) this.lanes.advance(Math.min(delta, 100) / 1000);
    if (reduced.matches) this.#stand(start); else this.#admit(start);
    this.#draw();
    this.frames[this.frame % FRAMES] = delta;
    this.work[this.frame % FRAMES] = performance.now() - start;
    this.frame += 1;
    if (this.frame % SLOW_FRAMES === 0) this.#adapt(at);
  }

  #adapt(at) {
    const end = this.frame % FRAMES || FRAMES;
    const p95 = this.frames.slice(end - SLOW_FRAMES, end).sort()[Math.floor(SLOW_FRAMES * 0.95)];
    if (p95 > SLOW_MS && this.#steps < 4) this.#steps += 1;
    else if (!(p95 < FAST_MS && this.#steps > 0 && at - this.#stepAt > BACK_MS)) return;
    else this.#steps -= 1;
    this.#stepAt = at;
    this.#layout();
  }

  #admit(start) {
    const all = this.lanes.lanes.length, plain = all > 3 ? all - 1 : all;      // the last lane is for own and paid ones
    let room = this.options.paused ? 0 : this.#steps >= 2 ? 1 : 3;             // drawing a text is what costs most
    this.queues.forEach((queue, kind) => {
      while (queue.length && start - queue[0].since > WAIT_S[kind] * 1000) { queue.shift(); this.counts.noRoom += 1; }
      while (queue.length && room > 0) {
        const message = queue[0], w = this.sprites.width(message), item = { w, v: this.#speed(w), x: 0, lane: 0, message };
        if (!this.lanes.place(item, 0, kind <= PAID ? all : plain)) break;
        item.sprite = this.sprites.get(message, w);
        queue.shift();
        this.counts.flew += 1;
        this.meanWidth += (w - this.meanWidth) * 0.05;
        room = performance.now() < start + 3 ? room - 1 : 0;
      }
    });
  }

  /** Reduced motion: nothing flies, the newest few stand in the upper lanes. */
  #stand(now) {
    this.lanes.clear();
    this.still = this.still.filter(({ until }) => until > now);
    for (const queue of this.queues) for (const message of queue.splice(0)) {
      if (this.still.length >= Math.min(STILL, this.lanes.lanes.length)) { this.counts.noRoom += 1; continue; }
      const taken = new Set(this.still.map(({ lane }) => lane)), lane = [0, 1, 2].find((each) => !taken.has(each)), w = this.sprites.width(message);
      this.still.push({ message, until: now + STILL_MS, lane, x: Math.max(8, (this.lanes.width - w) / 2), sprite: this.sprites.get(message, w) });
      this.counts.flew += 1;
    }
  }

  #draw() {
    const { context: c, ratio, laneHeight } = this;
    c.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.options.off) return;
    c.globalAlpha = this.options.opacity;
    const put = (item) => c.drawImage(item.sprite, Math.round(item.x * ratio), Math.round(item.lane * laneHeight * ratio));
    for (const lane of this.lanes.lanes) for (const item of lane) put(item);
    this.still.forEach(put);
  }
}
