// Link: one connection from its transport to its ending. It checks the order of messages, knows the heartbeat and the
// clock, and no rooms.
import { CLOSE, ProtocolError } from "./errors.js";
import { encodeFrame, encodeText, FrameReader, readText } from "./frames.js";
import { readRecord } from "./rules.js";
import { FEATURES, MESSAGES, OPCODES } from "./tables.js";

const MIN_HEARTBEAT_MS = 1000;
const CLOCK_SAMPLES = 8;
const VERSION = 1;
const BUILT_IN_CODEC = 2;

/** Estimate of the broker's clock minus the local one, from the shortest of the last round trips (as in NTP). */
export class ClockOffset {
  constructor() {
    this.offsetMs = 0;
    this._samples = [];
  }

  /** `serverMs` arrived at the local time `receivedMs` after a round trip of `rttMs`. */
  add(serverMs, receivedMs, rttMs) {
    this._samples.push([rttMs, serverMs + rttMs / 2 - receivedMs]);
    if (this._samples.length > CLOCK_SAMPLES) this._samples.shift();
    this.offsetMs = this._samples.reduce((best, each) => (each[0] < best[0] ? each : best))[1];
  }
}

/**
 * One link. `owner` has linkOpened(link), linkAuthenticated(link), onFrame(frame, message), onPong(pong) and
 * linkEnded(ending), which is called once: {signal, code, reason, retryAfterMs, jitterMs, hosts}.
 */
export class Link {
  constructor(transport, address, hello, owner, clock) {
    this.hello = null;
    this.user = null;
    this.clock = clock;
    this.isEnded = false;
    this.pingRenews = () => false;
    this._owner = owner;
    this._hello = hello;
    this._isText = address.encoding === "json";
    this._dictionaries = new Map(hello.builtIn ? [[BUILT_IN_CODEC, hello.builtIn]] : []);
    this._reader = new FrameReader((codec) => this._dictionaries.get(codec));
    this._timers = new Set();
    this._pinged = null;
    this._silenceMs = hello.handshakeMs;
    this._first = [];
    this._isOpen = false;
    this._pipe = transport(address, {
      opened: () => this._opened(),
      received: (data) => this._received(data),
      lost: ({ code, reason, refused }) => this.end({ signal: refused ? "refused" : "lost", code, reason }),
    });
    this.after(hello.handshakeMs, () => {
      if (!this.user) this.end({ signal: "lost", code: null, reason: "no answer to HELLO and AUTH in time" });
    });
  }

  /** Call `task` after `ms` unless the link has ended. */
  after(ms, task) {
    const timer = setTimeout(() => {
      this._timers.delete(timer);
      task();
    }, ms);
    timer.unref?.();
    this._timers.add(timer);
    return timer;
  }

  /** Bytes that wait to be written. */
  get pending() {
    return this._pipe.pending ?? 0;
  }

  /** Send one message. `body` is an array in the order of the wire; what is sent before the pipe is open leaves with HELLO. */
  send(opcode, body, room = 0, sequence = 0) {
    if (this.isEnded) return;
    const data = (this._isText ? encodeText : encodeFrame)(opcode, body, room, sequence);
    if (this._isOpen) this._pipe.send(data);
    else this._first.push(data);
  }

  _opened() {
    if (this.isEnded) return;
    this._owner.linkConnected();
    const { token, features, agent } = this._hello;
    this._sentAt = performance.now();
    this.send(OPCODES.HELLO, ["roomcast", VERSION, VERSION, features, agent, this._hello.cache.names]);
    this.send(OPCODES.AUTH, [token]);
    this._owner.linkOpened(this);
    this._isOpen = true;
    for (const data of this._isText ? this._first : [joined(this._first)]) this._pipe.send(data);
    this._first = [];
    this._listen();
  }

  /** End the link when the broker is silent for too long. */
  _listen() {
    this._lastAt = performance.now();
    const look = () => {
      const leftMs = this._lastAt + this._silenceMs - performance.now();
      if (leftMs > 0) this.after(leftMs, look);
      else this.end({ signal: "lost", code: null, reason: `no byte from the broker for ${this._silenceMs} ms` });
    };
    this.after(this._silenceMs, look);
  }

