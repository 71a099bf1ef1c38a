// Activities: what goes on in a room, of every kind, and how it can be stopped.
import { el } from "../base/dom.js";
import { duration, money, number, t, time } from "../base/strings.js";
import { askButton } from "../parts/ask.js";
import { form } from "../parts/form.js";
import { loading } from "../parts/table.js";
import { toast } from "../parts/toast.js";
import { head, loader, pairs, word } from "./common.js";

/** How each kind is stopped: an operation and its fields. */
const STOPS = {
  sales: (room, id) => ["sales.close", { room, id }], packets: (room, id) => ["packets.cancel", { room, id }], rains: (room, id) => ["rains.cancel", { room, id }],
  polls: (room, id) => ["polls.close", { room, id }], quizzes: (room, id) => ["quizzes.cancel", { room, id }], lotteries: (room, id) => ["lotteries.void", { room, id, reason: "stopped" }],
  countdowns: (room, id) => ["countdowns.stop", { room, id }], coupons: (room, id) => ["coupons.close", { room, id }], pk: (room, id) => ["pk.cancel", { room, id }],
};
const INTERNAL = new Set(["id", "state", "phase", "seed_hash", "eligibility", "bonuses", "commitment", "root", "beacon_round", "grade_count", "first_window_ms", "window_ms", "arrangement", "more", "number"]);
const OVER = new Set(["closed", "settled", "cancelled", "ended", "finished", "voided", "drawn", "revealed", "expired"]);

export function activities({ api, problem, argument: room }) {
  const place = el("div"), load = loader(place, problem), list = el("div.cards", {}, room && loading());
  const find = form([{ name: "room", label: t("col.room"), value: room, max: 64, required: true }], t("a.show"), async ({ room: wanted }) => { location.hash = `#activities/${encodeURIComponent(wanted)}`; if (wanted === room) refresh(); });

  async function refresh() {
    if (!room) return;
    const found = await load(() => api.call("activities.list", { room }));
    if (!found) return;
    list.replaceChildren(...(found.items.length ? found.items.map(view) : [el("p.empty-row", {}, t("a.none"))]));
  }

  function view({ kind, id, data }) {
    const state = data?.state ?? data?.phase, stop = STOPS[kind], rows = [];
    for (const [name, value] of flat(data)) rows.push([word("field", name), shown(name, value)]);
    return el("article.card", {}, el("header", {}, el("h2", {}, word("kind", kind), id && el("span.mono.muted", {}, id)), state !== undefined && el("span.chip", {}, word("state", state))), pairs(rows),
      stop && !OVER.has(state) && el("div.plain-list", {}, askButton(t("a.stop"), t("a.stop-ask"), async () => {
        if (await load(() => api.call(...stop(room, id)))) { toast(t("a.stopped")); refresh(); }
      })));
  }

  refresh();
  const timer = setInterval(refresh, 3000);
  return { nodes: [head("activities", room && el("span.chip.mono", {}, room)), place, el("article.card", {}, find.node), list], close: () => clearInterval(timer) };
}

function shown(name, value) {
  if (name.endsWith("_cents")) return money(value);
  if (/(^|_)at_ms$|^deadline_ms$/.test(name)) return value ? time(value) : "–";
  if (name.endsWith("_ms")) return duration(value / 1000);
  if (typeof value === "number") return number(value);
  return typeof value === "boolean" ? t(value ? "yes" : "no") : value;
}

/** Fields of an activity and of the records in it, without hashes; lists of records by their titles. */
function flat(data) {
  const rows = [];
  for (const [name, value] of Object.entries(data ?? {})) {
    if (value === null || value === "" || INTERNAL.has(name)) continue;
    if (Array.isArray(value)) { if (value.length) rows.push([name, value.map((each) => (typeof each === "object" && each ? each.title ?? each.product?.title ?? each.name ?? each.user ?? each.id ?? "" : each)).join(" · ")]); }
    else if (typeof value === "object") rows.push(...flat(value));
    else rows.push([name, value]);
  }
  return rows.slice(0, 14);
}
