// Composer: the field, what became of what was sent, slow mode and mutes. It never loses a typed text that was not sent.
import { announce } from "../base/announce.js";
import { has, number, t, time } from "../base/strings.js";

const MAX = 100;
const FLOWN = new Set(["accepted", "merged", "masked", "sampled_out", "expired"]);

/** What became of a message, in words. */
export function fateOf({ outcome, error, reason, retryAfterMs, sent }, merged = 0) {
  if (outcome === null) return t(sent ? "fate.unknown" : "fate.not-sent");
  if (outcome === "merged" && merged > 1) return t("fate.merged-n", { n: number(merged - 1) });
  if (outcome === "limited" || error === "slow_mode") return t("fate.limited", { s: Math.ceil(retryAfterMs / 1000) });
  if (outcome === "rejected") return t("fate.rejected", { reason: reasonOf(error, reason) });
  return t(`fate.${outcome}`);
}
export const reasonOf = (error, reason = "") => {
  const key = `error.${error}`, words = has(key) ? t(key) : error;
  return reason && reason !== words ? `${words} (${reason})` : words;
};

/** `act`: {say(text) -> result, shown(text, own line), line(text) -> node, fate(node, text, isBad)}. */
export function composer(form, field, notice, act) {
  let waitUntil = 0, mute = null, closed = "", timer = 0;
  const submit = async (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text) { field.focus(); return; }
    if ([...text].length > MAX) { show(t("say.long", { n: MAX })); return; }
    if (Date.now() < waitUntil) { show(t("fate.limited", { s: Math.ceil((waitUntil - Date.now()) / 1000) })); return; }
    field.value = "";
    const node = act.line(text), result = await act.say(text);
    act.fate(node, result);
    const isFlown = FLOWN.has(result.outcome);
    if (isFlown) act.shown(text);
    if (result.outcome !== "accepted") announce(fateOf(result));
    const isWait = result.outcome === "limited" || result.error === "slow_mode";
    if (isWait && result.retryAfterMs) waitUntil = Date.now() + result.retryAfterMs;
    if ((isWait || result.outcome === null || result.outcome === "unavailable") && !field.value) field.value = text;
    draw();
  };
  function show(text) { notice.hidden = !text; if (notice.textContent !== text) notice.textContent = text; document.body.classList.toggle("noticed", Boolean(text)); }
  function draw() {
    const left = waitUntil - Date.now();
    clearTimeout(timer);
    field.disabled = Boolean(mute || closed);
    if (mute) show(mute.until_ms ? t("muted.until", { time: time(mute.until_ms), reason: mute.reason || t("muted.no-reason") }) : t("muted.ever", { reason: mute.reason || t("muted.no-reason") }));
    else if (left > 0) { show(t("fate.limited", { s: Math.ceil(left / 1000) })); timer = setTimeout(draw, 250); }
    else show("");
    if (mute?.until_ms) timer = setTimeout(() => { mute = null; draw(); }, Math.min(Math.max(0, mute.until_ms - Date.now()), 2 ** 30));
  }
  form.addEventListener("submit", submit);
  return {
    setMute(next) { const isNew = next && !mute; mute = next; draw(); return isNew; },
    setClosed(reason) { if (closed !== reason) { closed = reason; draw(); } },
    reply(name) { field.value = `@${name} ${field.value}`.slice(0, MAX); field.focus(); },
    focus: () => field.focus(),
  };
}
