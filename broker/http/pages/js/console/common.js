// What several sections of the console share.
import { el, setText } from "../base/dom.js";
import { has, t } from "../base/strings.js";

export const phaseChip = (phase) => el(`span.chip.${{ live: "good", paused: "warn" }[phase] ?? "plain"}`, {}, el("i.dot", { "aria-hidden": "true" }), word("phase", phase));

/** A word of the broker's in the page's language, or as it is. */
export const word = (subject, value) => (has(`${subject}.${value}`) ? t(`${subject}.${value}`) : String(value).replace(/_(ms|cents)$/, "").replaceAll("_", " "));

export const head = (name, ...more) => el("header.head", {}, el("h1", {}, t(`nav.${name}`)), ...more);
export const card = (title, ...children) => el("article.card", {}, el("header", {}, el("h2", {}, title)), ...children);
export const button = (label, run, kind = "") => el(`button.btn${kind && `.${kind}`}`, { type: "button", onclick: run }, label);

/** Text of a message whatever its type: its first text, else its payload as it is. */
export function textOf(payload) {
  if (typeof payload === "string") return payload;
  if (Array.isArray(payload) && typeof payload[0] === "string") return payload[0];
  return JSON.stringify(payload);
}

/** Runs a load, and shows what went wrong in `place`; only the last of several counts. A list that was never read says so. */
export function loader(place, problem) {
  let turn = 0;
  return async function load(work) {
    const mine = ++turn;
    try {
      const found = await work();
      if (mine === turn) place.replaceChildren();
      return mine === turn ? found : null;
    } catch (error) {
      if (mine === turn) {
        place.replaceChildren(problem(error, () => load(work)));
        for (const list of place.parentNode?.querySelectorAll(".loading") ?? []) setText(list, t("not-read"));
      }
      return null;
    }
  };
}

/** Pairs of a name and a value as a list. */
export const pairs = (rows) => el("dl.pairs", {}, rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
