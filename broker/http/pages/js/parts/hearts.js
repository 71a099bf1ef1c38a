// Hearts that rise for likes: one for one's own, a few a second for those of others. Never more than a dozen at once.
import { el } from "../base/dom.js";

const MOST = 12;

export function hearts(node) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return { add() {} };
  return {
    add(count = 1) {
      for (let i = 0; i < Math.min(count, 3) && node.childElementCount < MOST && !document.hidden; i += 1) {
        const heart = el("i");
        heart.addEventListener("animationend", () => heart.remove());
        setTimeout(() => node.append(heart), i * 180);
      }
    },
  };
}
