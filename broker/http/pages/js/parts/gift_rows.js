// Gift rows: one a combo, at most two, the dearest stay; a count rises at most twice a second, the row goes 3 s after the last gift.
import { avatar, el, setText } from "../base/dom.js";
import { has, number, t } from "../base/strings.js";

const MOST = 2, STAY_MS = 3200;

export const giftName = (id) => (has(`gift.${id}`) ? t(`gift.${id}`) : id);

export function giftRows(list) {
  const rows = new Map();
  function show({ combo, userId, name, giftId, total, cents }) {
    const key = combo || `${userId} ${giftId} ${Math.random()}`;
    let row = rows.get(key);
    if (!row) {
      if (rows.size >= MOST) {
        const [least] = [...rows].sort((a, b) => a[1].cents - b[1].cents || a[1].at - b[1].at);
        drop(least[0]);
      }
      const count = el("strong.num");
      row = { count, node: el("li", {}, avatar(name), el("span.who", {}, el("b.clip", {}, name), el("small", {}, t("gift.sent", { gift: giftName(giftId) }))), count) };
      rows.set(key, row);
      list.append(row.node);
    }
    Object.assign(row, { cents: cents * total, at: performance.now() });
    setText(row.count, `\u00d7${number(total)}`);
    row.node.classList.toggle("big", row.cents >= 10000);
    clearTimeout(row.timer);
    row.timer = setTimeout(() => drop(key), STAY_MS);
  }
  function drop(key) {
    const row = rows.get(key);
    if (!row) return;
    clearTimeout(row.timer);
    row.node.remove();
    rows.delete(key);
  }
  return { show };
}
