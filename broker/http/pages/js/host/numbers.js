// The six figures with their minute, and the chart of what comes in and what became of it.
import { el, setText } from "../base/dom.js";
import { compact, money, number, t } from "../base/strings.js";
import { spark } from "../charts/spark.js";
import { chartText, lines } from "../charts/lines.js";
import { chartTable } from "../parts/chart_table.js";
import { Series } from "./view.js";

const FIGURES = [
  ["online", "--info", compact], ["chat", "--good", compact], ["likes", "--accent", compact],
  ["gifts", "--gold", (cents) => money(cents < 10000 ? cents : Math.round(cents / 100) * 100)], ["orders", "--info", compact], ["merged", "--text-3", (n) => `${number(n)}%`],
];

export function numbers(place) {
  const figures = FIGURES.map(([name, token, format]) => {
    const value = el("span"), trend = el("em"), graph = el("canvas", { "aria-hidden": "true" });
    return { name, token, format, value, trend, graph, series: new Series(), node: el("dl.figure", {}, el("dt", {}, t(`n.${name}`)), el("dd", {}, value, trend), graph) };
  });
  place.replaceChildren(...figures.map((each) => each.node));
  const chart = el("canvas", { role: "img", "aria-label": t("n.chat") }), note = el("span.chip.num");
  const series = { admitted: new Series(), shown: new Series(), merged: new Series() };
  const asTable = chartTable(t("n.chat"));
  const card = el("article.card.chart", {}, el("header", {}, el("h2", {}, t("n.chat")), note), el("div.body", {}, chart, asTable.node));

  function draw() {
    for (const { value, trend, graph, series: own, format, token } of figures) {
      setText(value, format(own.last));
      const change = own.trend;
      trend.className = change === null || !change ? "" : change > 0 ? "up" : "down";
      setText(trend, change ? `${change > 0 ? "\u25b2" : "\u25bc"} ${Math.abs(change)}%` : "");
      spark(graph, own.data, token);
    }
    const all = [
      { name: t("account.admitted"), token: "--text-2", data: series.admitted.data }, { name: t("account.merged"), token: "--lane-paid", data: series.merged.data, dash: [5, 3] },
      { name: t("account.shown"), token: "--lane-chat", data: series.shown.data },
    ];
    lines(chart, all, { span: `-${Math.max(0, series.admitted.data.length - 1)} s`, now: t("now") });
    asTable.update(all);
    chart.setAttribute("aria-label", `${t("n.chat")}: ${chartText(all)}`);
  }

  /** Takes the newest seconds of rooms.stats, with the money and orders of this moment. */
  function take(stats, { giftCents, orders }) {
    const { series: s } = stats;
    if (!s || !s.online.length) return;
    const of = (name) => figures.find((each) => each.name === name).series;
    of("online").push(s.online);
    of("chat").push(s.danmaku);
    of("likes").push(s.likes);
    of("gifts").push(s.online.map(() => giftCents));
    of("orders").push(s.online.map(() => orders));
    const chat = stats.lanes.chat ?? {};
    of("merged").push(s.online.map(() => (chat.admitted ? (100 * chat.merged) / chat.admitted : 0)));
    series.admitted.push(s.danmaku);
    series.shown.push(s.shown);
    series.merged.push(s.merged);
    draw();
  }
  return { card, take, draw, setBudget: (perS) => setText(note, perS ? t("n.budget", { n: perS }) : "") };
}
