// A button that asks once, in its place, with the consequence: for what cannot be undone.
import { el } from "../base/dom.js";
import { t } from "../base/strings.js";

export function askButton(label, consequence, run, attributes = {}) {
  const place = el("span.ask");
  const first = el("button.btn.danger", { type: "button", ...attributes, onclick: ask }, label);
  function ask() {
    const yes = el("button.btn.danger", { type: "button", onclick: () => { reset(); run(); } }, label);
    const no = el("button.btn.quiet", { type: "button", onclick: () => { reset(); first.focus(); } }, t("cancel"));
    place.replaceChildren(el("span", {}, typeof consequence === "function" ? consequence() : consequence), no, yes);
    no.focus();
  }
  function reset() { place.replaceChildren(first); }
  place.addEventListener("keydown", (event) => { if (event.key === "Escape") { reset(); first.focus(); event.stopPropagation(); } });
  reset();
  return place;
}
