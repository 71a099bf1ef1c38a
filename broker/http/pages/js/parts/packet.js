// Red packets and rains of them: when they fall, what is left, and what one has got.
import { el, fill } from "../base/dom.js";
import { duration, money, number, t } from "../base/strings.js";
import { stateOf } from "../room/view.js";
import { actCard } from "./act_card.js";

const wait = (atMs, nowMs) => duration(Math.ceil(Math.max(0, atMs - nowMs) / 1000));

/** `act.grab(id, packet)`. */
export function packetCard(act) {
  const card = actCard("packet", "red", "packet");
  function update(item, nowMs) {
    const { id, data, own } = item, state = stateOf(item), title = data.title || t("packet.title", { sum: money(data.total_cents ?? 0) });
    if (own?.cents) card.set(title, t("packet.mine", { sum: money(own.cents) }), { label: money(own.cents), isOff: true, isGold: true });
    else if (state === "scheduled") card.set(title, t("packet.soon", { time: wait(data.open_at_ms, nowMs) }), { label: wait(data.open_at_ms, nowMs), isOff: true });
    else if (state === "open") card.set(title, item.none ?? t("packet.left", { n: number(data.count - data.taken) }), { label: t("packet.grab"), isGold: true, isOff: Boolean(item.none), run: () => act.grab(item) });
    else card.set(title, t(data.taken >= data.count ? "packet.gone" : "packet.over"), null);
    card.node.dataset.id = id;
  }
  return { node: card.node, update };
}

/** A rain: one button for each packet that has fallen. With reduced motion they stand, else they sway. */
export function rainCard(act) {
  const card = actCard("rain", "red", "rain"), drops = el("div.drops", { role: "group", "aria-label": t("rain.drops") });
  const buttons = new Map();
  card.extra.append(drops);
  function update(item, nowMs) {
    const { data, own } = item, isOver = item.overAt !== null, mine = own?.cents ? t("packet.mine", { sum: money(own.cents) }) : "";
    const text = isOver ? t("rain.over") : nowMs < data.start_at_ms ? t("rain.soon", { time: wait(data.start_at_ms, nowMs) }) : t("rain.now", { n: data.fallen ?? 0, of: data.drops });
    const open = (data.shown ?? []).filter((drop) => drop.is_open && !own?.taken?.includes(drop.packet)), next = open[0];
    card.set(data.title || t("rain.title"), [text, mine].filter(Boolean).join(" \u00b7 "), next ? { label: t("packet.grab"), isGold: true, run: () => act.grabDrop(item, next.packet) } : null);
    for (const [packet] of buttons) if (!open.some((drop) => drop.packet === packet)) buttons.delete(packet);
    for (const drop of open) if (!buttons.has(drop.packet)) buttons.set(drop.packet, el("button.drop", { type: "button", "aria-label": t("packet.grab"), onclick: () => act.grabDrop(item, drop.packet) }, t("packet.grab")));
    const wanted = [...buttons.values()];
    if (wanted.length !== drops.childElementCount || wanted.some((node, i) => drops.children[i] !== node)) fill(drops, wanted);
    drops.hidden = !open.length;
  }
  return { node: card.node, update };
}
