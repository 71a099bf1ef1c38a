// Panes beside the chat: products, rankings, and what is one's own. Each is drawn anew when it is shown or has changed.
import { avatar, el, fill } from "../base/dom.js";
import { compact, dateTime, money, number, t } from "../base/strings.js";
import { claimText, ownClaim, picture } from "./sale_card.js";

const empty = (text) => el("p.muted.empty-row", {}, text);

/** `act`: {imageOf, linkOf, look}. Links name their host, since they lead elsewhere. */
export function products(node, act, rows, explaining) {
  fill(node, rows.length ? rows.map((row) => {
    const link = act.linkOf(row);
    return el("div.item", {}, picture(act.imageOf(row)), el("div.grow", {}, row.id === explaining && el("span.chip.live", {}, t("explaining")), el("h2", {}, row.title),
      el("p.price.num", {}, el("b", {}, money(row.price_cents)), row.stock !== null && row.stock !== undefined && el("small.muted", {}, ` ${t("product.stock", { n: number(row.stock) })}`)), row.note && el("p.muted", {}, row.note)),
    link && el("a.btn", { href: link, target: "_blank", rel: "noopener noreferrer", "aria-label": `${t("product.look")} \u2013 ${row.title} (${new URL(link.href).host})`, onclick: () => act.clicked(row) }, t("product.look")));
  }) : empty(t("products.none")));
}

export function rankings(node, items, names, likers) {
  const part = (title, rows) => rows.length > 0 && el("section", {}, el("h3", {}, title), el("ol", {}, rows.map(([user, score, rank]) => el("li.item", {}, el("span.rank.num", {}, String(rank)), avatar(names.get(user) ?? user), el("span.grow.clip", {}, names.get(user) ?? user), el("b.num", {}, compact(score))))));
  const parts = [...items.map(({ data, id }) => part(t(`rank.${data.kind ?? id}`), (data.top ?? []).map(({ user, score, rank }) => [user, score, rank]))), part(t("rank.likes"), likers.map(([user, score], i) => [user, score, i + 1]))];
  fill(node, parts.some(Boolean) ? parts : empty(t("ranks.none")));
}

export function mine(node, items, nowMs, titleOf) {
  const row = (badge, title, text, code) => el("div.item", {}, el(`span.badge.${badge}`, { "aria-hidden": "true" }), el("div.grow", {}, el("h2", {}, title), el("p.muted", {}, text), code && el("p.mono.code", {}, code)));
  const rows = items.flatMap(({ kind, data, own }) => {
    if (kind === "sales") { const claim = ownClaim(own); return claim ? [row("red", titleOf(data.sku), claimText(claim, nowMs))] : []; }
    if ((kind === "packets" || kind === "rains") && own?.cents) return [row("red", money(own.cents), data.title || t("packet.short"))];
    if (kind === "coupons" && own?.code) return [row("gold", data.title || t("coupon.title"), data.expire_at_ms ? t("coupon.until", { time: dateTime(data.expire_at_ms) }) : t("coupon.title"), own.code)];
    if (kind === "lotteries" && own?.entry) return [row("violet", own.prize ? t("lottery.won", { prize: own.prize }) : t("lottery.entered"), t("lottery.entry", { entry: own.entry }))];
    if (kind === "quizzes" && own?.cents) return [row("violet", money(own.cents), t("quiz.won"))];
    return [];
  });
  fill(node, rows.length ? rows : empty(t("mine.none")));
}
