// What viewers ask most, and who is on the mic or waits for a seat.
import { avatar, el, fill, icon } from "../base/dom.js";
import { number, t } from "../base/strings.js";

export function asks(place, act) {
  const list = el("ol.asks"), seats = el("ul.seats"), waiting = el("span.chip.num");
  place.replaceChildren(
    el("article.card", {}, el("header", {}, el("h2", {}, t("desk.asks")), el("span.muted.num", {}, "60 s")), list),
    el("article.card", {}, el("header", {}, el("h2", {}, t("desk.seats")), waiting), seats));
  let drawn = "";

  function questions(top) {
    const text = JSON.stringify(top);
    if (text === drawn) return;
    drawn = text;
    const most = Math.max(1, ...top.map((each) => each.count));
    fill(list, ...(top.length ? top.map((ask) => {
      const meter = el("div.meter", { "aria-hidden": "true" }, el("i"));
      meter.style.setProperty("--v", `${(100 * ask.count) / most}%`);
      meter.style.setProperty("--c", "var(--gold-fill)");
      return el(ask.answered ? "li.done" : "li", {}, el("b", {}, `\u00d7${number(ask.count)}`), el("div", {}, el("span", { dir: "auto" }, ask.text), meter),
        ask.answered ? el("button.btn.quiet", { type: "button", "aria-label": `${t("asks.pin")} ${ask.text}`, onclick: () => act.pinAnswer(ask) }, t("asks.pin")) : el("button.btn", { type: "button", "aria-label": `${t("answered")} ${ask.text}`, onclick: () => act.answered(ask) }, t("answered")));
    }) : [el("li.empty", {}, el("p.muted", {}, t("asks.none")))]));
  }

  function mic(view) {
    const taken = view?.taken ?? [], queue = view?.queue ?? [], free = Math.max(0, (view?.seats ?? 0) - taken.length);
    waiting.textContent = number(view?.waiting ?? 0);
    fill(seats, ...(view?.seats ? [
      ...taken.map((seat) => {
        const face = avatar(seat.name || seat.user);
        face.classList.add("ring");
        return el("li", {}, face, el("span.grow.clip", {}, seat.name || seat.user), el("span.chip.good", {}, t("seat.on")), el("button.btn.danger.icon-only", { type: "button", "aria-label": `${t("seat.remove")} ${seat.name || seat.user}`, onclick: () => act.call("mic.remove", { user: seat.user }) }, icon("x")));
      }),
      ...Array.from({ length: free }, () => el("li", {}, el("span.avatar.empty-seat", { "aria-hidden": "true" }), el("span.grow.muted", {}, t("seat.free")))),
      ...queue.slice(0, 8).map((each) => el("li", {}, avatar(each.name || each.user), el("span.grow.clip", {}, each.name || each.user), el("button.btn", { type: "button", "aria-label": `${t("invite")} ${each.name || each.user}`, onclick: () => act.call("mic.invite", { user: each.user }) }, t("invite")))),
    ] : [el("li.empty", {}, el("p.muted", {}, t("seat.none")))]));
  }
  questions([]);
  mic(null);
  return { questions, mic };
}
