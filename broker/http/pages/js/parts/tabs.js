// Tabs: arrow keys move within the list, one is in the focus order.
import { $$ } from "../base/dom.js";

export function tabs(list, show) {
  const buttons = $$("[role=tab]", list);
  const select = (button) => {
    for (const each of buttons) {
      each.setAttribute("aria-selected", String(each === button));
      each.tabIndex = each === button ? 0 : -1;
    }
    show(button.dataset.tab);
  };
  for (const button of buttons) button.addEventListener("click", () => select(button));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.focus();
    select(next);
  });
  return (name) => select(buttons.find((each) => each.dataset.tab === name));
}
