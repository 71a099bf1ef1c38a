// A line that comes and goes, with one action at most: toast("Muted", {label: "Undo", run}).
import { $, el } from "../base/dom.js";
import { announce } from "../base/announce.js";

export function toast(text, action = null, seconds = action ? 10 : 4) {
  const close = () => { clearTimeout(timer); node.remove(); };
  const node = el("div.toast", {}, el("span.grow", {}, text),
    action && el("button.btn", { type: "button", onclick: () => { close(); action.run(); } }, action.label));
  const timer = setTimeout(close, seconds * 1000);
  const list = $("#toasts");
  list.append(node);
  while (list.children.length > 4) list.firstElementChild.remove();
  announce(text);
  return close;
}
