// What is going on besides the sale, one card each: soonest end first. Cards of what has ended leave by themselves.
import { el } from "../base/dom.js";
import { duration, money, number, t } from "../base/strings.js";
import { stateOf } from "../room/view.js";
import { actCard } from "./act_card.js";
import { lotteryCard } from "./lottery.js";
import { packetCard, rainCard } from "./packet.js";
import { pollCard, quizCard } from "./poll.js";
import { claimText, ownClaim } from "./sale_card.js";
import { seatsCard } from "./seats.js";

const wait = (atMs, nowMs) => duration(Math.ceil(Math.max(0, atMs - nowMs) / 1000));

function couponCard(act) {
  const card = actCard("coupon", "gold", "ticket");
  return { node: card.node, update(item) {
    const { data, own } = item, title = data.title || t("coupon.title");
    if (own?.code) card.set(title, t("coupon.mine", { code: own.code }), { label: t("coupon.show"), run: () => act.showMine() });
    else if (item.overAt !== null) card.set(title, t("coupon.closed"), null);
    else card.set(title, t(data.exhausted ? "coupon.gone" : "coupon.open"), { label: t("coupon.claim"), isGold: true, isOff: data.exhausted, run: () => act.coupon(item) });
  } };
}

function countdownCard(act) {
  const card = actCard("countdown", "blue", "clock");
  return { node: card.node, update({ data, overAt }, nowMs) {
    const text = overAt === null ? wait(data.deadline_ms, nowMs) : t("countdown.over");
    card.set(data.label || t("countdown"), text, { label: text, isPhone: true, run: () => act.say(data.label || t("countdown"), text) });
  } };
}

function pkCard(act) {
  const card = actCard("pk", "violet", "pk"), bar = el("i"), meter = el("div.meter.pk-bar", { "aria-hidden": "true" }, bar);
  card.extra.append(meter);
  return { node: card.node, update({ data, overAt }, nowMs) {
    const [own, other] = [data.score ?? 0, data.other_score ?? 0];
    const title = t("pk.title", { room: data.other_room }), score = `${number(own)} : ${number(other)}`;
    const text = `${score} \u00b7 ${overAt === null ? wait(data.ends_at_ms ?? nowMs, nowMs) : t(`pk.${String(data.outcome).toLowerCase()}`)}`;
    const share = `${Math.round(own + other ? 100 * own / (own + other) : 50)}%`;
    card.set(title, text, { label: share, isPhone: true, run: () => act.say(title, text) });
    meter.style.setProperty("--v", share);
  } };
}

function saleRow(act) {
  const card = actCard("more-sale", "red", "bag");
  return { node: card.node, update(item, nowMs) {
    const { data, own } = item, claim = ownClaim(own), state = stateOf(item), title = act.titleOf(data.sku);
    const text = claim ? claimText(claim, nowMs) : state === "scheduled" ? `${t("sale.begins")} ${wait(data.open_at_ms, nowMs)}` : state === "open" ? t("sale.left", { n: number(data.available ?? data.stock), of: number(data.stock) }) : t(`sale.${state}`);
    card.set(`${title} ${money(data.price_cents)}`, text, state === "open" && !claim ? { label: t("sale.claim"), run: () => act.claim(item) } : null);
  } };
}

const MAKERS = { sales: saleRow, packets: packetCard, rains: rainCard, lotteries: lotteryCard, polls: pollCard, quizzes: quizCard, coupons: couponCard, countdowns: countdownCard, pk: pkCard, mic: seatsCard };
export const KINDS = Object.keys(MAKERS);
const MOST = 12;

/** Shows items of `RoomView.running` in `list`, behind its first child. A card that is pressed or has the focus is never moved. */
export function acts(list, act) {
  const cards = new Map();
  let isPressed = false;
  list.addEventListener("pointerdown", () => { isPressed = true; });
  for (const event of ["pointerup", "pointercancel"]) addEventListener(event, () => { isPressed = false; });
  /** Puts cards in their order. A browser that moves a card drops its focus, and the click of a press that has begun on it. */
  function arrange(nodes) {
    let next = null;
    for (const node of [...nodes].reverse()) {
      const stays = node.parentNode && (isPressed || node.contains(document.activeElement));
      if (!stays && !(node.parentNode && node.nextElementSibling === next)) list.insertBefore(node, next);
      next = isPressed ? null : node;
    }
  }
  function update(items, nowMs) {
    const shown = items.slice(0, MOST), keys = new Set(shown.map(({ kind, id }) => `${kind} ${id}`));
    for (const [key, card] of cards) if (!keys.has(key)) { card.node.remove(); cards.delete(key); }
    arrange(shown.map((item) => {
      const key = `${item.kind} ${item.id}`;
      let card = cards.get(key);
      if (!card) { card = MAKERS[item.kind](act); cards.set(key, card); }
      card.update(item, nowMs);
      card.node.classList.toggle("is-over", item.overAt !== null);
      return card.node;
    }));
  }
  return { update };
}
