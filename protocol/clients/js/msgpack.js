// msgpack as the protocol uses it: no extension types, string keys only, caps of elements and depth.
import { CLOSE, ProtocolError } from "./errors.js";

const MAX_ITEMS = 1024;
const MAX_DEPTH = 64;
const SHORT = 40;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

function bad(reason) {
  return new ProtocolError(CLOSE.BAD_BODY, reason);
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  take(count) {
    const start = this.at;
    if (count > this.bytes.length - start) throw bad("the body breaks off");
    this.at = start + count;
    return start;
  }

  value(depth) {
    const type = this.bytes[this.take(1)];
    if (type < 0x80) return type;
    if (type >= 0xe0) return type - 256;
    if (type >= 0xa0 && type < 0xc0) return this.text(type & 31);
    if (type >= 0x90 && type < 0xa0) return this.array(type & 15, depth);
    if (type < 0x90) return this.map(type & 15, depth);
    return this.other(type, depth);
  }

  other(type, depth) {
    const view = this.view;
    switch (type) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return this.binary(view.getUint8(this.take(1)));
      case 0xc5: return this.binary(view.getUint16(this.take(2)));
      case 0xc6: return this.binary(view.getUint32(this.take(4)));
      case 0xca: return view.getFloat32(this.take(4));
      case 0xcb: return view.getFloat64(this.take(8));
      case 0xcc: return view.getUint8(this.take(1));
      case 0xcd: return view.getUint16(this.take(2));
      case 0xce: return view.getUint32(this.take(4));
      case 0xcf: return narrow(view.getBigUint64(this.take(8)));
      case 0xd0: return view.getInt8(this.take(1));
      case 0xd1: return view.getInt16(this.take(2));
      case 0xd2: return view.getInt32(this.take(4));
      case 0xd3: return narrow(view.getBigInt64(this.take(8)));
      case 0xd9: return this.text(view.getUint8(this.take(1)));
      case 0xda: return this.text(view.getUint16(this.take(2)));
      case 0xdb: return this.text(view.getUint32(this.take(4)));
      case 0xdc: return this.array(view.getUint16(this.take(2)), depth);
      case 0xdd: return this.array(view.getUint32(this.take(4)), depth);
      case 0xde: return this.map(view.getUint16(this.take(2)), depth);
      case 0xdf: return this.map(view.getUint32(this.take(4)), depth);
      default: throw bad("the body has an extension type");
    }
  }

  binary(length) {
    const start = this.take(length);
    return this.bytes.slice(start, start + length);
  }

  text(length) {
    const start = this.take(length);
    const end = start + length;
    const bytes = this.bytes;
    if (length <= SHORT) {
      let found = "";
      let at = start;
      while (at < end && bytes[at] < 0x80) found += String.fromCharCode(bytes[at++]);
      if (at === end) return found;
    }
    try {
      return utf8.decode(bytes.subarray(start, end));
    } catch {
      throw bad("a string is not UTF-8");
    }
  }

  enter(count, depth) {
    if (count > MAX_ITEMS) throw bad(`an array or map has more than ${MAX_ITEMS} elements`);
    if (depth >= MAX_DEPTH) throw bad("the body is nested too deep");
    if (count > this.bytes.length - this.at) throw bad("the body breaks off");
  }

  array(count, depth) {
    this.enter(count, depth);
    const found = new Array(count);
    for (let index = 0; index < count; index++) found[index] = this.value(depth + 1);
    return found;
  }

  map(count, depth) {
    this.enter(count, depth);
    const found = Object.create(null);
    for (let index = 0; index < count; index++) {
      const key = this.value(depth + 1);
      if (typeof key !== "string") throw bad("a key of a map is not a string");
      if (key in found) throw bad("a key stands twice in a map");
      found[key] = this.value(depth + 1);
    }
    return found;
  }
}