  _received(data) {
    if (this.isEnded) return;
    this._lastAt = performance.now();
    try {
      if ((typeof data === "string") !== this._isText) throw new ProtocolError(CLOSE.BAD_TRANSPORT, "wrong kind of message");
      const frames = this._isText ? readText(data) : this._reader.push(data);
      for (const frame of frames) {
        this._process(frame);
        if (this.isEnded) return;
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      // Without a code: this side found the error, and a broken proxy must not end the client for good.
      this.send(OPCODES.GOAWAY, [error.code, error.message.slice(0, 200), 0, 0, []]);
      this.end({ signal: "lost", code: null, reason: `the broker broke the protocol: ${error.message}` });
    }
  }

  _process(frame) {
    const { opcode } = frame;
    const isGreeting = opcode === OPCODES.HELLO || opcode === OPCODES.GOAWAY;
    if (this.hello ? opcode === OPCODES.HELLO : !isGreeting) throw outOfState(opcode);
    const isBeforeAuth = [OPCODES.AUTH, OPCODES.PONG, OPCODES.ERROR].includes(opcode);
    if (!this.user && !isGreeting && !isBeforeAuth) throw outOfState(opcode);
    const message = readRecord(MESSAGES[opcode], frame.body);
    if (opcode === OPCODES.HELLO) this._onHello(message);
    else if (opcode === OPCODES.PONG) this._onPong(message);
    else if (opcode === OPCODES.AUTH && !this.user) {
      this.user = message;
      this._owner.linkAuthenticated(this);
      this.after(this._heartbeatMs * (0.1 + 0.9 * Math.random()), () => this._beat());
    } else if (opcode === OPCODES.GOAWAY) {
      const { code, reason, retry_after_ms: retryAfterMs, jitter_ms: jitterMs, hosts } = message;
      this.end({ signal: "goaway", code: Number(code), reason, retryAfterMs, jitterMs, hosts });
    } else this._owner.onFrame(frame, message);
  }

  _onHello(hello) {
    if (hello.version !== VERSION) {
      this.end({ signal: "lost", code: null, reason: `the broker chose version ${hello.version}` });
      return;
    }
    this.hello = hello;
    for (const { codec, sha256 } of hello.dictionaries) {
      const bytes = this._hello.cache.get(sha256);
      if (bytes) this._dictionaries.set(codec, bytes);
    }
    this._heartbeatMs = Math.max(hello.heartbeat_ms, MIN_HEARTBEAT_MS);
    // A cut shorter than the heartbeat would end every idle link.
    this._silenceMs = Math.max(hello.cut_ms, 1.5 * this._heartbeatMs);
    this.clock.add(hello.server_ms, Date.now(), performance.now() - this._sentAt);
  }

  /** Whether frames of this codec can be read. */
  hasDictionary(codec) {
    return this._dictionaries.has(codec);
  }

  /** Read frames of this codec with the dictionary from now on. */
  addDictionary(codec, bytes) {
    this._dictionaries.set(codec, bytes);
  }

  /** Whether the broker has operations. */
  get hasCalls() {
    return Boolean(this.hello && this.hello.features & FEATURES.CALL);
  }

  _beat() {
    this.ping();
    this.after(this._heartbeatMs, () => this._beat());
  }

  /** Send a PING, perhaps with a newer token, which is answered for `sequence`. */
  ping(token = null, sequence = 0) {
    const clientMs = Date.now();
    this._pinged = [clientMs, performance.now()];
    this.send(OPCODES.PING, [clientMs, this.pingRenews(), token], 0, sequence);
  }

  _onPong(pong) {
    if (this._pinged && pong.client_ms === this._pinged[0]) {
      const rttMs = performance.now() - this._pinged[1];
      this.clock.add(pong.server_ms, Date.now(), rttMs);
      pong.rttMs = rttMs;
    }
    this._owner.onPong(pong);
  }

  /** Send GOAWAY and end. */
  finish(reason) {
    this.send(OPCODES.GOAWAY, [CLOSE.CLIENT_DONE, reason, 0, 0, []]);
    this.end({ signal: "lost", code: null, reason });
  }

  /** End now; the first reason counts. */
  end(ending) {
    if (this.isEnded) return;
    this.isEnded = true;
    for (const timer of this._timers) clearTimeout(timer);
    this._timers.clear();
    try {
      this._pipe?.close();
    } catch {
      // a WebSocket that is still connecting may refuse
    }
    this._owner.linkEnded({ retryAfterMs: 0, jitterMs: 0, hosts: [], ...ending });
  }
}

function outOfState(opcode) {
  return new ProtocolError(CLOSE.OUT_OF_STATE, `opcode ${opcode} may not come now`);
}

function joined(parts) {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
