// A sparkline: the last values without an axis.
import { color, prepare } from "./canvas.js";

export function spark(canvas, data, token = "--info") {
  const { c, w, h } = prepare(canvas);
  if (!w || data.length < 2) return;
  const low = Math.min(...data), high = Math.max(...data, low + 1);
  const x = (i) => (i / (data.length - 1)) * (w - 6) + 1, y = (v) => h - 3 - ((v - low) / (high - low)) * (h - 6);
  const stroke = color(canvas, token);
  c.beginPath();
  data.forEach((v, i) => c.lineTo(x(i), y(v)));
  c.strokeStyle = stroke; c.lineWidth = 1.5; c.lineJoin = "round"; c.stroke();
  c.lineTo(x(data.length - 1), h); c.lineTo(x(0), h);
  c.globalAlpha = 0.12; c.fillStyle = stroke; c.fill();
  c.globalAlpha = 1; c.beginPath(); c.arc(x(data.length - 1), y(data.at(-1)), 2.2, 0, 7); c.fill();
}
