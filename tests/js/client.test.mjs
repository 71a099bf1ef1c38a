// The reconnect machine, and the client over a transport in memory. Run by tests/js/test_client.py.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { deflateSync } from "node:zlib";

const clients = new URL("../../protocol/clients/js/", import.meta.url);
const { connect } = await import(new URL("roomcast.js", clients));
const { pack, unpack } = await import(new URL("msgpack.js", clients));
const { backoffS, Reconnect, reconnectAdvice } = await import(new URL("reconnect.js", clients));
const { TRANSITIONS } = await import(new URL("reconnect_table.js", clients));
const { OPCODES } = await import(new URL("tables.js", clients));
const { fullOffset, missing } = await import(new URL("room.js", clients));

const STATES = ["idle", "connecting", "handshaking", "open", "waiting", "closed"];
const SIGNALS = ["start", "connected", "authenticated", "lost", "refused", "goaway", "timer", "close"];
const PATHS = {
  idle: [], connecting: ["start"], handshaking: ["start", "connected"], open: ["start", "connected", "authenticated"],
  waiting: ["start", "lost"], closed: ["close"],
};

test("each state answers each signal, with and without a terminal code, as the table says", () => {
  for (const state of STATES) {
    for (const signal of SIGNALS) {
      for (const code of [null, 4000, 4200, 4408]) {
        const machine = new Reconnect(() => 0.5);
        for (const before of PATHS[state]) machine.handle(before, 0);
        assert.equal(machine.state, state);
        const isEnding = ["lost", "refused", "goaway"].includes(signal);
        const wanted = TRANSITIONS[`${state} ${isEnding && code === 4408 ? "terminal" : signal}`];
        if (wanted === undefined) {
          assert.throws(() => machine.handle(signal, 0, { code }));
          assert.equal(machine.state, state);
        } else assert.equal(machine.handle(signal, 0, { code }), wanted);
      }
    }
  }
});

test("delays are jittered and bounded, and the peer's own come first", () => {
  for (let attempt = 0; attempt < 40; attempt++) {
    for (const random of [0, 0.5, 0.999]) {
      const delay = backoffS(attempt, () => random);
      assert.ok(delay >= 0.5 && delay <= 30, `${delay}`);
    }
  }
  assert.deepEqual([4000, 4199, 4200, 4399, 4400, 4599, 1006].map(reconnectAdvice),
    ["now", "now", "backoff", "backoff", "never", "never", "backoff"]);
  const machine = new Reconnect(() => 0.5);
  for (const signal of PATHS.open) machine.handle(signal, 0);
  machine.handle("goaway", 1, { code: 4000, retryAfterMs: 2000, jitterMs: 4000, hosts: ["a:1", "b:2"] });
  assert.equal(machine.delayS, 4);
  const tried = new Set([machine.host]);
  for (let count = 0; count < 2; count++) {
    machine.handle("timer", 2);
    machine.handle("lost", 3);
    tried.add(machine.host);
  }
  assert.deepEqual([...tried].sort(), ["", "a:1", "b:2"]);
});

test("positions", () => {
  assert.equal(fullOffset(5, 6), 6);
  assert.equal(fullOffset(2 ** 32 - 1, 0), 2 ** 32);
  assert.equal(fullOffset(2 ** 32 + 3, 2), 2 ** 32 + 2);
  assert.equal(missing({ epoch: 1, offset: 5 }, { epoch: 1, offset: 9 }, true), null);
  assert.deepEqual(missing({ epoch: 1, offset: 5 }, { epoch: 1, offset: 9 }, false), { first: 6, last: 9, epochChanged: false });
  assert.deepEqual(missing({ epoch: 1, offset: 5 }, { epoch: 2, offset: 3 }, true), { first: 1, last: 3, epochChanged: true });
  assert.equal(missing({ epoch: 1, offset: 5 }, { epoch: 1, offset: 5 }, false), null);
});

// ---- a broker in memory: it answers HELLO, AUTH, JOIN and RESUME, and what a test adds

