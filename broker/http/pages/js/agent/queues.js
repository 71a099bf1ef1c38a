// The lists on the left: own conversations, the one that has waited longest first, and those that wait for an agent.
import { avatar, el, fill, setText } from "../base/dom.js";
import { duration, number, t } from "../base/strings.js";

/** The clock of the first answer, or of the customer who waits: {text, kind} of a chip, null = nobody waits. */
export function slaOf(view, settings, now) {
  if (!view.asked_at_ms) return null;
  const waited = now - view.asked_at_ms, limit = view.first_answer_ms === null ? settings?.first_response_ms ?? 0 : 0;
  if (!limit) return { text: t("sla.waits", { time: duration(waited / 1000) }), kind: waited > 60000 ? "warn" : "" };
  const left = limit - waited;
  return left < 0 ? { text: t("sla.late", { time: duration(-left / 1000) }), kind: "bad" } : { text: t("sla.left", { time: duration(left / 1000) }), kind: left < limit / 3 ? "warn" : "good" };
}

/** `act.open(id)`; `mine`, `queued`: lists; `count`: where the number of those that wait stands. */
export function queueLists({ mine, queued, count }, act) {
  const entries = new Map();
  function entry(view, isOwn, canOpen) {
    let made = entries.get(view.id);
    if (!made) {
      const name = el("b.clip"), small = el("small.clip"), chip = el("span.chip.num");
      const button = el("button.entry", { type: "button", onclick: () => act.open(view.id) }, avatar(view.name || view.customer), name, chip, small);
      made = { node: el("li", { "data-id": view.id }, button), button, name, small, chip };
      entries.set(view.id, made);
    }
    made.button.disabled = !canOpen;
    setText(made.name, view.name || view.customer);
    setText(made.small, [view.topic, view.order ?? view.product].filter(Boolean).join(" \u00b7 "));
    return made;
  }
  return {
    update({ mine: own, queued: waiting, open, unread, settings, now, canOpenQueued }) {
      const named = new Set([...own, ...waiting].map((view) => view.id));
      for (const id of entries.keys()) if (!named.has(id)) entries.delete(id);
      for (const [list, views, empty] of [[mine, own, "agent.none"], [queued, waiting, "agent.none-queued"]]) {
        const made = views.map((view) => entry(view, list === mine, list === mine || canOpenQueued));
        for (const [at, each] of made.entries()) {
          const view = views[at], sla = slaOf(view, settings, now), n = unread.get(view.id) ?? 0;
          each.button.setAttribute("aria-current", String(view.id === open));
          each.chip.className = `chip num ${sla?.kind ?? ""}`;
          each.chip.hidden = !sla && !n;
          setText(each.chip, sla?.text ?? t("agent.unread", { n: number(n) }));
        }
        const nodes = made.map((each) => each.node);
        if (!list.children.length || nodes.length !== list.children.length || nodes.some((node, at) => list.children[at] !== node)) {
          const focused = document.activeElement;
          if (nodes.length) list.replaceChildren(...nodes); else if (!list.querySelector(".none")) fill(list, el("li.none", {}, t(empty)));
          if (focused && list.contains(focused)) focused.focus();
        }
      }
      setText(count, waiting.length ? number(waiting.length) : "");
    },
  };
}