function narrow(value) {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/**
 * Return the one value that `bytes` hold. Integers beyond 2^53 are BigInts.
 * @param {Uint8Array} bytes
 * @throws {ProtocolError} BAD_BODY
 */
export function unpack(bytes) {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  if (reader.at !== bytes.length) throw bad("bytes follow the body");
  return value;
}

class Writer {
  constructor() {
    this.bytes = new Uint8Array(256);
    this.view = new DataView(this.bytes.buffer);
    this.at = 0;
  }

  room(count) {
    if (this.at + count > this.bytes.length) {
      const larger = new Uint8Array(Math.max(this.bytes.length * 2, this.at + count));
      larger.set(this.bytes);
      this.bytes = larger;
      this.view = new DataView(larger.buffer);
    }
    const start = this.at;
    this.at += count;
    return start;
  }

  byte(value) {
    this.bytes[this.room(1)] = value;
  }

  head(type, size, count) {
    this.byte(type);
    const at = this.room(size);
    if (size === 1) this.view.setUint8(at, count);
    else if (size === 2) this.view.setUint16(at, count);
    else this.view.setUint32(at, count);
  }

  value(value, depth) {
    if (depth > MAX_DEPTH) throw new TypeError("the value is nested too deep");
    if (value === null || value === undefined) this.byte(0xc0);
    else if (typeof value === "boolean") this.byte(value ? 0xc3 : 0xc2);
    else if (typeof value === "number") this.number(value);
    else if (typeof value === "bigint") this.big(value);
    else if (typeof value === "string") this.text(value);
    else if (Array.isArray(value)) this.array(value, depth);
    else if (typeof value === "object") this.map(value, depth);
    else throw new TypeError(`a ${typeof value} cannot be sent`);
  }

  number(value) {
    if (!Number.isFinite(value)) throw new TypeError("a number must be finite");
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      this.byte(0xcb);
      this.view.setFloat64(this.room(8), value);
    } else if (value >= 0) this.unsigned(value);
    else this.negative(value);
  }

  unsigned(value) {
    if (value < 0x80) this.byte(value);
    else if (value <= 0xff) this.head(0xcc, 1, value);
    else if (value <= 0xffff) this.head(0xcd, 2, value);
    else if (value <= 0xffffffff) this.head(0xce, 4, value);
    else this.big(BigInt(value));
  }

  negative(value) {
    if (value >= -32) return this.byte(value + 256);
    if (value >= -0x80) return this.head(0xd0, 1, value + 0x100);
    if (value >= -0x8000) return this.head(0xd1, 2, value + 0x10000);
    if (value >= -0x80000000) return this.head(0xd2, 4, value + 0x100000000);
    return this.big(BigInt(value));
  }

  big(value) {
    if (value > 0xffffffffffffffffn || value < -0x8000000000000000n) throw new TypeError("an integer has more than 64 bits");
    this.byte(value < 0n ? 0xd3 : 0xcf);
    this.view.setBigUint64(this.room(8), BigInt.asUintN(64, value));
  }

  text(value) {
    const bytes = encoder.encode(value);
    if (bytes.length < 32) this.byte(0xa0 | bytes.length);
    else if (bytes.length <= 0xff) this.head(0xd9, 1, bytes.length);
    else if (bytes.length <= 0xffff) this.head(0xda, 2, bytes.length);
    else this.head(0xdb, 4, bytes.length);
    const at = this.room(bytes.length);
    this.bytes.set(bytes, at);
  }

  array(values, depth) {
    if (values.length < 16) this.byte(0x90 | values.length);
    else this.head(0xdc, 2, checked(values.length));
    for (const value of values) this.value(value, depth + 1);
  }

  map(value, depth) {
    const entries = Object.entries(value).filter((entry) => entry[1] !== undefined);
    if (entries.length < 16) this.byte(0x80 | entries.length);
    else this.head(0xde, 2, checked(entries.length));
    for (const [key, each] of entries) {
      this.text(key);
      this.value(each, depth + 1);
    }
  }
}

function checked(count) {
  if (count > MAX_ITEMS) throw new TypeError(`an array or map has more than ${MAX_ITEMS} elements`);
  return count;
}

/**
 * Return `value` as msgpack in its shortest form; fields of objects that are undefined are left out.
 * @throws {TypeError} for what msgpack does not have
 */
export function pack(value) {
  const writer = new Writer();
  writer.value(value, 0);
  return writer.bytes.slice(0, writer.at);
}
