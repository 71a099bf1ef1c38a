// Pictures of danmaku, each drawn once, and the widths of texts. Both are bounded.
export const OWN = 0, PAID = 1, HOST = 2, MERGED = 3, PLAIN = 4;
const SPRITE_BYTES = 16 * 1024 * 1024;
const MAX_WIDTHS = 4000;
const MAX_GRAPHEMES = 40;
const FONT = 'system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Color Emoji", sans-serif';
const INK = "#261a02", GOLD = "#f3bd52", OUTLINE = "rgb(10 12 18 / .78)", HOST_LINE = "#ff7d95";
const segmenter = globalThis.Intl?.Segmenter ? new Intl.Segmenter() : null;

/** A text as it flies: one line, at most 40 characters of people, at most 2 combining marks each, isolated from its neighbours. */
export function flyingText(text) {
  const line = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+/g, " ").replace(/(\p{Mn}{2})\p{Mn}+/gu, "$1").trim();
  const parts = segmenter ? [...segmenter.segment(line)].map(({ segment }) => segment) : [...line];
  const kept = parts.slice(0, MAX_GRAPHEMES).join("");
  return `\u2068${kept}${parts.length > MAX_GRAPHEMES ? "\u2026" : ""}\u2069`;
}

const hasPill = (kind) => kind <= HOST;
const label = (count) => `\u00d7${count.toLocaleString("en")}`;

export class Sprites {
  /** `context`: of a canvas, to measure with. */
  constructor(context) { this.context = context; this.widths = new Map(); this.kept = new Map(); this.bytes = 0; this.size = 0; this.ratio = 1; }

  /** Sets size of the letters, height of a lane and device pixels for one of CSS; what was drawn otherwise goes. */
  configure(size, height, ratio) {
    if (size === this.size && height === this.height && ratio === this.ratio) return false;
    Object.assign(this, { size, height, ratio });
    this.clear();
    return true;
  }

  clear() { this.kept.clear(); this.bytes = 0; this.widths.clear(); }

  width({ text, count, kind }) {
    const key = `${hasPill(kind) ? "p" : ""}${count > 1 ? label(count).length : 0}|${text}`;
    let w = this.widths.get(key);
    if (w === undefined) {
      const c = this.context;
      c.font = `600 ${this.size}px ${FONT}`;
      w = Math.ceil(c.measureText(text).width) + 12;
      if (count > 1) w += Math.ceil(c.measureText(label(count)).width * 0.75) + 20;
      if (hasPill(kind)) w += 16;
      if (this.widths.size >= MAX_WIDTHS) this.widths.clear();
      this.widths.set(key, w);
    }
    return w;
  }

  /** Returns the picture of a message; the least recently used ones go when there are too many bytes. */
  get(message, w) {
    const key = `${message.kind}|${message.count || 1}|${message.color || ""}|${message.text}`;
    const known = this.kept.get(key);
    if (known) { this.kept.delete(key); this.kept.set(key, known); return known; }
    const sprite = this.#draw(message, w);
    this.kept.set(key, sprite);
    this.bytes += sprite.width * sprite.height * 4;
    for (const [oldest, old] of this.kept) {
      if (this.bytes <= SPRITE_BYTES) break;
      this.kept.delete(oldest);
      this.bytes -= old.width * old.height * 4;
    }
    return sprite;
  }

  #draw({ text, count, kind, color }, w) {
    const { ratio, size, height: h } = this, isPaid = kind === PAID;
    const sprite = newCanvas(Math.ceil(w * ratio), Math.ceil(h * ratio)), c = sprite.getContext("2d");
    c.scale(ratio, ratio);
    c.font = `600 ${size}px ${FONT}`; c.textBaseline = "middle"; c.lineJoin = "round";
    const middle = h / 2 + size * 0.04;
    let x = 6;
    if (hasPill(kind)) {
      c.beginPath(); c.roundRect(1.5, 2.5, w - 3, h - 5, h / 2);
      c.fillStyle = isPaid ? GOLD : "rgb(10 12 18 / .68)"; c.fill();
      if (!isPaid) { c.lineWidth = 1.5; c.strokeStyle = kind === OWN ? "#ffffff" : HOST_LINE; c.stroke(); }
      x += 8;
    }
    if (!isPaid) { c.lineWidth = Math.max(2.5, size / 7); c.strokeStyle = OUTLINE; c.strokeText(text, x, middle); }
    c.fillStyle = isPaid ? INK : color || "#ffffff";
    c.fillText(text, x, middle);
    if (count > 1) {
      x += c.measureText(text).width + 6;
      c.font = `700 ${size * 0.72}px ${FONT}`;
      const lw = c.measureText(label(count)).width + 12, lh = size * 1.05;
      c.beginPath(); c.roundRect(x, h / 2 - lh / 2, lw, lh, lh / 2); c.fillStyle = GOLD; c.fill();
      c.fillStyle = INK; c.fillText(label(count), x + 6, middle);
    }
    return sprite;
  }
}

function newCanvas(width, height) {
  if (globalThis.OffscreenCanvas) return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement("canvas"), { width, height });
}
