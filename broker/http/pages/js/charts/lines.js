// A line chart with one axis from 0 and labels at the ends of its lines: lines(canvas, [{name, token, data, dash}], texts).
import { compact, number } from "../base/strings.js";
import { color, prepare } from "./canvas.js";

const STEPS = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6, 7].map((power) => n * 10 ** power)).sort((a, b) => a - b);

export function axis(most) {
  const step = STEPS.find((n) => most / n <= 4) ?? 10 ** 8;
  return { step, high: Math.max(step, Math.ceil(most / step) * step) };
}

export function lines(canvas, all, { span, now }) {
  const { c, w, h } = prepare(canvas);
  if (!w) return;
  const left = 44, right = w < 480 ? 8 : 108, top = 8, bottom = 22;
  const { step, high } = axis(Math.max(1, ...all.flatMap((s) => s.data)));
  const x = (i, n) => left + (n < 2 ? 1 : i / (n - 1)) * (w - left - right), y = (v) => h - bottom - (v / high) * (h - top - bottom);
  c.font = `12px ${getComputedStyle(canvas).fontFamily}`;
  c.textBaseline = "middle";
  const faint = color(canvas, "--line"), label = color(canvas, "--text-3");
  for (let v = 0; v <= high; v += step) {
    c.fillStyle = faint; c.fillRect(left, Math.round(y(v)), w - left - right, 1);
    c.fillStyle = label; c.textAlign = "right"; c.fillText(compact(v), left - 8, y(v));
  }
  c.textAlign = "left"; c.fillText(span, left, h - 8);
  c.textAlign = "right"; c.fillText(now, w - right, h - 8);
  const ends = [];
  for (const s of all) {
    if (!s.data.length) continue;
    c.strokeStyle = color(canvas, s.token); c.lineWidth = 1.75; c.lineJoin = "round"; c.setLineDash(s.dash ?? []);
    c.beginPath();
    s.data.forEach((v, i) => c.lineTo(x(i, s.data.length), y(v)));
    c.stroke();
    c.setLineDash([]);
    ends.push({ y: y(s.data.at(-1)), text: `${s.name} ${number(s.data.at(-1))}`, fill: c.strokeStyle });
  }
  if (right < 20) return;
  ends.sort((a, b) => a.y - b.y); // labels are pushed apart, so that none covers another
  let floor = top;
  for (const end of ends) { end.y = Math.max(end.y, floor); floor = end.y + 16; }
  const over = Math.max(0, floor - 16 - (h - bottom));
  c.textAlign = "left";
  for (const end of ends) { c.fillStyle = end.fill; c.fillText(end.text, w - right + 8, end.y - over); }
}

/** What a screen reader hears of a chart: latest, lowest and highest of each line. */
export const chartText = (all) => all.filter((s) => s.data.length)
  .map((s) => `${s.name} ${number(s.data.at(-1))} (${number(Math.min(...s.data))} – ${number(Math.max(...s.data))})`).join("; ");
