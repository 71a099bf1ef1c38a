// A chart as a table, for who does not see it: a button below the chart shows the last values of each line.
import { el } from "../base/dom.js";
import { number, t } from "../base/strings.js";
import { table } from "./table.js";

const MOST = 12;

/** Returns {node, update(series)}; `series` as of charts/lines.js. */
export function chartTable(label) {
  const place = el("div", { hidden: true });
  const button = el("button.btn.quiet", { type: "button", "aria-expanded": "false", onclick: toggle }, t("chart.table"));
  let latest = [];
  function toggle() {
    place.hidden = !place.hidden;
    button.setAttribute("aria-expanded", String(!place.hidden));
    draw();
  }
  /** Rows are made when the table is opened and do not move below the reader. */
  function draw() {
    if (place.hidden) return;
    const count = Math.min(MOST, Math.max(0, ...latest.map((each) => each.data.length)));
    const rows = table([{ label: t("chart.second"), cell: (i) => (i ? `-${i} s` : t("now")) }, ...latest.map((each) => ({ label: each.name, right: true, cell: (i) => number(each.data.at(-1 - i) ?? 0) }))], { label });
    rows.show(Array.from({ length: count }, (_, i) => i));
    place.replaceChildren(rows.node);
  }
  return { node: el("div.chart-table", {}, button, place), update(series) { latest = series; } };
}
