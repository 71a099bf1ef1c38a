// What tests/browser/test_room_parts.py asks of the live room's pure modules. Argument: a file of proofs.
import { readFileSync } from "node:fs";
import { Lanes, tierFor } from "../../broker/http/pages/js/danmaku/lanes.js";
import { RoomView, endOf, shares } from "../../broker/http/pages/js/room/view.js";
import { check } from "../../broker/http/pages/js/room/proof.js";
const out = {};

// Random worlds with resizes and stalls: the smallest distance of two items of a lane that were ever in flight.
let seed = 7;
const random = () => { seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0; return seed / 2 ** 32; };
let least = Infinity, placed = 0;
for (let world = 0; world < 80; world++) {
  const lanes = new Lanes();
  lanes.resize(300 + random() * 1200, 1 + Math.floor(random() * 8));
  for (let step = 0; step < 400; step++) {
    if (random() < 0.01) lanes.resize(300 + random() * 1200, 1 + Math.floor(random() * 8));
    if (random() < 0.02) lanes.resize(lanes.width, 1 + Math.floor(random() * 8));
    for (let i = 0; i < 3; i++) {
      const w = 20 + random() * 900;
      if (lanes.place({ w, v: (lanes.width + 160) / (5.5 + 2.5 * random()) * (1 + 0.25 * Math.min(1, w / lanes.width)), x: 0, lane: 0 }, 0, lanes.lanes.length)) placed += 1;
    }
    lanes.advance(random() < 0.05 ? 0.1 : 0.016);
    for (const lane of lanes.lanes) {
      const items = [...lane].sort((a, b) => a.x - b.x);
      for (let i = 1; i < items.length; i++) least = Math.min(least, items[i].x - items[i - 1].x - items[i - 1].w);
    }
  }
}
Object.assign(out, { least, placed, tiers: [2, 5, 9].map(tierFor) });

const view = new RoomView(), at = 1000;
view.joined({ activities: [{ kind: "sales", id: "s", data: { state: "scheduled", stock: 5, open_at_ms: 5000, close_at_ms: 9000 } }, { kind: "mic", id: "", data: { seats: 2, taken: [] } },
  { kind: "products", id: "", data: { explaining: { product: "b" }, card: { id: "b", title: "B", position: 1 }, products: [{ id: "a", title: "A", position: 2 }] } }],
own_activities: [{ kind: "mic", id: "", data: { status: "queued" } }, { kind: "moderation", id: "", data: { is_muted: true, reason: "r" } }] }, at);
out.joined = [view.shelf().map(({ id }) => id), view.explaining, view.get("mic").own.status, view.mute.reason, endOf(view.get("sales", "s"))];
view.take("sales.opened", "s", { stock: 5, price_cents: 100, close_at_ms: 9000 }, at);
view.take("sales.counted", "s", { available: 1, reserved: 4 }, at);
view.own("sales", "s", { claims: [{ number: 1, state: "reserved" }] });
view.take("polls.opened", "p", { title: "t", options: ["x", "y"], close_at_ms: 2000 }, at);
view.take("polls.counted", "p", { voters: 3, counts: [2, 1] }, at);
view.take("mic.seat_taken", "", { seat: 1, user: "u", name: "U" }, at);
view.take("rains.scheduled", "r", { drops: 2, start_at_ms: 1000, span_ms: 50 }, at);
view.take("rains.drop_announced", "r", { packet: "r-1", open_at_ms: 1 }, at);
view.take("rains.drop_opened", "r", { packet: "r-1", count: 2 }, at);
out.open = [view.get("sales", "s").data.available, shares(view.get("polls", "p").data), view.get("mic").data.taken.length, view.get("rains", "r").data.shown.map((drop) => [drop.packet, drop.is_open])];
out.order = view.running(["sales", "polls", "rains"], at).map(({ id }) => id);
view.take("rains.drop_emptied", "r", { packet: "r-1" }, at);
view.take("sales.closed", "s", { seed: "" }, at);
view.take("products.removed", "", { id: "b", explaining: null }, at);
view.take("moderation.muted", "", { is_muted: false }, at);
view.take("nothing.known", "", {}, at);
out.closed = [view.running(["sales"], at + 59_000).length, view.running(["sales"], at + 61_000).length, view.shelf().length, view.explaining, view.mute, view.get("rains", "r").data.shown.length];

