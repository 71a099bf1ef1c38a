// Lotteries: enter, wait for the draw, and check it in this page.
import { el, fill } from "../base/dom.js";
import { duration, number, t } from "../base/strings.js";
import { check } from "../room/proof.js";
import { stateOf } from "../room/view.js";
import { actCard } from "./act_card.js";

/** `act`: {enter(item), verify(item)}. */
export function lotteryCard(act) {
  const card = actCard("lottery", "violet", "dice");
  function update(item, nowMs) {
    const { data, own } = item, phase = stateOf(item), until = (ms) => duration(Math.ceil(Math.max(0, ms - nowMs) / 1000));
    const prizes = (data.grades ?? []).map(({ name, count }) => `${name} \u00d7${count}`).join(", "), title = t("lottery.title", { prizes });
    const entries = t("lottery.entries", { n: number(data.entries ?? 0) });
    if (phase === "announced") card.set(title, t("lottery.soon", { time: until(data.open_at_ms) }), { label: until(data.open_at_ms), isOff: true });
    else if (phase === "open") card.set(title, [entries, t("lottery.draw-in", { time: until(data.close_at_ms) }), data.keyword && t("lottery.keyword", { word: data.keyword })].filter(Boolean).join(" \u00b7 "), own?.entry ? { label: t("lottery.entered"), isOff: true } : { label: t("lottery.enter"), isGold: true, run: () => act.enter(item) });
    else if (phase === "closed") card.set(title, `${entries} \u00b7 ${t("lottery.drawing")}`, null);
    else if (phase === "drawn") card.set(title, own?.prize ? t("lottery.won", { prize: own.prize }) : own?.entry ? t("lottery.lost") : data.winner_count === undefined ? t("lottery.drawn") : t("lottery.over", { n: number(data.winner_count) }), { label: t("lottery.verify"), run: () => act.verify(item) });
    else card.set(title, t("lottery.voided", { reason: data.reason ?? "" }), null);
  }
  return { node: card.node, update };
}

/** Returns what to show of a proof: four steps with their values, each right or wrong. `mine`: one's own entry, if any. */
export async function proofView(proof, seen, mine) {
  const list = el("ol.proof");
  if (!globalThis.crypto?.subtle) { list.append(el("li.bad", {}, t("proof.no-crypto"))); return { node: list, isRight: null }; }
  const steps = await check(proof, seen);
  const row = (mark, name, value, tone) => el(`li.${tone}`, {}, el("b", {}, `${mark} ${name}`), el("span.mono", {}, String(value)));
  fill(list, steps.map(({ name, isRight, value }) => row(isRight === null ? "\u2013" : isRight ? "\u2713" : "\u2717", t(`proof.${name}`), value, isRight === null ? "open" : isRight ? "good" : "bad")));
  if (mine?.entry) {
    const isIn = proof.entries.some(([id]) => id === mine.entry);
    list.append(row(isIn ? "\u2713" : "\u2717", t("proof.mine"), mine.entry, isIn ? "good" : "bad"));
  }
  const isRight = steps.every((step) => step.isRight !== false);
  list.append(el("li.sum", { role: "status" }, isRight ? t("proof.right", { n: number(proof.entries.length) }) : t("proof.wrong", { step: steps.filter((step) => step.isRight === false).map(({ name }) => t(`proof.${name}`)).join(", ") })));
  return { node: list, isRight };
}
