// A table of records: columns are {key, label, right, wraps, cell(item)}. Rows are made again only when `show` is called; before the
// first time it says that they are being read, never that there are none.
import { el } from "../base/dom.js";
import { t } from "../base/strings.js";

/** What stands where a list will be. */
export const loading = () => el("p.empty-row.loading", {}, t("loading"));

export function table(columns, { empty = "", label = "", rowOf = () => ({}) } = {}) {
  const body = el("tbody"), count = columns.length;
  const head = el("thead", {}, el("tr", {}, columns.map((column) => el(column.right ? "th.r" : "th", { scope: "col" }, column.label || el("span.sr", {}, column.hidden ?? "")))));
  const node = el("div.scroll-x", { tabindex: "0", role: "region", "aria-label": label }, el("table.table", {}, head, body));
  const line = (child) => el("tr", {}, el("td", { colspan: count }, child));
  function show(items) { body.replaceChildren(...(items.length ? items.map(row) : [line(el("p.empty-row", {}, empty))])); }
  const row = (item) => el("tr", rowOf(item), columns.map((column) => {
    const value = column.cell(item);
    return el(`td${column.right ? ".r" : ""}${column.wraps ? ".wraps" : ""}`, {}, ...(Array.isArray(value) ? value : [value]));
  }));
  body.append(line(loading()));
  return { node, show };
}
