// A table of records: columns are {key, label, right, wraps, cell(item)}. Rows are made again only when `show` is called.
import { el } from "../base/dom.js";

export function table(columns, { empty = "", label = "", rowOf = () => ({}) } = {}) {
  const body = el("tbody"), count = columns.length;
  const head = el("thead", {}, el("tr", {}, columns.map((column) => el(column.right ? "th.r" : "th", { scope: "col" }, column.label || el("span.sr", {}, column.hidden ?? "")))));
  const node = el("div.scroll-x", { tabindex: "0", role: "region", "aria-label": label }, el("table.table", {}, head, body));
  function show(items) {
    body.replaceChildren(...(items.length ? items.map(row) : [el("tr", {}, el("td", { colspan: count }, el("p.empty-row", {}, empty)))]));
  }
  const row = (item) => el("tr", rowOf(item), columns.map((column) => {
    const value = column.cell(item);
    return el(`td${column.right ? ".r" : ""}${column.wraps ? ".wraps" : ""}`, {}, ...(Array.isArray(value) ? value : [value]));
  }));
  show([]);
  return { node, show };
}
