// Entry of the console: log-in, the sections by the address's hash, the event stream. All else is in console/ and parts/.
import { $, el, fill, icon, localise, setText } from "./base/dom.js";
import { has, number, t, use } from "./base/strings.js";
import { announce } from "./base/announce.js";
import { brokerSettings, pageControls } from "./base/settings.js";
import { base } from "../strings/base.js";
import { console as words } from "../strings/console.js";
import { ApiError, makeApi } from "./console/api.js";
import { PAST_S, overview, past } from "./console/overview.js";
import { rooms } from "./console/rooms.js";
import { review } from "./console/review.js";
import { users } from "./console/users.js";
import { activities } from "./console/activities.js";
import { webhooks } from "./console/webhooks.js";
import { keys } from "./console/keys.js";
import { tenants } from "./console/tenants.js";
import { audit } from "./console/audit.js";
import { reports } from "./console/reports.js";
import { config } from "./console/config.js";

use(base, words);
localise();
pageControls();
const settings = brokerSettings();

/** Sections with what shows whether the key may use them: a call, or the stream. */
const SECTIONS = [
  { name: "overview", icon: "gauge", make: overview, probe: null },
  { name: "rooms", icon: "door", make: rooms, probe: ["rooms.list", { limit: 1 }] },
  { name: "review", icon: "inbox", make: review, probe: ["moderation.queue", { limit: 1 }] },
  { name: "users", icon: "users", make: users, probe: ["moderation.list", { limit: 1 }] },
  { name: "activities", icon: "packet", make: activities, probe: null, after: "rooms" },
  { name: "webhooks", icon: "hook", make: webhooks, probe: ["hooks.list", {}] },
  { name: "keys", icon: "key", make: keys, probe: ["broker.api_keys", {}] },
  { name: "tenants", icon: "users", make: tenants, probe: ["broker.tenants", {}] },
  { name: "audit", icon: "list", make: audit, probe: ["moderation.audit", { limit: 1 }] },
  { name: "reports", icon: "doc", make: reports, probe: ["rooms.list", { limit: 1 }] },
  { name: "config", icon: "sliders", make: config, probe: ["broker.config", {}] },
];

let api = null, stream = null, shown = null, allowed = [], lastEvent = null, lastAt = 0;

async function logIn(key) {
  const made = makeApi(key, () => made === api && logOut("problem.AUTH_FAILED"));
  await made.call("rooms.list", { limit: 1 }).catch((error) => { if (error.status === 401 || error.status === 429 || !error.status) throw error; }); // a wrong key asks once
  const probes = await Promise.all(SECTIONS.map(({ probe }) => probe && made.call(...probe).then(() => null, (error) => error)));
  const unknown = probes.find((error) => error && (error.status === 401 || error.status === 0));
  if (unknown) throw unknown;
  api = made;
  allowed = SECTIONS.filter((_, i) => !(isForOthers(probes[i]))).map((each) => each.name);
  allowed = allowed.filter((name) => allowed.includes(SECTIONS.find((each) => each.name === name).after ?? name));
  stream = new AbortController();
  api.follow(`/stats?seconds=${PAST_S}`, stream.signal, onEvent, (state) => {
    onState(state);
    if (state === "refused" && allowed.includes("overview")) { allowed = allowed.filter((name) => name !== "overview"); drawNav(); show(); }
  });
  $("#login").hidden = true;
  $("#page").hidden = false;
  $("#logout").hidden = !key;
  drawNav();
  show();
}

/** Whether a refusal is about the operation itself; one for want of a room's name is not: the section asks for it. */
const isForOthers = (error) => error?.status === 403 && error.code === "NOT_ALLOWED" && error.field !== "room";

/** `why`: a sentence for the log-in form, where the person has not asked for it. */
function logOut(why = "") {
  stream?.abort();
  shown?.close?.();
  api = shown = lastEvent = null;
  allowed = [];
  $("#nav").replaceChildren();
  $("#page").replaceChildren();
  $("#page").hidden = $("#logout").hidden = true;
  $("#stale").hidden = true;
  $("#login").hidden = false;
  onState("cut");
  $("#key").value = "";
  $("#login-error").hidden = !why;
  setText($("#login-error"), why && t(why));
  document.body.classList.remove("stale");
  $("#key").focus();
}

