// What is known of a conversation beside its lines: who, what it is about, its times, its tags.
import { el, fill } from "../base/dom.js";
import { dateTime, duration, t } from "../base/strings.js";

/** `act.tag(view, tags)`. */
export function contextPane(node, act) {
  let shown = "";
  return {
    update(view, hints) {
      const key = view ? `${view.id} ${view.revision} ${hints.length}` : "";
      if (key === shown || (node.contains(document.activeElement) && shown.startsWith(`${view?.id} `) && document.activeElement.value)) return;
      shown = key;
      if (!view) { node.replaceChildren(); return; }
      const facts = [
        [t("context.customer"), `${view.name || view.customer} (${view.customer})`], [t("context.topic"), view.topic], [t("context.order"), view.order],
        [t("context.product"), view.product], [t("context.room"), view.live_room], [t("context.started"), dateTime(view.started_at_ms)],
        [t("context.first"), view.first_answer_ms === null || view.first_answer_ms === undefined ? null : duration(view.first_answer_ms / 1000)],
        [t("context.transfers"), view.transfers || null], [t("context.rating"), view.rating ? `${view.rating} / 5` : null],
      ].filter(([, value]) => value !== null && value !== undefined && value !== "");
      const input = el("input.field", { maxlength: 32, autocomplete: "off", "aria-label": t("context.add-tag"), placeholder: t("context.add-tag") });
      fill(node,
        el("h3", {}, t("context.about")), (view.order || view.product) && el("span.chip", { class: `chip ${view.verified ? "good" : "warn"}` }, t(view.verified ? "context.verified" : "context.unverified")),
        el("dl.facts", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))])),
        hints.length > 0 && el("h3", {}, t("context.hints")), hints.length > 0 && el("ul.hints", {}, ...hints.map((hint) => el("li", {}, hint.text))),
        el("h3", {}, t("context.tags")),
        el("div.tags", {}, ...view.tags.map((tag) => el("button.btn", { type: "button", "aria-label": t("context.remove-tag", { tag }), onclick: () => act.tag(view, view.tags.filter((each) => each !== tag)) }, `${tag} \u00d7`))),
        el("form", { onsubmit: (event) => { event.preventDefault(); const tag = input.value.trim(); input.value = ""; if (tag && !view.tags.includes(tag)) act.tag(view, [...view.tags, tag]); } }, input));
    },
  };
}
