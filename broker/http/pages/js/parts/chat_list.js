// Chat list: lines join at a pace that can be read; reading upwards stops it. One's own newest line stays last for four seconds.
import { $, el } from "../base/dom.js";
import { number, t } from "../base/strings.js";

const KEPT = 120, HOLD_MS = 4000, STAFF = new Set(["host", "assistant"]);

/** The line of a message of a tick, null where it is none of chat: danmaku as they are, emotes by their name. */
export function lineOf({ type, userId, name, payload, count, role }) {
  if (type !== "danmaku" && type !== "emote") return null;
  const text = payload && typeof payload === "object" ? payload.text ?? payload.emote_id ?? "" : "";
  return { userId, name: name || userId, text, count, kind: STAFF.has(role) ? "host" : count > 1 ? "merged" : "plain" };
}

/** `pace`: lines of others a second; `open(line)`: what a press on a line does. */
export function chatList(list, newer, { pace, open }) {
  let following = true, budget = pace, isFirst = true;
  function append(node) {
    const held = node.classList.contains("own") ? null : $(".hold", list);
    $(".empty", list)?.remove();
    if (held) held.before(node); else list.append(node);
    while (list.childElementCount > KEPT) list.firstElementChild.remove();
    if (following) list.scrollTop = list.scrollHeight; else newer.hidden = false;
    return node;
  }
  /** Adds a line {userId, name, text, count, kind, own, event}; null where there are too many for this second. */
  function add(line) {
    const { name, text, count = 1, kind = "plain", own = false, event = false } = line;
    if (kind === "plain" && !own && !event) { if (budget <= 0) return null; budget -= 1; }
    const node = el(`li${own ? ".own" : ""}${event ? ".event" : ""}`, {}, el(kind === "host" ? "span.by.host-by" : "span.by", {}, own ? t("me") : name),
      el("bdi", {}, text), count > 1 && el("span.times", {}, `\u00d7${number(count)}`));
    node.line = line;
    append(node);
    if (isFirst && !own && !event) { isFirst = false; performance.mark("first-danmaku"); }
    if (own) { node.classList.add("hold"); setTimeout(() => node.classList.remove("hold"), HOLD_MS); }
    return node;
  }
  /** Puts what became of one's own line under it. */
  function fate(node, text, isBad = false) {
    let line = $(".fate", node);
    if (!line) { line = el("span.fate"); node.append(line); }
    line.textContent = text;
    line.classList.toggle("bad", isBad);
    if (following) list.scrollTop = list.scrollHeight;
  }
  const note = (text) => append(el("li.note", {}, text));
  const empty = (text) => { if (!list.childElementCount) list.append(el("li.note.empty", {}, text)); };
  const remove = (isGone) => { for (const node of [...list.children]) if (node.line && isGone(node.line)) node.remove(); };
  list.addEventListener("scroll", () => { following = list.scrollHeight - list.scrollTop - list.clientHeight < 24; if (following) newer.hidden = true; });
  list.addEventListener("click", ({ target }) => { const { line } = target.closest("li") ?? {}; if (line && !line.own && line.userId) open(line); });
  newer.addEventListener("click", () => { following = true; newer.hidden = true; list.scrollTop = list.scrollHeight; });
  setInterval(() => { budget = pace; }, 1000);
  return { add, fate, note, empty, remove, clear: () => list.replaceChildren() };
}