function frame(opcode, body, { room = 0, sequence = 0, lane = 0 } = {}) {
  const packed = pack(body);
  const data = new Uint8Array(16 + packed.length);
  const view = new DataView(data.buffer);
  view.setUint32(0, data.length);
  data[4] = 1;
  data[5] = lane << 4;
  view.setUint16(6, opcode);
  view.setUint32(8, room);
  view.setUint32(12, sequence);
  data.set(packed, 16);
  return data;
}

const HELLO = frame(OPCODES.HELLO, [1, 16, Date.now(), 30_000, 75_000, 8, [], "test"]);
const joined = (name, offset = 0) => [name, 7, offset, 1, 1, 20, 100, 1, 1, 1, 1, 0];

class Broker {
  constructor() {
    this.links = [];
    this.received = [];
    this.answers = {
      [OPCODES.JOIN]: ([name], sequence, send) => send(frame(OPCODES.JOIN, joined(name), { room: 3, sequence })),
    };
    this.transport = (address, handlers) => {
      const link = { address, handlers, isOver: false };
      link.send = (data) => handlers.received(data);
      link.lose = (code = null) => {
        if (link.isOver) return;
        link.isOver = true;
        handlers.lost({ code, reason: "lost", refused: false });
      };
      this.links.push(link);
      queueMicrotask(() => !link.isOver && handlers.opened());
      return {
        send: (data) => queueMicrotask(() => this.read(link, data)), close: () => { link.isOver = true; }, pending: 0,
      };
    };
  }

  read(link, data) {
    for (let at = 0; at < data.length;) {
      const view = new DataView(data.buffer, data.byteOffset + at);
      const length = view.getUint32(0);
      const opcode = view.getUint16(6);
      const sequence = view.getUint32(12);
      const body = unpack(data.subarray(at + 16, at + length));
      at += length;
      this.received.push([opcode, body]);
      if (link.isOver) continue;
      const send = (bytes) => link.send(bytes);
      if (opcode === OPCODES.HELLO) send(this.hello ?? HELLO);
      else if (opcode === OPCODES.AUTH && !sequence) send(frame(OPCODES.AUTH, ["u-1", "Ming", this.expiresAtMs ?? 0, "", 0, []]));
      else this.answers[opcode]?.(body, sequence, send);
    }
  }

  get link() {
    return this.links.at(-1);
  }
}

const event = (offset, text) => frame(OPCODES.EVENT, [4, 1, "h", "Host", [text]], { room: 3, sequence: offset });
const settle = () => new Promise((resolve) => setTimeout(resolve, 5));

async function clientOf(broker, options = {}) {
  const client = connect("ws://127.0.0.1:1", { token: "t", transport: broker.transport, random: () => 0, ...options });
  await client.opened();
  return client;
}

test("HELLO, AUTH and the JOINs leave in one write, and each event comes once over a cut", async () => {
  const broker = new Broker();
  const client = await clientOf(broker);
  const room = await client.join("lobby");
  const seen = [];
  const gaps = [];
  room.on("event", (each) => seen.push(each.offset));
  room.on("gap", (gap) => gaps.push(gap));
  broker.link.send(event(1, "a"));
  broker.link.send(event(2, "b"));
  broker.link.send(event(2, "b"));
  broker.answers[OPCODES.RESUME] = ([name, , epoch, offset], sequence, send) => {
    assert.deepEqual([name, epoch, offset], ["lobby", 7, 2]);
    send(frame(OPCODES.RESUME, [true, 3, joined(name, 4)], { room: 9, sequence }));
    for (const each of [3, 4]) send(frame(OPCODES.EVENT, [4, 1, "h", "Host", ["x"]], { room: 9, sequence: each }));
  };
  const again = room.once("joined");
  broker.link.lose();
  assert.equal(client.state, "waiting");
  assert.equal((await again).recovered, true);
  await settle();
  assert.deepEqual(seen, [1, 2, 3, 4]);
  assert.deepEqual(gaps, []);
  assert.equal(room.duplicates, 1);
  broker.link.send(frame(OPCODES.EVENT, [4, 1, "h", "Host", ["x"]], { room: 9, sequence: 7 }));
  assert.deepEqual(gaps, [{ first: 5, last: 6, epochChanged: false }]);
  client.close();
});