function drawNav() {
  $("#nav").replaceChildren(...SECTIONS.filter(({ name }) => allowed.includes(name)).map(({ name, icon: picture }) =>
    el("a", { href: `#${name}`, "data-key": name }, icon(picture), el("span", {}, t(`nav.${name}`)), el("span.chip.num", { hidden: true }))));
}

function badge(name, count, kind = "") {
  const chip = $(`#nav [data-key="${name}"] .chip`);
  if (!chip) return;
  chip.hidden = !count;
  chip.className = `chip num ${kind}`;
  setText(chip, number(count));
}

// ---- sections: #name, #name/argument or #users/user/room

const nameOf = (text) => { try { return decodeURIComponent(text); } catch { return ""; } };

function show() {
  if (!api) return;
  const [wanted, ...rest] = location.hash.slice(1).split("/");
  const name = allowed.includes(wanted) ? wanted : allowed[0];
  const section = SECTIONS.find((each) => each.name === name), names = rest.map(nameOf);
  shown?.close?.();
  shown = null;
  for (const link of $("#nav").children) {
    if (link.dataset.key === name) { link.setAttribute("aria-current", "page"); link.scrollIntoView({ block: "nearest", inline: "center" }); } else link.removeAttribute("aria-current");
  }
  document.title = `roomcast · ${t(`nav.${name}`)}`;
  if (!section) return;
  shown = section.make({ api, settings, argument: names[0] ?? "", room: names[1] ?? "", problem, badge, allowed });
  fill($("#page"), ...shown.nodes);
  if (lastEvent) shown.update?.(lastEvent);
  announce(t(`nav.${name}`));
}

/** A line that says what went wrong, for a section to show; known codes in words. */
function problem(error, retry = null) {
  const code = error instanceof ApiError ? error.code : "INTERNAL_ERROR";
  const text = has(`problem.${code}`) ? t(`problem.${code}`) : `${error.title || t("problem.other")} · ${code}`;
  const detail = [error.field, error.message].filter(Boolean).join(": ");
  return el("div.problem", { role: "alert" }, el("b", {}, text), detail && el("span", {}, detail), retry && el("button.btn", { type: "button", onclick: retry }, t("retry")));
}

// ---- the event stream

function onEvent(event, name) {
  if (name === "history") { past(event); return; }
  lastEvent = event;
  lastAt = performance.now();
  badge("review", event.review_messages?.waiting ?? 0, "warn");
  badge("webhooks", event.hooks?.dead ?? 0, "warn");
  shown?.update?.(event);
}

function onState(state) {
  const chip = $("#link");
  chip.className = `chip ${state === "live" ? "good" : "warn"}`;
  chip.hidden = state === "refused";
  setText($("#link-text"), t(state === "live" ? "link.ok" : "link.cut"));
}

setInterval(() => {
  const age = lastEvent ? Math.round((performance.now() - lastAt) / 1000) : 0;
  const isStale = Boolean(api) && age > 3;
  document.body.classList.toggle("stale", isStale);
  const draining = lastEvent?.status === "draining";
  $("#stale").hidden = !isStale && !draining;
  if (isStale) setText($("#stale"), t("stale", { s: age }));
  else if (draining) setText($("#stale"), t("draining"));
}, 1000);

$("#login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const error = $("#login-error");
  error.hidden = true;
  try { await logIn($("#key").value.trim()); $("#key").value = ""; } catch (problem) {
    error.textContent = t(problem.status === 401 ? "login.wrong" : problem.status === 429 ? "problem.RATE_LIMITED" : "problem.UNREACHABLE");
    error.hidden = false;
    $("#key").focus();
  }
});
$("#logout").addEventListener("click", () => logOut());
addEventListener("hashchange", show);
addEventListener("resize", () => lastEvent && shown?.update?.(lastEvent, true));
addEventListener("themechange", () => lastEvent && shown?.update?.(lastEvent, true));
addEventListener("languagechange", (event) => { event.detail.hash = location.hash; });

$("#development").hidden = !settings.development;
if (settings.development) logIn("").catch((error) => { $("#login").hidden = false; setText($("#login-error"), t(error.status === 0 ? "problem.UNREACHABLE" : "problem.other")); $("#login-error").hidden = false; });
else { $("#login").hidden = false; $("#key").focus(); }
