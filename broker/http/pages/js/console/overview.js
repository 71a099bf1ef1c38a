// Overview: is it well, and what was left out and why. All of it from the event stream.
import { el, icon, setText } from "../base/dom.js";
import { compact, decimal, duration, number, t } from "../base/strings.js";
import { spark } from "../charts/spark.js";
import { chartText, lines } from "../charts/lines.js";
import { chartTable } from "../parts/chart_table.js";
import { table } from "../parts/table.js";
import { phaseChip } from "./common.js";

const SECONDS = 60;
/** How much of the past is kept, and asked for when the stream begins. */
export const PAST_S = 900;
const LANES = ["chat", "ambient", "paid", "commerce", "control"];
const DASHES = { ambient: [6, 3], commerce: [2, 3] };
const sum = (object) => Object.values(object ?? {}).reduce((a, b) => a + b, 0);

/** Events of the last quarter of an hour, also while another section is shown: the module keeps them. */
let history = [];
export function remember(event) {
  if (history.at(-1)?.at_ms >= event.at_ms) return;
  history.push(event);
  if (history.length > PAST_S + 1) history.shift();
}

/** Takes what the broker has kept, columns of numbers by name ("table.label" of a table), in place of what was here. */
export function past(columns) {
  const names = Object.entries(columns).map(([name, values]) => [...name.split("."), values].slice(-3));
  history = columns.at_ms.map((_, i) => {
    const event = {};
    for (const parts of names) {
      const value = parts.at(-1)[i];
      if (parts.length === 2) event[parts[0]] = value; else (event[parts[0]] ??= {})[parts[1]] = value;
    }
    return event;
  });
}

/** The newest events of so many seconds; a broker of very many rooms keeps fewer than one a second. */
const last = (seconds) => { const from = history.at(-1)?.at_ms - seconds * 1000 - 500; return history.filter((event) => event.at_ms >= from); };
/** Differences of a counter between neighbouring events, a second each. */
const rates = (read, seconds = SECONDS) => {
  const events = last(seconds);
  return events.slice(1).map((event, i) => Math.max(0, read(event) - read(events[i])) / Math.max(0.2, (event.at_ms - events[i].at_ms) / 1000));
};
const lately = (read) => { const events = last(SECONDS); return events.length ? read(events.at(-1)) - read(events[0]) : 0; };

