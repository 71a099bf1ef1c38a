// The account: how many danmaku were admitted, and where each of them went. The sum holds, or the page says so.
import { el, setText } from "../base/dom.js";
import { number, t } from "../base/strings.js";

const PARTS = ["shown", "merged", "sampled", "expired", "held"];

export function account(list, line) {
  const cells = new Map();
  for (const key of ["admitted", ...PARTS, "room", "missed"]) {
    const cell = el("dd.num", {}, "0");
    cells.set(key, cell);
    list.append(el(key === "admitted" || key === "room" ? "dt.first" : "dt", {}, t(`account.${key}`)), cell);
  }
  setText(line, t("account.line", { in: 0, out: 0 }));
  /** `sums`: of the room's ticks; `noRoom`: had no lane on this screen; `missed`: a slow link left them out. */
  function update(sums, { noRoom, missed, perSecond, flew }) {
    for (const key of ["admitted", ...PARTS]) setText(cells.get(key), number(sums[key]));
    setText(cells.get("room"), number(noRoom));
    setText(cells.get("missed"), number(missed));
    setText(line, t("account.line", { in: number(perSecond), out: number(flew) }));
    list.dataset.balanced = String(PARTS.reduce((sum, key) => sum + sums[key], 0) === sums.admitted);
  }
  return { update };
}