// Events overtake counters: one that comes after the end says what was before.
const late = new RoomView();
late.take("packets.scheduled", "p", { count: 2 }, at);
late.take("packets.opened", "p", { count: 2 }, at);
late.take("packets.emptied", "p", { name: "A" }, at);
late.take("packets.counted", "p", { taken: 1 }, at);
late.take("quizzes.opened", "q", {}, at);
late.take("quizzes.asked", "q", { number: 1, question: {} }, at);
late.take("quizzes.counted", "q", { number: 1, voters: 1 }, at);
const asked = late.get("quizzes", "q").data.question.voters;
late.take("quizzes.closed", "q", { result: { voters: 2 } }, at);
late.take("quizzes.counted", "q", { number: 1, voters: 1 }, at);
out.late = [late.get("packets", "p").data.taken, asked, late.get("quizzes", "q").data.question.voters];

// Over a link that was cut: what is one's own comes with each answer, what is over meanwhile stays in Mine.
const cut = new RoomView();
cut.joined({ activities: [{ kind: "sales", id: "s", data: { state: "open" } }, { kind: "coupons", id: "c", data: { state: "open" } }] }, at);
cut.own("coupons", "c", { code: "NEW-1" });
cut.resumed({ own_activities: [{ kind: "moderation", id: "", data: { is_muted: true, reason: "r" } }, { kind: "sales", id: "s", data: { claims: [{ number: 1, state: "RESERVED" }] } }] });
out.cut = [cut.mute.reason, cut.get("sales", "s").own.claims.length];
cut.joined({ activities: [{ kind: "sales", id: "s", data: { state: "closed" } }] }, at);
out.cut.push(cut.mute, cut.owned().map(({ kind }) => kind), cut.running(["coupons"], at + 61_000).length);

// A page left open for a day: activities that come and go, what is one's own stays to a bound, late events begin nothing.
const day = new RoomView();
for (let i = 0; i < 3000; i++) {
  const nowMs = i * 30_000, id = `s-${i}`;
  day.take("sales.scheduled", id, { sku: "m", stock: 1, open_at_ms: nowMs, close_at_ms: nowMs + 1000 }, nowMs);
  if (i % 3 === 0) day.own("sales", id, { claims: [{ number: 1, state: "confirmed" }] });
  day.take("sales.closed", id, {}, nowMs);
  day.take("polls.opened", `p-${i}`, { title: "t", options: ["x"] }, nowMs);
  day.take("polls.closed", `p-${i}`, {}, nowMs);
  day.running(["sales"], nowMs);
}
day.take("countdowns.started", "c", { label: "l", deadline_ms: 9e7 }, 8.99e7);
day.take("countdowns.started", "d", { label: "l", deadline_ms: 9.2e7 }, 8.99e7);
day.take("countdowns.stopped", "d", {}, 8.99e7);
out.countdowns = [8.999e7, 9e7 + 59_000, 9e7 + 61_000].map((at) => day.running(["countdowns"], at).map(({ overAt }) => overAt));
day.take("sales.settled", "s-1", { confirmed: 1 }, 9e7);
day.take("rains.drop_settled", "r", { packet: "x" }, 9e7);
out.day = [day.running(["sales", "polls", "rains"], 9.1e7).length, day.owned().length, day.activities.size];

const proofs = JSON.parse(readFileSync(process.argv[2], "utf8"));
out.proofs = {};
for (const [name, { proof, seen }] of Object.entries(proofs)) out.proofs[name] = (await check(proof, seen)).map(({ isRight }) => isRight);
console.log(JSON.stringify(out));
