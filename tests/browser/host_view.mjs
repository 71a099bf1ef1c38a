// What tests/browser/test_host.py asks of the desk's pure folds.
import { Activities, Questions, Series, running, shelf } from "../../broker/http/pages/js/host/view.js";
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

// A packet is settled, and out of the broker's list, before the desk has read that it is empty: its result stays for a minute.
const list = new Activities(), shown = (nowMs) => running(list.all(), nowMs).map(({ kind, id, isOver, data }) => [kind, id, isOver, data.taken ?? null]);
list.take("packets.scheduled", "p", { count: 2, total_cents: 200 });
out.results = [shown()];
list.read([{ kind: "packets", id: "p", data: { state: "open", count: 2, taken: 1 } }, { kind: "countdowns", id: "c", data: { deadline_ms: 9 } }], 1000);
list.take("packets.emptied", "p", { name: "A" });
list.take("packets.counted", "p", { taken: 1 });
list.take("packets.settled", "p", { taken: 2, left_cents: 0 });
list.take("packets.settled", "never seen", { taken: 2 });
for (const nowMs of [2000, 61_000, 63_000]) { list.read([], nowMs); out.results.push(shown()); }
for (let i = 0; i < 200; i++) { list.read([{ kind: "sales", id: `s-${i}`, data: { state: "closed" } }], 70_000); }
out.left = list.all().length;
console.log(JSON.stringify(out));
