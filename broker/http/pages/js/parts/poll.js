// Polls and questions of a quiz: bars that are the buttons. On a phone the card opens them in a sheet.
import { el, fill } from "../base/dom.js";
import { duration, money, number, t } from "../base/strings.js";
import { shares, stateOf } from "../room/view.js";
import { actCard } from "./act_card.js";

/** `choose(index)`: a press on an option. Returns {node, update(poll, own, canChoose)}; bars are drawn anew only where options differ. */
function bars(choose) {
  const node = el("div.votes", { role: "group" });
  let drawn = "", buttons = [];
  function update(poll, chosen, canChoose, right = null) {
    const { options, title } = poll.terms, key = JSON.stringify(options);
    if (key !== drawn) {
      drawn = key;
      node.setAttribute("aria-label", title);
      buttons = options.map((option, i) => { const share = el("span.num"), button = el("button", { type: "button", onclick: () => choose(i) }, el("span.clip", {}, option), share); button.share = share; return button; });
      fill(node, buttons);
    }
    const parts = shares(poll), isKnown = poll.counts?.some((n) => n > 0);
    buttons.forEach((button, i) => {
      const percent = Math.round((parts[i] ?? 0) / 10);
      button.style.setProperty("--v", `${isKnown ? percent : 0}%`);
      button.share.textContent = isKnown ? `${percent}%` : "";
      button.setAttribute("aria-pressed", String(chosen.includes(i)));
      button.disabled = !canChoose;
      button.classList.toggle("right", right === i);
      button.classList.toggle("wrong", right !== null && right !== i && chosen.includes(i));
    });
  }
  return { node, update };
}

const left = (endMs, nowMs) => (endMs ? duration(Math.ceil(Math.max(0, endMs - nowMs) / 1000)) : "");

/** `act`: {vote(item, index), openSheet(title, node, onClose)}. */
export function pollCard(act) {
  const card = actCard("poll", "blue", "poll");
  let item = null;
  const inline = bars((i) => act.vote(item, i));
  card.extra.append(inline.node);
  function update(next, nowMs) {
    item = next;
    const { data, own } = item, state = stateOf(item), chosen = own?.options ?? [];
    const canVote = state === "open" && (!chosen.length || data.terms.changeable);
    const text = [t("poll.voters", { n: number(data.voters ?? 0) }), state === "open" ? left(data.terms.close_at_ms, nowMs) : t("poll.closed")].filter(Boolean).join(" \u00b7 ");
    card.set(data.terms.title, text, { label: t(canVote ? "poll.vote" : "poll.look"), run: () => act.openSheet(data.terms.title, inline.node, () => card.extra.append(inline.node)) });
    inline.update(data, chosen, canVote, data.answer?.option ?? null);
  }
  return { node: card.node, update };
}

/** `act.answer(item, index)`. */
export function quizCard(act) {
  const card = actCard("poll", "violet", "quiz");
  let item = null;
  const inline = bars((i) => act.answer(item, i)), question = el("p.question");
  card.extra.append(question, inline.node);
  function update(next, nowMs) {
    item = next;
    const { data, own } = item, asked = data.question, isMine = own?.number === data.number, chosen = isMine && own.answer !== null && own.answer !== undefined ? [own.answer] : [];
    const isOut = own?.plays === false, prize = data.prize_cents ? t("quiz.prize", { sum: money(data.prize_cents) }) : "";
    const open = asked?.state === "open" || asked?.state === "OPEN", canAnswer = Boolean(open && !chosen.length && !isOut);
    const text = item.overAt !== null ? (data.end ? t("quiz.end", { n: number(data.end.survivors), sum: money(data.end.each_cents) }) : t("quiz.cancelled"))
      : [asked ? t("quiz.number", { n: data.number }) : t("quiz.soon"), open ? left(asked.terms.close_at_ms, nowMs) : "", isOut ? t("quiz.out") : "", prize].filter(Boolean).join(" \u00b7 ");
    const all = el("div");
    card.set(data.title || t("quiz.title"), text, asked ? { label: t(canAnswer ? "quiz.answer" : "poll.look"), run: () => { all.append(question, inline.node); act.openSheet(data.title, all, () => card.extra.append(question, inline.node)); } } : null);
    question.hidden = inline.node.hidden = !asked;
    if (!asked) return;
    question.textContent = asked.terms.title;
    inline.update(asked, chosen, canAnswer, asked.answer?.option ?? null);
  }
  return { node: card.node, update };
}
