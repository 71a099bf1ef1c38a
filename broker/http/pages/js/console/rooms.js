// Rooms: the list, filtered by the broker, and one room with its numbers, members and what may be done with it.
import { compact, dateTime, number, t } from "../base/strings.js";
import { SafeUrl, el, fill } from "../base/dom.js";
import { table } from "../parts/table.js";
import { askButton } from "../parts/ask.js";
import { toast } from "../parts/toast.js";
import { button, card, head, loader, pairs, phaseChip, word } from "./common.js";

export const rooms = (context) => (context.argument ? detail(context) : list(context));

function list({ api, problem }) {
  const place = el("div"), load = loader(place, problem), count = el("span.chip.num");
  const find = el("input.field", { type: "search", placeholder: "live-*", autocomplete: "off", "aria-label": t("rooms.find"), oninput: () => { clearTimeout(timer); timer = setTimeout(refresh, 250); } });
  const more = button(t("more"), () => page(), "quiet");
  let timer = 0, cursor = null, shown = [];
  const rows = table([
    { label: t("col.room"), cell: (r) => el("a.mono", { href: `#rooms/${encodeURIComponent(r.room)}` }, r.room) },
    { label: t("col.title"), cell: (r) => r.title || "–" },
    { label: t("col.phase"), cell: (r) => phaseChip(r.phase) },
    { label: t("col.online"), right: true, cell: (r) => number(r.online) },
    { label: t("col.peak"), right: true, cell: (r) => number(r.peak) },
    { label: t("col.likes"), right: true, cell: (r) => compact(r.likes) },
  ], { empty: t("rooms.none"), label: t("nav.rooms") });

  async function page() {
    const text = find.value.trim(), pattern = !text ? "*" : text.endsWith("*") ? text : `${text}*`;
    const found = await load(() => api.call("rooms.list", { pattern, limit: 100, sort: text ? "name" : "online", cursor }));
    if (!found) return;
    cursor = found.next;
    shown = [...shown, ...found.items];
    rows.show(shown);
    count.textContent = `${number(shown.length)}${cursor ? "+" : ""}`;
    more.hidden = !cursor;
  }
  const refresh = () => { cursor = null; shown = []; return page(); };
  refresh();
  return { nodes: [head("rooms", count, el("span.grow"), el("label.find", {}, find)), place, el("article.card", {}, rows.node), more] };
}

function detail({ api, problem, settings, argument: room }) {
  const place = el("div"), load = loader(place, problem), facts = el("div"), lanes = el("div"), actions = el("div.row.wrap.plain-list"), phase = el("span");
  const members = table([
    { label: t("col.user"), cell: (m) => el("a", { href: `#users/${encodeURIComponent(m.user)}` }, m.user) }, { label: t("col.name"), cell: (m) => m.name },
    { label: t("col.role"), cell: (m) => word("role", m.role) }, { label: t("col.links"), right: true, cell: (m) => number(m.links) },
    { label: t("col.since"), right: true, cell: (m) => dateTime(m.joined_at_ms) },
  ], { empty: t("rooms.no-members"), label: t("rooms.members") });
  let timer = 0;

  async function refresh() {
    const found = await load(() => Promise.all([api.call("rooms.get", { room }), api.call("rooms.stats", { room, window_s: 60 }), api.call("rooms.members", { room, limit: 100 })]));
    if (!found) return;
    const [view, stats, page] = found;
    phase.replaceChildren(phaseChip(view.phase));
    facts.replaceChildren(pairs([
      [t("col.title"), view.title || "–"], [t("col.online"), `${number(view.online)} · ${t("rooms.peak", { n: number(view.peak) })}`], [t("rooms.uniques"), number(view.uniques)],
      [t("col.likes"), number(view.likes)], [t("rooms.rate"), `${stats.rates?.messages_per_s ?? 0} /s`], [t("rooms.tick"), `${view.tick_ms} ms`], [t("rooms.offset"), number(view.last_offset)], [t("rooms.opened"), dateTime(view.opened_at_ms)], [t("rooms.tags"), view.tags.join(", ") || "–"],
    ]));
    lanes.replaceChildren(laneTable(stats.lanes));
    members.show(page.items);
    draw(view.phase);
  }

  function draw(now) {
    const set = (phase) => async () => { if (await load(() => api.call("rooms.set_phase", { room, phase }))) { toast(t(`rooms.now-${phase}`)); refresh(); } };
    fill(actions,
      ...(now === "live" ? [button(t("rooms.pause"), set("paused"))] : now === "paused" ? [button(t("rooms.resume"), set("live"))] : []),
      ...(now === "ended" ? [] : [askButton(t("rooms.end"), t("rooms.end-ask"), async () => { if (await load(() => api.call("rooms.close", { room }))) { toast(t("rooms.now-ended")); refresh(); } })]),
      el("a.btn.quiet", { href: `#activities/${encodeURIComponent(room)}` }, t("nav.activities")), el("a.btn.quiet", { href: `#reports/${encodeURIComponent(room)}` }, t("nav.reports")),
      settings.viewers && el("a.btn.quiet", { href: new SafeUrl(`${settings.viewers}/room/${encodeURIComponent(room)}`), target: "_blank", rel: "noopener noreferrer" }, t("rooms.open")),
    );
  }
  refresh();
  timer = setInterval(refresh, 3000);
  return {
    nodes: [el("header.head", {}, el("a", { href: "#rooms" }, t("nav.rooms")), el("h1.mono", {}, room), phase), place,
      el("div.two", {}, card(t("rooms.lanes"), lanes), card(t("rooms.facts"), facts, actions)), card(t("rooms.members"), members.node)],
    close: () => clearInterval(timer),
  };
}

function laneTable(lanes) {
  const columns = ["admitted", "shown", "merged", "sampled", "expired", "held"];
  const rows = table([
    { label: t("col.lane"), cell: ([lane]) => t(`lane.${lane}`) },
    ...columns.map((name) => ({ label: t(`account.${name}`), right: true, cell: ([, account]) => number(account[name] ?? 0) })),
  ], { label: t("rooms.lanes") });
  rows.show(Object.entries(lanes));
  return rows.node;
}
