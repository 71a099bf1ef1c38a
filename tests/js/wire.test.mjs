// Bytes and bodies, against the golden vectors of the protocol. Run by tests/js/test_client.py.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const clients = new URL("../../protocol/clients/js/", import.meta.url);
const { FrameReader, encodeFrame, encodeText, readText } = await import(new URL("frames.js", clients));
const { ProtocolError } = await import(new URL("errors.js", clients));
const { decompressBlock } = await import(new URL("lz4.js", clients));
const { pack, unpack } = await import(new URL("msgpack.js", clients));
const { readPayload, readRecord, rule } = await import(new URL("rules.js", clients));
const { BUILT_IN } = await import(new URL("dictionary.js", clients));
const { ENUMS, MESSAGES, OPCODES, RECORDS } = await import(new URL("tables.js", clients));

const vectors = (name) => JSON.parse(readFileSync(new URL(`../../protocol/vectors/${name}.json`, import.meta.url)));
const bytesOf = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const dictionary = Uint8Array.from(Buffer.from(BUILT_IN, "base64"));
const reader = () => new FrameReader((codec) => (codec === 2 ? dictionary : undefined));
const samples = vectors("messages").vectors;

/** The record of a vector with members of enumerations by name, as the client gives it. */
function named(kind, body) {
  return JSON.parse(JSON.stringify(readRecord(kind, body)));
}

/** The same with the fields that JSON mode writes in another way left out. */
function comparable(record, kind) {
  if (kind === "Result") return {};
  if (kind === "Tick" && record.account === null) {
    const [admitted, shown] = [record.entries.reduce((sum, entry) => sum + entry.count, 0), record.entries.length];
    record.account = { admitted, shown, merged: admitted - shown, sampled: 0, expired: 0, held: 0 };
  }
  return record;
}

test("every message of a server is read from its bytes, plain and compressed, and from its text", () => {
  let count = 0;
  for (const vector of samples.filter((each) => each.side === "server")) {
    const expected = comparable(named(vector.kind, vector.body), vector.kind);
    for (const hex of [vector.hex, ...Object.values(vector.compressed ?? {})]) {
      const frames = reader().push(bytesOf(hex));
      assert.equal(frames.length, 1, vector.name);
      const [frame] = frames;
      assert.equal(frame.opcode, OPCODES[vector.opcode]);
      assert.deepEqual([frame.lane, frame.room, frame.sequence], [vector.lane, vector.room, vector.sequence]);
      assert.deepEqual(comparable(named(MESSAGES[frame.opcode], frame.body), vector.kind), expected, vector.name);
      count += 1;
    }
    const [frame] = readText(vector.text);
    assert.deepEqual(comparable(named(MESSAGES[frame.opcode], frame.body), vector.kind), expected, vector.name);
  }
  assert.ok(count >= 40, `${count} vectors`);
});

test("every message of a client is written as the vectors have it", () => {
  for (const vector of samples.filter((each) => each.side === "client")) {
    const expected = bytesOf(vector.hex);
    const body = unpack(expected.subarray(16));
    assert.deepEqual(encodeFrame(OPCODES[vector.opcode], body, vector.room, vector.sequence), expected, vector.name);
    const text = encodeText(OPCODES[vector.opcode], vector.body, vector.room, vector.sequence);
    const { lane, ...wanted } = JSON.parse(vector.text);
    assert.equal(lane, 0);
    assert.deepEqual(JSON.parse(text), wanted);
  }
});

test("bytes that are divided in any way give the same frames", () => {
  const all = samples.filter((each) => each.side === "server").map((each) => bytesOf(each.hex));
  const stream = Uint8Array.from(all.flatMap((each) => [...each]));
  for (const size of [1, 2, 3, 7, 16, 17, 100, 1000, stream.length]) {
    const one = reader();
    const frames = [];
    for (let at = 0; at < stream.length; at += size) frames.push(...one.push(stream.subarray(at, at + size)));
    assert.equal(frames.length, all.length, `pieces of ${size}`);
    assert.equal(one.isWithinFrame, false);
  }
});

/** Read what a server sends as the client does, up to the first error. */
function receive(data) {
  const frames = typeof data === "string" ? readText(data) : reader().push(data);
  for (const frame of frames) readRecord(MESSAGES[frame.opcode], frame.body);
}

test("malformed messages of a server end with the code that the vectors name", () => {
  let count = 0;
  for (const vector of vectors("malformed").vectors.filter((each) => each.side === "server" && each.close)) {
    for (const data of [vector.hex !== undefined ? bytesOf(vector.hex) : null, vector.text ?? null]) {
      if (data === null || vector.code === "OUT_OF_STATE") continue; // of the link, not of a frame
      let error = null;
      try {
        receive(data);
      } catch (found) {
        error = found;
      }
      assert.ok(error instanceof ProtocolError, `${vector.name}: ${error}`);
      assert.equal(ENUMS.CloseCode[error.code], vector.code.toLowerCase(), vector.name);
      count += 1;
    }
  }
  assert.ok(count >= 30, `${count} vectors`);
});

