// The run of show: what is explained, the one primary button, and the shelf.
import { el, fill } from "../base/dom.js";
import { duration, money, number, t } from "../base/strings.js";
import { safeUrl } from "../base/url.js";

export function order(place, act, settings) {
  const now = el("article.card.now"), list = el("ol"), count = el("span.chip.num");
  const card = el("article.card.list", {}, el("header", {}, el("h2", {}, t("desk.order")), count, el("button.btn.quiet", { type: "button", onclick: act.addProduct }, t("desk.add"))), list);
  place.replaceChildren(now, card);
  let view = null, since = 0;
  const facts = el("p.muted.num");

  function picture(product, size) {
    const box = el("span.picture", { "aria-hidden": "true" }, [...product.title][0] ?? "");
    box.style.setProperty("--size", `${size}px`);
    const url = product.image && safeUrl(product.image, settings.image_hosts, settings.development);
    if (!url) return box;
    const image = el("img", { src: url, alt: "", width: size, height: size, loading: "lazy", referrerpolicy: "no-referrer", onerror: () => image.replaceWith(box) });
    return image;
  }

  function update(shelf, at, canAct) {
    view = shelf;
    since = at;
    const { rows, now: current, next } = shelf;
    count.textContent = `${current ? rows.indexOf(current) + 1 : 0} / ${rows.length}`;
    now.hidden = !rows.length;
    fill(now, current ? picture(current, 72) : el("span.picture", { "aria-hidden": "true" }, "–"),
      el("div.grow", {}, current ? el("span.chip.live", {}, t("explaining")) : el("span.chip", {}, t("desk.nothing-now")), el("h2.clip", {}, current?.title ?? t("desk.pick")), facts),
      el("button.btn.primary.big", { type: "button", id: "next", disabled: !canAct || !next, onclick: () => act.explain(next) }, el("span", {}, t("desk.next")), el("kbd.kbd", {}, "N")));
    list.replaceChildren(...(rows.length ? rows.map((row, i) => item(row, i, current, canAct)) : [el("li.empty", {}, el("p.muted", {}, t("desk.empty")))]));
    tick(Date.now());
  }

  const item = (row, i, current, canAct) => el(row === current ? "li.on" : "li", {}, el("span.at.num", {}, String(i + 1)), picture(row, 36),
    el("div.grow", {}, el("h3.clip", {}, row.title), el("small.num.clip", {}, [money(row.price_cents), row.stock === null ? null : t("desk.stock", { n: number(row.stock) }), t("desk.clicks", { n: number(row.clicks) })].filter(Boolean).join(" · "))),
    row === current ? el("button.btn.quiet", { type: "button", disabled: !canAct, onclick: act.stopExplaining }, t("desk.stop-explaining")) : el("button.btn", { type: "button", disabled: !canAct, "aria-label": `${t("desk.explain")} ${row.title}`, onclick: () => act.explain(row) }, t("desk.explain")));

  function tick(nowMs) {
    const current = view?.now;
    facts.textContent = current ? [money(current.price_cents), t("desk.clicks", { n: number(current.clicks) }), since ? t("desk.for", { time: duration((nowMs - since) / 1000) }) : null].filter(Boolean).join(" · ") : "";
  }
  return { update, tick };
}
