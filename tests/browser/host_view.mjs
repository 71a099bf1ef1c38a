// What tests/browser/test_host.py asks of the desk's pure folds.
import { Questions, Series, running, shelf } from "../../broker/http/pages/js/host/view.js";
const asks = new Questions(3), out = {};
for (let i = 0; i < 5; i++) asks.add(`\u80fd\u5fae\u6ce2\u5417${i % 2 ? "?" : "\uff1f"}`, 2, 1000 + i);
asks.add("nice mug", 9, 1000); asks.add("how big is it", 1, 50000);
out.top = asks.top(10000).map(({ text, count }) => [text, count]);
out.later = asks.top(70000).map(({ text }) => text);
for (let i = 0; i < 9; i++) asks.add(`what ${i}?`, 1, 80000 + i);
out.bound = asks.top(81000).length;
const series = new Series(); series.push(Array.from({ length: 100 }, (_, i) => i)); out.series = [series.data.length, series.last, series.trend];
out.running = running([
  { kind: "polls", id: "p", data: { state: "open", terms: { close_at_ms: null } } }, { kind: "sales", id: "s", data: { state: "closed", close_at_ms: 5, confirmed: 1, stock: 4 } },
  { kind: "lotteries", id: "l", data: { phase: "open", close_at_ms: 9 } }, { kind: "products", id: "", data: {} },
]).map(({ kind, isOver, part }) => [kind, isOver, part]);
const rows = [["a", 2, null], ["b", 1, null], ["c", 3, 1]].map(([id, position, arranged]) => ({ product: { id, position }, arranged, clicks: 0 }));
out.shelf = [null, "c", "a"].map((now) => { const found = shelf(rows, now); return [found.rows.map((row) => row.id).join(""), found.next.id]; });
console.log(JSON.stringify(out));
