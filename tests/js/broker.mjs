// Steps of two clients against a real broker, over TCP: `node broker.mjs URL`. It prints one JSON line a step and waits
// for a line on standard input where the test has something to do.
import { createInterface } from "node:readline";

const clients = new URL("../../protocol/clients/js/", import.meta.url);
const { connect } = await import(new URL("roomcast.js", clients));

const url = process.argv[2];
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (step, values = {}) => console.log(JSON.stringify({ step, ...values }));
const go = () => lines.next();

const ann = connect(url, { token: "dev:ann" });
const host = connect(url, { token: async () => "dev:host:host" });
const shop = connect(url, { token: "dev:shop:app" });
const directs = [];
ann.on("direct", (direct) => directs.push([direct.id, direct.type, direct.payload]));

const room = await ann.join("lobby");
const desk = await host.join("lobby");
const back = await shop.join("lobby");
const events = [];
const gaps = [];
room.on("event", (event) => events.push([event.offset, event.type, event.payload]));
room.on("gap", (gap) => gaps.push(gap));
const ticks = [];
room.on("tick", ({ entries }) => ticks.push(...entries));
say("joined", { role: room.role, staff: desk.role, phase: room.phase, offset: room.position.offset });

const both = await Promise.all([room.say("主播好美"), desk.say("welcome")]);
say("posted", { outcomes: both.map((each) => each.outcome) });
say("refused", { result: await room.post("announcement", { text: "no" }) });
say("empty", { result: await room.say("") });
say("announced", { result: await desk.post("announcement", { text: "今天八折" }) });
const order = { order_id: "o-1", user_id: "ann", name: "Ann", gift_id: "rose", count: 3, price_cents: 100 };
const gift = await back.post("gift", order);
const again = await back.post("gift", order);
say("gift", { offset: gift.offset, repeated: again.offset, isKnown: again.first !== null });
room.like(5);
const poll = await desk.call("polls.create", { room: "lobby", id: "p1", title: "A or B?", options: ["A", "B"] }).catch((e) => e);
say("created", { poll: poll.state ?? poll.message, field: poll.field });
const refusal = await room.call("rooms.set_phase", { room: "lobby", phase: "paused" }).catch((error) => error);
say("call refused", { name: refusal.name, error: refusal.error });
say("sent", { direct: await shop.call("directs.send", {
  user: "ann", type: 4, payload: ["coupon"], expires_s: 60 }, { key: "k1" }).then(() => "sent", (e) => `${e.error} ${e.field} ${e.message}`) });
await new Promise((resolve) => setTimeout(resolve, 1500));
say("counted", { likes: room.likeCounts, events: events.length, ticks: ticks.map((each) => each.payload.text), directs });

const rejoined = [room, desk, back].map((each) => each.once("joined"));
say("restart");
await go();
const recovered = (await Promise.all(rejoined)).map((each) => each.recovered);
const later = await desk.post("announcement", { text: "after the restart" }, { retry: true });
await new Promise((resolve) => setTimeout(resolve, 300));
say("restarted", { recovered, later: later.outcome, offsets: events.map(([offset]) => offset), gaps, directs });
await room.leave();
say("left", { membership: room.membership });
for (const client of [ann, host, shop]) client.close();
say("done");
process.stdin.destroy();
