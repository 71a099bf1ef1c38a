// Frames: a header of 16 bytes and a body of one msgpack array; or one JSON object in JSON mode.
import { CLOSE, ProtocolError } from "./errors.js";
import { decompressBlock } from "./lz4.js";
import { pack, unpack } from "./msgpack.js";
import { ENUMS, LIMITS, OPCODES } from "./tables.js";

export const HEADER_BYTES = 16;
const VERSION = 1;
const PLAIN = 0;
const LZ4 = 1;
const MAX_CODEC = Math.max(...Object.keys(ENUMS.Codec).map(Number));
const MAX_TEXT_CHARS = 1_048_576;
const MAX_TEXT_FRAMES = 1024;
const CHAT = 3;
const AMBIENT = 4;
const COMMERCE = 1;
const names = Object.fromEntries(Object.entries(OPCODES).map(([name, number]) => [number, name]));
const lanes = new Map([
  [OPCODES.EVENT, [0, 1, 2, AMBIENT]], [OPCODES.TICK, [CHAT]], [OPCODES.STATE, [AMBIENT]], [OPCODES.DIRECT, [COMMERCE, AMBIENT]],
]);
const CONTROL_ONLY = [0];

/**
 * @typedef {{opcode: number, lane: number, room: number, sequence: number, body: unknown}} Frame
 * `body` is the decoded array (or object in JSON mode), not yet read as a record.
 */

/** Return one frame of a client as bytes. */
export function encodeFrame(opcode, body, room = 0, sequence = 0) {
  const packed = pack(body);
  const bytes = new Uint8Array(HEADER_BYTES + packed.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length);
  view.setUint8(4, VERSION);
  view.setUint16(6, opcode);
  view.setUint32(8, room);
  view.setUint32(12, sequence);
  bytes.set(packed, HEADER_BYTES);
  return bytes;
}

/** Return one frame of a client as JSON text; `body` is an object with the names of the fields, or an array. */
export function encodeText(opcode, body, room = 0, sequence = 0) {
  return JSON.stringify({ op: names[opcode], room, seq: sequence, body });
}

function checkPlace(opcode, lane) {
  if (names[opcode] === undefined || opcode === OPCODES.POST || opcode === OPCODES.CALL || opcode === OPCODES.PING) {
    throw names[opcode] === undefined
      ? new ProtocolError(CLOSE.UNKNOWN_OPCODE, `opcode ${opcode} is not known`)
      : new ProtocolError(CLOSE.OUT_OF_STATE, `a server does not send ${names[opcode]}`);
  }
  if (!(lanes.get(opcode) ?? CONTROL_ONLY).includes(lane)) {
    throw new ProtocolError(CLOSE.BAD_FRAME, `lane ${lane} is not one of ${names[opcode]}`);
  }
}

/** Reader of a server's bytes: they may be divided in any way; a frame is checked before its body is waited for. */
export class FrameReader {
  /** @param {(codec: number) => Uint8Array | undefined} dictionary the dictionary of a codec above 1, if there is one */
  constructor(dictionary = () => undefined) {
    this._dictionary = dictionary;
    this._parts = [];
    this._size = 0;
    this._wanted = HEADER_BYTES;
  }

  /** Whether a frame has begun and not ended. */
  get isWithinFrame() {
    return this._size > 0;
  }

  /**
   * Take received bytes and return the frames that are complete.
   * @param {Uint8Array} bytes
   * @returns {Frame[]}
   * @throws {ProtocolError}
   */
  push(bytes) {
    this._parts.push(bytes);
    this._size += bytes.length;
    const frames = [];
    while (this._size >= this._wanted) {
      const buffer = this._joined();
      let at = 0;
      while (buffer.length - at >= HEADER_BYTES) {
        const length = checkHeader(buffer, at);
        if (buffer.length - at < length) {
          this._wanted = length;
          break;
        }
        this._wanted = HEADER_BYTES;
        frames.push(this._frame(buffer.subarray(at, at + length)));
        at += length;
      }
      const rest = at ? buffer.slice(at) : buffer;
      this._parts = rest.length ? [rest] : [];
      this._size = rest.length;
      if (rest.length < HEADER_BYTES) this._wanted = HEADER_BYTES;
    }
    return frames;
  }

