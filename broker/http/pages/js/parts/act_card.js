// Card of an activity: badge, title, a line, what is special to it, and one button. On a phone only badge and button are seen.
import { $, el, icon, setText } from "../base/dom.js";

export function actCard(kind, toneName, iconName) {
  const title = el("h2.clip"), line = el("p.muted.num"), extra = el("div.extra"), label = el("span");
  let run = null, isAsking = false;
  const button = el("button.btn", { type: "button", onclick: press }, label);
  const node = el(`article.card.act.small.${kind}`, {}, el(`span.badge.${toneName}`, { "aria-hidden": "true" }, icon(iconName)), el("div.grow", {}, title, line, extra), button);
  let shown = null;
  /** One press, one call: the button is off until its answer is there. */
  async function press() {
    if (!run || isAsking) return;
    isAsking = true;
    draw();
    try { await run(); } finally { isAsking = false; draw(); }
  }
  function draw() {
    button.hidden = !shown;
    if (!shown) return;
    setText(label, isAsking ? "\u2026" : shown.label);
    button.setAttribute("aria-label", `${shown.label} \u2013 ${title.textContent}`);
    button.classList.toggle("gold", Boolean(shown.isGold));
    button.classList.toggle("phone", Boolean(shown.isPhone));
    button.disabled = isAsking || Boolean(shown.isOff);
    run = shown.run ?? null;
  }
  /** `button`: {label, run, isGold, isOff, isPhone}, or null; `isPhone`: on a phone only, where the line is not seen. */
  function set(titleText, lineText, next = null) {
    setText(title, titleText);
    setText(line, lineText);
    shown = next;
    draw();
  }
  return { node, extra, set, focusButton: () => $("button", node)?.focus() };
}