test("any damage to a frame is a typed error or another message, never anything else", () => {
  let state = 7;
  const random = (bound) => (state = (state * 1103515245 + 12345) % 2147483648) % bound;
  const frames = samples.filter((each) => each.side === "server").flatMap((each) =>
    [each.hex, ...Object.values(each.compressed ?? {})].map(bytesOf));
  let errors = 0;
  for (let round = 0; round < 20_000; round++) {
    const data = frames[random(frames.length)].slice();
    for (let count = 1 + random(3); count > 0; count--) data[random(data.length)] = random(256);
    try {
      receive(data);
    } catch (error) {
      assert.ok(error instanceof ProtocolError, String(error.stack));
      errors += 1;
    }
  }
  assert.ok(errors > 5_000, `${errors} errors`);
});

test("what is packed is unpacked as it was", () => {
  const values = [
    null, true, false, 0, 1, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, Number.MAX_SAFE_INTEGER, -1, -32, -33,
    -128, -129, -32768, -32769, -2147483648, -2147483649, Number.MIN_SAFE_INTEGER, 0.5, -1e300, 2n ** 64n - 1n, -(2n ** 63n),
    "", "a", "主播好美", "é".repeat(40), "😀".repeat(20), "x".repeat(300), "y".repeat(70_000), [], [1, [2, [3]]],
    new Array(1024).fill(0), {}, { a: 1, 键: [null] },
  ];
  for (const value of values) {
    const found = unpack(pack(value));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) assert.deepEqual({ ...found }, value);
    else assert.deepEqual(found, value);
  }
  for (const wrong of [Number.NaN, Infinity, () => 1, Symbol("a"), 2n ** 64n, new Array(1025).fill(0)]) {
    assert.throws(() => pack(wrong), TypeError);
  }
});

test("a block whose offset lies before the dictionary, or whose lengths lie, is corrupt", () => {
  const blocks = [[], [0x10], [0x1f, 0x61], [0xf0, 0xff, 0xff], [0x10, 0x61, 0x00, 0x00], [0x10, 0x61, 0x02, 0x00, 0x00],
    [0x10, 0x61, 0xff, 0xff, 0x10, 0x61]];
  for (const block of blocks) {
    assert.throws(() => decompressBlock(Uint8Array.from(block), 100), ProtocolError, JSON.stringify(block));
    assert.throws(() => decompressBlock(Uint8Array.from(block), 100, Uint8Array.from([1])), ProtocolError);
  }
});

test("a key named __proto__ is a key", () => {
  const found = unpack(pack(JSON.parse('{"__proto__": {"polluted": 1}}')));
  assert.equal({}.polluted, undefined);
  assert.ok(Object.hasOwn(found, "__proto__"));
});

test("a tick of 200 danmaku is decoded in a part of a frame", () => {
  const entry = (index) => [1, `user-${index}`, `名字${index}`, [`主播这个多少钱 ${index}`, null]];
  const body = pack([1764547200100, 100, 0, Array.from({ length: 200 }, (_, index) => entry(index))]);
  const frame = new Uint8Array(16 + body.length);
  new DataView(frame.buffer).setUint32(0, frame.length);
  frame.set([1, 0x30, 0, 8, 0, 0, 0, 3, 0, 0, 0, 1], 4);
  frame.set(body, 16);
  const times = [];
  for (let round = 0; round < 300; round++) {
    const start = performance.now();
    const [found] = reader().push(frame);
    const tick = readRecord("Tick", found.body);
    times.push(performance.now() - start);
    assert.equal(tick.entries.length, 200);
  }
  times.sort((a, b) => a - b);
  console.log(`decode of 200 danmaku: median ${times[150].toFixed(3)} ms, p95 ${times[285].toFixed(3)} ms`);
});

test("payloads of events may have empty texts: the end of a combo, a paid message that is deleted", () => {
  const gift = readPayload(5, ["", "u-1", "Ming", "rose", 0 + 1, 100, "", "o-1", 3, 0, 5, 2]);
  assert.deepEqual([gift.order_id, gift.name, gift.gift_id, gift.total], ["", "Ming", "rose", 5]);
  const end = readPayload(5, ["", "u-1", "Ming", "rose", 0, 100, "", "o-1", 3, 0, 5, 2]);
  assert.deepEqual([end.combo, end.added], ["o-1", 0]);
  const deleted = readPayload(14, ["o-2", "u-1", "", "", 500, 1, 1764547200000, 0]);
  assert.deepEqual([deleted.text, deleted.name, deleted.cents], ["", "", 500]);
});

test("every type that the tables name has a rule", () => {
  const types = new Set(Object.values(RECORDS).flat().map((field) => field[1]));
  const free = new Set(["any"]);
  for (const type of types) {
    if (free.has(type)) continue;
    assert.throws(() => rule(type)(Symbol("wrong")), undefined, type);
  }
});
