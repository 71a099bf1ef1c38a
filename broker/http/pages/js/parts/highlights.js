// Paid messages over the picture: the dearest first, until their time is over.
import { avatar, el, fill } from "../base/dom.js";
import { money } from "../base/strings.js";

const SHOWN = 2, KEPT = 50;

export function highlights(list) {
  let items = [];
  function draw(nowMs) {
    items = items.filter(({ until_ms: until }) => until > nowMs).sort((a, b) => b.tier - a.tier || a.offset - b.offset).slice(0, KEPT);
    const shown = items.slice(0, SHOWN), key = shown.map(({ offset }) => offset).join(" ");
    if (list.dataset.shown === key) return;
    list.dataset.shown = key;
    fill(list, shown.map(({ name, user, text, cents, tier }) => el(`li.tier-${Math.min(6, Math.max(1, tier))}`, {}, avatar(name || user), el("span.grow", {}, el("b", {}, name || user), " ", el("span.num", {}, money(cents)), el("bdi.clip", {}, text)))));
  }
  return {
    add(item, nowMs) { items = [...items.filter(({ offset }) => offset !== item.offset), item]; draw(nowMs); },
    reset(activities, nowMs) { items = [...activities.values()].filter(({ kind }) => kind === "highlights").flatMap(({ data }) => data.highlights ?? []); draw(nowMs); },
    remove(isGone) { items = items.filter((each) => !isGone(each)); draw(0); },
    tick: draw,
  };
}