export function overview() {
  const status = el("span.chip"), about = el("span.chip.num");
  const tiles = [
    tile("connections", (e) => e.connections, compact), tile("rooms", (e) => e.rooms, number),
    tile("in", null, compact, (e) => sum(e.messages_admitted_total)), tile("out", null, compact, (e) => e.fanout_deliveries_total),
    tile("p99", (e) => e.publish_ms.p99 ?? 0, (v) => decimal(v, 1), null, "ms"), tile("memory", (e) => e.memory_bytes / 2 ** 20, number, null, "MiB"),
  ];
  const chart = el("canvas.chart", { role: "img" });
  const legend = el("ul.legend", {}, LANES.map((lane) => {
    const dot = el("i.dot");
    dot.style.setProperty("--c", `var(--lane-${lane})`);
    return el("li", {}, dot, t(`lane.${lane}`));
  }));
  const asTable = chartTable(t("c.lanes"));
  const drops = el("ul.drops"), health = el("dl.health");
  const top = table([
    { label: t("col.room"), cell: (r) => el("a.mono", { href: `#rooms/${encodeURIComponent(r.room)}` }, r.room) },
    { label: t("col.phase"), cell: (r) => phaseChip(r.phase) },
    { label: t("col.online"), right: true, cell: (r) => number(r.online) },
    { label: t("col.in"), right: true, cell: (r) => number(r.messages_per_s) },
    { label: t("col.merged"), right: true, cell: (r) => share(r.merged, r.admitted) },
    { label: t("col.sampled"), right: true, cell: (r) => share(r.sampled, r.admitted) },
    { label: t("col.likes"), right: true, cell: (r) => compact(r.likes) },
  ], { empty: t("rooms.nobody"), label: t("c.top") });
  let drawnAt = 0, seconds = SECONDS;
  const ranges = el("div.row", { role: "group", "aria-label": t("c.range") }, [SECONDS, PAST_S].map((s) => el("button.btn.quiet", { type: "button", "aria-pressed": String(s === seconds), "data-s": s, onclick: () => range(s) }, t(`c.range-${s}`))));
  function range(s) {
    seconds = s;
    for (const node of ranges.children) node.setAttribute("aria-pressed", String(Number(node.dataset.s) === s));
    if (history.length) drawLanes();
  }

  function drawLanes() {
    const shown = last(seconds), span = shown.length ? Math.round((shown.at(-1).at_ms - shown[0].at_ms) / 1000) : 0;
    const series = LANES.map((lane) => ({ name: t(`lane.${lane}`), token: `--lane-${lane}`, dash: DASHES[lane], data: rates((e) => e.messages_admitted_total[lane] ?? 0, seconds) }));
    lines(chart, series, { span: `-${duration(span)}`, now: t("now") });
    asTable.update(series);
    chart.setAttribute("aria-label", `${t("c.lanes")}: ${chartText(series)}`);
  }

  function update(event, again = false) {
    remember(event);
    setText(about, `v${event.version} · pid ${event.pid} · ${duration(event.uptime_ms / 1000)}`);
    const toLookAt = drawHealth(event);
    status.className = `chip ${toLookAt ? "warn" : "good"}`;
    status.replaceChildren(el("i.dot"), t(toLookAt ? "h.warn" : "h.well", { n: toLookAt }));
    for (const each of tiles) each.draw(event);
    drawLanes();
    drawDrops();
    if (again || performance.now() - drawnAt > 2000) { top.show(event.top); drawnAt = performance.now(); }
  }

  function drawDrops() {
    const of = (name) => lately((e) => sum(e[name]));
    const kept = ["paid", "commerce"];
    const lost = lately((e) => kept.reduce((all, lane) => all + (e.messages_sampled_total[lane] ?? 0) + (e.messages_expired_total[lane] ?? 0), 0));
    const rows = [
      ["merged", of("messages_merged_total")], ["sampled", of("messages_sampled_total")], ["limited", of("posts_refused_total")],
      ["expired", of("messages_expired_total")], ["slow", lately((e) => e.missed_chat_total)],
    ];
    const most = Math.max(1, ...rows.map(([, n]) => n));
    drops.replaceChildren(...rows.map(([name, n]) => {
      const meter = el("div.meter", { "aria-hidden": "true" }, el("i"));
      meter.style.setProperty("--v", `${(n / most) * 100}%`);
      meter.style.setProperty("--c", name === "merged" ? "var(--lane-commerce)" : "var(--text-3)");
      return el("li", {}, el("span", {}, t(`drop.${name}`)), el("b", {}, number(n)), meter);
    }), el(lost ? "li.none.lost" : "li.none", {}, icon(lost ? "x" : "check", true), t("drop.none", { n: number(lost) })));
  }

  function drawHealth(event) {
    const stage = event.overload_stage, commits = lately((e) => e.ledger_commits_total);
    const commitMs = commits ? (lately((e) => e.ledger_commit_seconds_total) / commits) * 1000 : null;
    const hooks = event.hooks, slow = lately((e) => e.loop_slow_steps_total);
    const rows = [
      row("stage", `${stage} · ${t(`stage.${stage}`)}`, stage > 0, stages(stage)),
      row("status", event.reason || t(`status.${event.status}`), event.status !== "ok"),
      row("tick", event.tick_ms ? `${decimal(event.tick_ms, 0)} ms` : t("h.quiet"), false),
      row("ledger", event.keeps ? (commitMs === null ? t("h.quiet") : `${decimal(commitMs, 1)} ms`) : t("h.keeps-nothing"), event.keeps && !event.ledger_ready),
      row("loop", t("h.steps", { n: number(slow) }), slow > 10),
      hooks && row("hooks", hooks.dead || hooks.waiting ? t("h.backlog", { n: number(hooks.waiting), dead: number(hooks.dead) }) : "0", hooks.dead > 0 || hooks.open > 0),
      row("review", event.review_messages.waiting ? t("h.waiting", { n: number(event.review_messages.waiting), s: number(event.review_oldest_age_seconds) }) : "0", event.review_oldest_age_seconds > 60),
    ].filter(Boolean);
    health.replaceChildren(...rows.map((each) => each.node));
    return rows.filter((each) => each.warns).length;
  }

  const nodes = [
    el("header.head", {}, el("h1", {}, t("nav.overview")), about, el("span.grow"), status),
    el("div.tiles", {}, tiles.map((each) => each.node)),
    el("div.two", {},
      el("article.card", {}, el("header", {}, el("h2", {}, t("c.lanes")), ranges), el("div.body", {}, chart, legend, asTable.node)),
      el("article.card", {}, el("header", {}, el("h2", {}, t("c.drops")), el("span.muted.num", {}, "60 s")), drops)),
    el("div.two.wide", {},
      el("article.card", {}, el("header", {}, el("h2", {}, t("c.top")), el("a", { href: "#rooms" }, t("c.all"))), top.node),
      el("article.card", {}, el("header", {}, el("h2", {}, t("c.health"))), health)),
  ];
  return { nodes, update };
}

const share = (part, all) => (all ? `${decimal((part / all) * 100, 0)}%` : "–");

function tile(name, read, format, count = null, unit = count ? "/s" : "") {
  const value = el("dd"), graph = el("canvas", { "aria-hidden": "true" });
  return {
    node: el("dl.tile", {}, el("dt", {}, t(`c.${name}`)), value, graph),
    draw() {
      const data = count ? rates(count) : last(SECONDS).map(read);
      value.replaceChildren(format(data.at(-1) ?? 0), el("small", {}, unit && ` ${unit}`));
      spark(graph, data, "--text-3");
    },
  };
}

function row(name, value, warns, more = null) {
  return { warns, node: el(warns ? "div.warn" : "div", {}, el("i.dot", { "aria-hidden": "true" }), el("dt", {}, t(`h.${name}`)), more, el("dd", {}, value)) };
}

function stages(stage) {
  const kind = stage >= 3 ? "bad" : stage ? "warn" : "on";
  return el("span.steps", { "aria-hidden": "true" }, [0, 1, 2, 3, 4].map((i) => el(i <= stage ? `i.${kind}` : "i")));
}