test("what comes in one read with the answer to JOIN is there for listeners that are added then", async () => {
  const broker = new Broker();
  broker.answers[OPCODES.JOIN] = ([name], sequence, send) => {
    const parts = [frame(OPCODES.JOIN, joined(name), { room: 3, sequence }), event(1, "at once")];
    send(Uint8Array.from(parts.flatMap((each) => [...each])));
  };
  const client = await clientOf(broker);
  const room = await client.join("lobby");
  const seen = [];
  room.on("event", (each) => seen.push(each.offset));
  await settle();
  broker.link.send(event(2, "later"));
  assert.deepEqual(seen, [1, 2]);
  client.close();
});

test("a terminal code of the broker ends the client; invalid bytes and codes of proxies do not", async () => {
  const broker = new Broker();
  const client = await clientOf(broker);
  broker.link.send(frame(OPCODES.TICK, ["wrong"], { room: 3, lane: 3 }));
  assert.equal(client.state, "waiting");
  await client.opened();
  broker.link.lose(1006);
  await client.opened();
  broker.link.send(frame(OPCODES.GOAWAY, [4410, "kicked", 0, 0, []]));
  assert.equal(client.closed.code, 4410);
  await assert.rejects(client.join("lobby"), { name: "ClosedError" });
});

test("open requests end with their link, and a post says whether it was sent", async () => {
  const broker = new Broker();
  const client = await clientOf(broker);
  const room = await client.join("lobby");
  const post = room.say("hello");
  const call = client.call("rooms.get", { room: "lobby" });
  const failed = assert.rejects(call, { name: "NoAnswerError", sent: true });
  await settle();
  broker.link.lose();
  assert.deepEqual(await post.then(({ outcome, sent }) => [outcome, sent]), [null, true]);
  await failed;
  assert.deepEqual(await room.say("again").then(({ outcome, sent }) => [outcome, sent]), [null, false]);
  client.close();
});

test("no more than 32 calls are in flight, and more than 256 waiting are refused", async () => {
  const broker = new Broker();
  const client = await clientOf(broker);
  const waiting = [];
  broker.answers[OPCODES.CALL] = (body, sequence, send) => {
    waiting.push(() => send(frame(OPCODES.RESULT, [body[0], []], { sequence })));
  };
  const calls = Array.from({ length: 289 }, () => client.call("made.up").then(() => "done", (error) => error.name));
  await settle();
  assert.equal(waiting.length, 32);
  assert.equal(await calls[288], "NoAnswerError");
  let answered = 0;
  while (answered < 288) {
    waiting[answered++]();
    await settle.call(null);
  }
  assert.equal((await Promise.all(calls.slice(0, 288))).filter((each) => each === "done").length, 288);
  client.close();
});

test("the first call of a subject goes by name and does not wait for its table; later ones go by number", async () => {
  const broker = new Broker();
  const client = await clientOf(broker);
  const called = [];
  broker.answers[OPCODES.CALL] = ([operation], sequence, send) => {
    called.push(operation);
    send(frame(OPCODES.RESULT, [operation, [3, 4]], { sequence }));
  };
  for (let count = 0; count < 2; count++) {
    assert.deepEqual(await client.call("locks.acquire"), { fence: 3, expires_at_ms: 4 });
  }
  assert.equal(called[0], "locks.acquire");
  assert.equal(typeof called[1], "number");
  assert.deepEqual(await client.call("made.up"), [3, 4], "of an operation that is not known");
  client.close();
});

test("a direct message is given once and acknowledged when it was given", async () => {
  const broker = new Broker();
  const client = await clientOf(broker);
  const direct = (id) => frame(OPCODES.DIRECT, [id, 4, 1000 + id, ["coupon"]], { lane: 1 });
  broker.link.send(direct(1));
  const acks = () => broker.received.filter(([opcode]) => opcode === OPCODES.ACK).map(([, body]) => body[0]);
  await settle();
  assert.deepEqual(acks(), [], "nothing listens");
  const seen = [];
  client.on("direct", (each) => seen.push(each.id));
  for (const id of [1, 2, 2]) broker.link.send(direct(id));
  await settle();
  assert.deepEqual(seen, [1, 2]);
  assert.deepEqual(acks(), [2]);
  client.close();
});

