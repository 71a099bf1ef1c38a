// State of the page: loading, live, paused, ended, offline, reconnecting or error; the veil and the chip that say so.
import { $, setText } from "../base/dom.js";
import { announce } from "../base/announce.js";
import { has, t } from "../base/strings.js";

const VEIL_AFTER_MS = 3000, LOADING_AFTER_MS = 500;
const FINAL = new Set(["room_ended", "kicked", "banned", "not_granted", "replaced"]);

export function pageState() {
  const startedAt = performance.now();
  let link = { state: "connecting" }, downAt = null, retryAt = 0, problem = null, left = null, isPassing = false, wasJoined = false, said = "", rtt = null;

  function now(room) {
    if (problem) return "error";
    if (left && left !== "room_ended" && FINAL.has(left)) return "error";
    if (left === "room_ended" || room?.phase === "ended") return "ended";
    if (!navigator.onLine) return "offline";
    if (!wasJoined) return "loading";
    if (link.state !== "open" || !room?.isJoined) return "reconnecting";
    return room.phase === "paused" ? "paused" : "live";
  }

  function draw(room, { likes, isSlow }) {
    const state = now(room), isLate = downAt !== null && performance.now() - downAt > VEIL_AFTER_MS;
    const hasVeil = ["paused", "ended", "offline", "error"].includes(state) || (state === "reconnecting" && isLate) || (state === "loading" && performance.now() - startedAt > LOADING_AFTER_MS);
    document.body.dataset.state = state;
    $("#veil").hidden = !hasVeil;
    if (hasVeil) {
      setText($("#veil-title"), t(state === "error" && isPassing ? "error.busy" : `${state}.title`));
      setText($("#veil-text"), state === "error" ? t("error.text", reasonAndCode()) : t(`${state}.text`, { likes }));
    }
    $("#veil-try").hidden = state === "error" ? isPassing : state !== "ended";
    const [tone, words] = chip(state, isSlow);
    $("#link").className = `chip ${tone}`;
    setText($("#link-word"), words);
    if (state !== said && said && state !== "loading") announce(hasVeil ? $("#veil-title").textContent : words);
    said = state;
    return state;
  }

  function chip(state, isSlow) {
    if (state === "error") return ["bad", t("link.cut")];
    if (state === "offline") return ["warn", t("link.off")];
    if (state === "loading") return ["warn", t("link.connecting")];
    if (state === "reconnecting") return ["warn", t("link.again", { s: Math.max(0, Math.ceil((retryAt - performance.now()) / 1000)) })];
    if (isSlow) return ["warn", t("link.slow")];
    return ["good", rtt === null ? t("link.ok") : `${t("link.ok")} ${Math.round(rtt)} ms`];
  }

  function reasonAndCode() {
    if (left && left !== "room_ended") return { reason: has(`left.${left}`) ? t(`left.${left}`) : left, code: left };
    if (has(`left.${problem.error}`)) return { reason: t(`left.${problem.error}`), code: problem.error };
    const code = problem.code ?? "", isRoom = problem.error === "unknown_room";
    return { reason: isRoom ? t("error.room") : has(`error.${problem.error}`) ? t(`error.${problem.error}`) : code >= 4400 && code < 4600 ? t("error.link") : problem.message || problem.reason || String(problem.error ?? ""), code: problem.error ?? code };
  }

  return {
    draw,
    joined() { wasJoined = true; downAt = null; left = null; problem = null; },
    /** A JOIN was refused; `willRetry`: for now, and the page asks again by itself. */
    fail(error, willRetry) { isPassing = willRetry; if (error.error === "room_ended") left = "room_ended"; else problem = error; },
    get isEnded() { return left === "room_ended"; },
    leave(reason) { left = reason; },
    link(next, rttMs) {
      link = next; rtt = rttMs;
      if (next.retryInMs) retryAt = performance.now() + next.retryInMs;
      if (next.state === "open") downAt = null; else downAt ??= performance.now();
      if (next.state === "closed") { isPassing = false; problem ??= { code: next.code, reason: next.reason }; }
    },
  };
}
