// Reports: what a show was, folded from the ledger; sums and series as they come, and the file to keep.
import { el } from "../base/dom.js";
import { dateTime, decimal, has, money, number, t, time } from "../base/strings.js";
import { chartText, lines } from "../charts/lines.js";
import { form } from "../parts/form.js";
import { loading } from "../parts/table.js";
import { button, card, head, loader, pairs, word } from "./common.js";

export function reports({ api, problem, argument: room }) {
  const place = el("div"), load = loader(place, problem), page = el("div.cards", {}, room && loading()), chart = el("canvas.chart", { role: "img" });
  const find = form([{ name: "room", label: t("col.room"), value: room, max: 64, required: true }], t("re.find"), async ({ room: wanted }) => { location.hash = `#reports/${encodeURIComponent(wanted)}`; if (wanted === room) refresh(); });
  const graph = card(t("re.audience"), el("div.body", {}, chart));
  graph.hidden = true;
  let report = null;

  async function refresh() {
    if (!room) return;
    const found = await load(() => api.call("rooms.report", { room }));
    if (!found) return;
    report = found.report;
    page.replaceChildren(...Object.entries(report).filter(([, value]) => value && typeof value === "object" && !Array.isArray(value)).map(([name, value]) => card(nameOf(name), pairs(flat(value)))),
      card(t("re.file"), el("div.plain-list", {}, button(t("re.save"), save))));
    drawChart();
  }

  function drawChart() {
    const points = seriesOf(report);
    graph.hidden = !points;
    if (!points) return;
    const series = [{ name: t("col.online"), token: "--info", data: points }];
    const at = new Date(report.from_ms).toDateString() === new Date(report.to_ms).toDateString() ? time : dateTime; // two dates do not fit under a phone's chart
    lines(chart, series, { span: report.from_ms ? at(report.from_ms) : "", now: report.to_ms ? at(report.to_ms) : "" });
    chart.setAttribute("aria-label", chartText(series));
  }

  /** A file of what the page has: a blob of its own, no request. */
  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(report, null, 2)], { type: "application/json" }));
    link.download = `${room}-report.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  refresh();
  const redraw = () => report && drawChart();
  addEventListener("resize", redraw);
  return { nodes: [head("reports", room && el("span.chip.mono", {}, room)), place, el("article.card", {}, find.node), graph, page], close: () => removeEventListener("resize", redraw) };
}

/** Name of a figure in the page's language: lanes and accounts are called as everywhere. */
const nameOf = (name) => word(["lane", "account"].find((subject) => !has(`re.${name}`) && has(`${subject}.${name}`)) ?? "re", name);

/** Points of the audience: the first array of arrays of numbers below `audience`. */
function seriesOf(report) {
  const found = Object.values(report?.audience ?? {}).find((value) => Array.isArray(value) && value.length > 1 && (typeof value[0] === "number" || Array.isArray(value[0])));
  return found?.map((point) => (typeof point === "number" ? point : Number(point.at(-2) ?? 0))) ?? null;
}

function flat(value, prefix = "") {
  const rows = [];
  for (const [name, each] of Object.entries(value)) {
    const label = prefix ? `${prefix} ${nameOf(name)}` : nameOf(name);
    if (each === null || Array.isArray(each)) { if (Array.isArray(each) && each.length && typeof each[0] !== "object") rows.push([label, number(each.length)]); continue; }
    if (typeof each === "object") rows.push(...flat(each, label));
    else rows.push([label, name.endsWith("_cents") ? money(each) : name.endsWith("_ms") && each > 10 ** 11 ? dateTime(each) : name.endsWith("_ms") ? `${decimal(each / 1000, 1)} s` : typeof each === "number" ? number(each) : String(each)]);
  }
  return rows.slice(0, 40);
}