test("what a slow link has missed is counted over links, with names", async () => {
  const broker = new Broker();
  const client = await clientOf(broker);
  const seen = [];
  client.on("missed", ({ payload }) => seen.push(payload));
  const missed = (chat, ambient) => broker.link.send(frame(OPCODES.DIRECT, [0, 8, 1000, [chat, ambient]], { lane: 1 }));
  missed(3, 1);
  missed(4, 0);
  assert.deepEqual(seen, [{ chat: 3, ambient: 1 }, { chat: 4, ambient: 0 }]);
  assert.equal(client.missedChat, 7);
  broker.link.lose();
  await client.opened();
  missed(5, 0);
  assert.equal(client.missedChat, 12);
  broker.link.send(frame(OPCODES.PONG, [1, Date.now(), [], 5, "", 0]));
  assert.equal(client.missedChat, 12, "a PONG counts those of its link");
  client.close();
});

/** A block that is one literal, a match of the rest but five bytes in the dictionary, and these five. */
function blockOf(body) {
  const rest = body.length - 6 - 4;
  const extra = rest < 15 ? [] : [...new Array(Math.floor((rest - 15) / 255)).fill(255), (rest - 15) % 255];
  const match = [body.length & 255, body.length >> 8, ...extra];
  return [0x10 | Math.min(rest, 15), body[0], ...match, 0x50, ...body.slice(-5)];
}

test("a dictionary of the deployment is fetched once, checked, used, and named on the next link", async () => {
  const tick = [...pack([1764547200000, 100, 0, [["u-1", "Ming", "a text of this deployment that is long enough"]]])];
  const dictionary = Uint8Array.from(tick);
  const name = createHash("sha256").update(dictionary).digest("hex");
  for (const data of [deflateSync(dictionary), deflateSync(new Uint8Array(100_000)), deflateSync(Uint8Array.from([1])), Buffer.from("no")]) {
    const isRight = data.equals(deflateSync(dictionary));
    const broker = new Broker();
    broker.hello = frame(OPCODES.HELLO, [1, 17, Date.now(), 30_000, 75_000, 8, [], "test", [[3, name, dictionary.length]]]);
    const calls = [];
    broker.answers[OPCODES.CALL] = ([operation, , args], sequence, send) => {
      // By name until the table of the subject is loaded, by number then.
      const number = { "dictionaries.get": 600, "dictionaries.use": 601 }[operation] ?? operation;
      calls.push(number);
      assert.equal(args.sha256, name);
      const result = number === 600 ? [name, dictionary.length, data.toString("base64")] : [3];
      send(frame(OPCODES.RESULT, [operation, result], { sequence }));
    };
    const client = await clientOf(broker, { dictionaryWaitMs: 0 });
    const room = await client.join("lobby");
    for (let count = 0; count < 100 && calls.length < 2; count++) await settle();
    assert.deepEqual(calls, isRight ? [600, 601] : [600]);
    if (isRight) {
      const shown = room.once("tick");
      const block = [dictionary.length >> 8, dictionary.length & 255, ...blockOf(tick)];
      const data = new Uint8Array(16 + block.length);
      new DataView(data.buffer).setUint32(0, data.length);
      data.set([1, 0x33, 0, OPCODES.TICK, 0, 0, 0, 3, 0, 0, 0, 1, ...block], 4);
      broker.link.send(data);
      assert.equal((await shown).entries[0].name, "Ming");
      broker.link.lose();
      await client.opened();
      const hellos = broker.received.filter(([opcode]) => opcode === OPCODES.HELLO).map(([, body]) => body[5]);
      assert.deepEqual(hellos, [[], [name]]);
    }
    client.close();
  }
});

test("a function for tokens is asked again after a refused one, and ends the client after two", async () => {
  const broker = new Broker();
  let count = 0;
  const client = connect("ws://127.0.0.1:1", { token: async () => `t-${++count}`, transport: broker.transport, random: () => 0 });
  await client.opened();
  broker.link.send(frame(OPCODES.GOAWAY, [4409, "expired", 0, 0, []]));
  await client.opened();
  assert.equal(count, 2);
  broker.link.send(frame(OPCODES.GOAWAY, [4408, "refused", 0, 0, []]));
  assert.equal(client.state, "waiting");
  client.close();
});

