// A sheet: from below on a phone, a panel on a desk. The focus stays in it, Escape closes it, and it goes back to its button.
import { $, el, fill } from "../base/dom.js";
import { icon } from "../base/dom.js";
import { t } from "../base/strings.js";

export function openSheet(title, ...children) {
  const dialog = $("#sheet"), from = document.activeElement;
  fill(dialog, el("header", {}, el("h2", { id: "sheet-title" }, title), el("button.btn.quiet.icon-only", { type: "button", "aria-label": t("close"), onclick: () => dialog.close() }, icon("x"))), ...children);
  dialog.onclose = () => { dialog.replaceChildren(); from?.focus?.(); };
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
  dialog.showModal();
  dialog.querySelector("input, select, textarea")?.focus();
  return () => dialog.close();
}
