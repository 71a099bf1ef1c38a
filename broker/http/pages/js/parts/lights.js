// Soft lights that drift over the still picture: it stands for a video. A sixteenth of the pixels, 12 frames a second.
const W = 240, H = 135;

export function lights(canvas) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const c = canvas.getContext("2d"), spot = Object.assign(document.createElement("canvas"), { width: 64, height: 64 }), s = spot.getContext("2d");
  const glow = s.createRadialGradient(32, 32, 2, 32, 32, 32);
  canvas.width = W; canvas.height = H;
  glow.addColorStop(0, "rgb(255 220 170 / .8)"); glow.addColorStop(0.5, "rgb(255 170 130 / .25)"); glow.addColorStop(1, "rgb(255 150 120 / 0)");
  s.fillStyle = glow; s.fillRect(0, 0, 64, 64);
  setInterval(() => {
    if (document.hidden) return;
    const at = performance.now() / 1000;
    c.clearRect(0, 0, W, H);
    for (let i = 0; i < 14; i += 1) {
      const r = 14 + (i * 7) % 26, x = (i * 61 + at * (3 + i % 4)) % (W + 60) - 30, y = H * ((i * 0.37) % 1) + Math.sin(at * 0.6 + i) * 8;
      c.globalAlpha = 0.35 + 0.3 * Math.sin(at * 0.9 + i * 1.7);
      c.drawImage(spot, x - r, y - r, r * 2, r * 2);
    }
  }, 83);
}