/** Every array, map and set that can be reached from an object, with its path and size. */
function tables(root) {
  const seen = new Set(), found = [];
  const walk = (value, path) => {
    if (value === null || typeof value !== "object" || ArrayBuffer.isView(value) || seen.has(value)) return;
    seen.add(value);
    if (Array.isArray(value)) found.push([path, value.length]);
    if (value instanceof Map || value instanceof Set) {
      found.push([path, value.size]);
      for (const each of value.values()) walk(each, `${path}[]`);
      return;
    }
    for (const key of Reflect.ownKeys(value)) {
      const { value: inner } = Object.getOwnPropertyDescriptor(value, key);
      walk(inner, `${path}.${String(key)}`);
    }
  };
  walk(root, "client");
  return found;
}

test("no table of a client that is open for a day grows", async () => {
  const broker = new Broker();
  broker.answers[OPCODES.POST] = (body, sequence, send) => send(frame(OPCODES.ACK, [[[sequence, 4, 0]], [], []]));
  broker.answers[OPCODES.CALL] = ([operation], sequence, send) => send(frame(OPCODES.RESULT, [operation, null], { sequence }));
  const client = await clientOf(broker);
  const room = await client.join("lobby");
  await settle();
  client.on("direct", () => {});
  const most = new Map();
  for (let n = 1; n <= 3000; n++) {
    broker.link.send(event(n, `text ${n}`));
    broker.link.send(frame(OPCODES.TICK, [n, 100, 0, [[1, `u-${n}`, `n ${n}`, [`t ${n}`, null]]]], { room: 3, sequence: n, lane: 3 }));
    broker.link.send(frame(OPCODES.DIRECT, [n, 4, 1000 + n, ["coupon"]], { lane: 1 }));
    broker.link.send(frame(OPCODES.DIRECT, [0, 8, n, [1, 1]], { lane: 1 }));
    broker.link.send(frame(OPCODES.PONG, [1, Date.now(), [], n, "", 0]));
    if (n % 3 === 0) assert.equal((await room.say(`held ${n}`)).outcome, "held");
    if (n % 5 === 0) await client.call(`made.up${n}`);
    if (n % 500 === 0) {
      broker.link.lose();
      broker.answers[OPCODES.RESUME] = ([name], sequence, send) => send(frame(OPCODES.RESUME, [true, 0, joined(name, n)], { room: 3, sequence }));
      await client.opened();
      await client.join("lobby");
      await settle();
    }
    if (n % 100 === 0) for (const [path, size] of tables(client)) most.set(path, Math.max(size, most.get(path) ?? 0));
  }
  const large = [...most].filter(([, size]) => size > 1024);
  assert.deepEqual(large, []);
  assert.ok([...most.keys()].some((path) => path.includes("_seen")), "the walk finds tables");
  client.close();
});

test("an hour of ticks at 20 a second leaves the heap as it was", { skip: !globalThis.gc }, async () => {
  const broker = new Broker();
  const client = await clientOf(broker);
  const room = await client.join("lobby");
  let shown = 0;
  room.on("tick", ({ entries }) => (shown += entries.length));
  await settle();
  const tick = (number) => frame(OPCODES.TICK, [1764547200000 + number * 100, 100, 0,
    [[1, `u-${number}`, `name ${number}`, [`text ${number}`, null]], [1, `v-${number}`, `name ${number}`, [`text ${-number}`, null]]]],
    { room: 3, sequence: number, lane: 3 });
  const heap = () => {
    globalThis.gc();
    return process.memoryUsage().heapUsed;
  };
  for (let number = 0; number < 36_000; number++) broker.link.send(tick(number));
  const before = heap();
  for (let number = 36_000; number < 72_000; number++) broker.link.send(tick(number));
  const grown = heap() - before;
  console.log(`heap after the second hour: ${grown} bytes more than after the first`);
  assert.equal(shown, 144_000);
  assert.ok(grown < 1_000_000, `the heap grew by ${grown} bytes`);
  client.close();
});