  _joined() {
    if (this._parts.length === 1) return this._parts[0];
    const buffer = new Uint8Array(this._size);
    let at = 0;
    for (const part of this._parts) {
      buffer.set(part, at);
      at += part.length;
    }
    this._parts = [buffer];
    return buffer;
  }

  _frame(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const codec = bytes[5] & 15;
    const body = bytes.subarray(HEADER_BYTES);
    const raw = codec === PLAIN ? body : this._decompress(body, codec);
    const value = unpack(raw);
    if (!Array.isArray(value)) throw new ProtocolError(CLOSE.BAD_BODY, "the body is no array");
    return {
      opcode: view.getUint16(6), lane: (bytes[5] >> 4) & 7, room: view.getUint32(8), sequence: view.getUint32(12),
      body: value,
    };
  }

  _decompress(body, codec) {
    if (body.length <= 2) throw new ProtocolError(CLOSE.BAD_COMPRESSION, "compressed body has no block");
    const size = (body[0] << 8) | body[1];
    if (size > LIMITS.maxBodyBytes) throw new ProtocolError(CLOSE.BAD_COMPRESSION, "raw size is too large");
    const dictionary = codec === LZ4 ? undefined : this._dictionary(codec);
    if (codec !== LZ4 && !dictionary) {
      throw new ProtocolError(CLOSE.BAD_COMPRESSION, `this side has no dictionary of codec ${codec}`);
    }
    return decompressBlock(body.subarray(2), size, dictionary);
  }
}

/** Check the 16 bytes at `at` in the order that the specification says, and return the length of the frame. */
function checkHeader(buffer, at) {
  const view = new DataView(buffer.buffer, buffer.byteOffset + at, HEADER_BYTES);
  const length = view.getUint32(0);
  if (view.getUint8(4) !== VERSION) throw new ProtocolError(CLOSE.UNSUPPORTED_VERSION, "version is not 1");
  if (length < HEADER_BYTES) throw new ProtocolError(CLOSE.BAD_FRAME, "length is below 16");
  if (length > LIMITS.maxFrameBytes) throw new ProtocolError(CLOSE.FRAME_TOO_LARGE, "length is above 65,536");
  const opcode = view.getUint16(6);
  const flags = view.getUint8(5);
  if (names[opcode] === undefined) throw new ProtocolError(CLOSE.UNKNOWN_OPCODE, `opcode ${opcode} is not known`);
  const lane = (flags >> 4) & 7;
  if (flags & 0x80 || lane > AMBIENT || (flags & 15) > MAX_CODEC) throw new ProtocolError(CLOSE.BAD_FRAME, "flags");
  checkPlace(opcode, lane);
  return length;
}

/**
 * Return the frames of one text message of JSON mode.
 * @returns {Frame[]}
 * @throws {ProtocolError}
 */
export function readText(text) {
  if (text.length > MAX_TEXT_CHARS) throw new ProtocolError(CLOSE.FRAME_TOO_LARGE, "the text is too long");
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ProtocolError(CLOSE.BAD_BODY, "the text is no JSON");
  }
  const values = Array.isArray(value) ? value : [value];
  if (values.length < 1 || values.length > MAX_TEXT_FRAMES) throw new ProtocolError(CLOSE.BAD_FRAME, "frames of a text");
  return values.map(textFrame);
}

function textFrame(value) {
  if (value === null || typeof value !== "object" || typeof value.op !== "string") {
    throw new ProtocolError(CLOSE.BAD_FRAME, "a frame is an object with op");
  }
  const opcode = Object.hasOwn(OPCODES, value.op) ? OPCODES[value.op] : -1;
  const { lane = 0, room = 0, seq = 0, body = {} } = value;
  if (![lane, room, seq].every((each) => Number.isInteger(each) && each >= 0)) {
    throw new ProtocolError(CLOSE.BAD_FRAME, "lane, room and seq are integers");
  }
  checkPlace(opcode, lane);
  return { opcode, lane, room, sequence: seq, body };
}
