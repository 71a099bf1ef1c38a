// What both charts share: a canvas at the screen's resolution, and colours of the tokens.

/** A canvas does not know custom properties: the colour is computed through its own `color`. */
export function color(canvas, name) {
  canvas.style.color = `var(${name})`;
  return getComputedStyle(canvas).color;
}

export function prepare(canvas) {
  const ratio = Math.min(devicePixelRatio || 1, 2), { clientWidth: w, clientHeight: h } = canvas;
  const width = Math.round(w * ratio), height = Math.round(h * ratio);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, w, h);
  return { c, w, h };
}
