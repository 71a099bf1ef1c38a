// Client: links one after another, as the state machine of `reconnect.js` decides, and the rooms of one user.
import { Calls } from "./calls.js";
import { Credentials } from "./credentials.js";
import { DictionaryCache, useOffered } from "./dictionaries.js";
import { Directs } from "./directs.js";
import { Emitter } from "./emitter.js";
import { ArgumentError, ClosedError, NoAnswerError } from "./errors.js";
import { ClockOffset, Link } from "./link.js";
import { backoffS, CONFIGURED_HOST, Reconnect } from "./reconnect.js";
import { Memberships } from "./memberships.js";
import { Posts } from "./posts.js";
import { requestError, Requests } from "./requests.js";
import { FEATURES, OPCODES } from "./tables.js";
import { parseAddress, transportFor, withHost } from "./transports.js";

const AGENT = "roomcast-js/0.1";
const REQUEST_MS = 30_000;
const HANDSHAKE_MS = 10_000;

async function builtInDictionary() {
  const { BUILT_IN } = await import("./dictionary.js");
  return Uint8Array.from(atob(BUILT_IN), (each) => each.charCodeAt(0));
}

/**
 * Connect to a broker; README.md lists the options. The client connects, and connects again, by itself.
 * @param {string} url ws://HOST:PORT, wss://..., and in Node roomcast://... (TCP) or roomcasts://... (TLS)
 */
export function connect(url, options = {}) {
  const client = new Client(url, options);
  client._start();
  return client;
}

/**
 * One user's connection. Events: state {state, reason, code, retryInMs} · direct {id, type, atMs, payload} ·
 * missed {payload: {chat, ambient}} · closed {code, reason}.
 */
export class Client extends Emitter {
  constructor(url, options = {}) {
    super();
    this._address = { ...parseAddress(url), encoding: options.encoding ?? "binary" };
    if (!["binary", "json"].includes(this._address.encoding)) throw new ArgumentError('encoding must be "binary" or "json"');
    if (this._address.encoding === "json" && this._address.scheme.startsWith("roomcast")) {
      throw new ArgumentError("JSON mode needs a WebSocket");
    }
    this._transport = options.transport ?? transportFor(this._address, options.WebSocket);
    this._agent = options.agent ?? AGENT;
    this._handshakeMs = options.handshakeMs ?? HANDSHAKE_MS;
    this._random = options.random ?? Math.random;
    this._dictionary = options.dictionary ?? builtInDictionary;
    this._dictionaries = options.dictionaries ?? new DictionaryCache();
    this._dictionaryWaitMs = options.dictionaryWaitMs;
    this._credentials = new Credentials(options.token);
    this._machine = new Reconnect(this._random);
    this._clock = new ClockOffset();
    this._requests = new Requests();
    this._directs = new Directs(this, (id) => this._link?.user && this._link.send(OPCODES.ACK, [id]));
    this._link = null;
    this._memberships = new Memberships(this);
    this._posts = new Posts(this);
    this._calls = new Calls(this, this._address.encoding === "json");
    this._timers = new Set();
    /** Identity that the broker gave: {user_id, name, expires_at_ms}, null before the first log-in. */
    this.user = null;
    /** HELLO of the broker, null before the first. */
    this.server = null;
    this.customTypes = [];
    /** Round trip of the last heartbeat in milliseconds, null before it. */
    this.rttMs = null;
    /** Danmaku that the broker did not send to this client because its links were slow. */
    this.missedChat = 0;
    this._missedEarlier = 0;
    /** ClosedError after the end, null before. */
    this.closed = null;
  }

  /** "idle", "connecting", "handshaking", "open", "waiting" or "closed". */
  get state() {
    return this._machine.state;
  }

  /** The rooms by name. */
  get rooms() {
    return new Map(this._memberships.byName);
  }

  /** Unix milliseconds of the broker's clock now, as far as known. */
  serverNow() {
    return Date.now() + this._clock.offsetMs;
  }

  /** Resolve when a link is open and logged in. */
  async opened({ timeoutMs = REQUEST_MS } = {}) {
    await this._until(() => this.state === "open", timeoutMs, "no link");
  }

  /**
   * Join a room, or return it if the client is in it. Resolves with the first snapshot.
   * @throws {RequestError} if the broker refuses @throws {NoAnswerError} after `timeoutMs`
   */
  async join(name, { tier = "full", timeoutMs = REQUEST_MS } = {}) {
    return this._memberships.join(name, { tier, timeoutMs });
  }

  /** See `Room.leave`. */
  leave(room) {
    return this._memberships.leave(room);
  }

  /**
   * Post a message; resolves with what became of it, and never rejects for what the broker or network does:
   * `outcome` null means that no answer came (`sent` says whether it may have had an effect).
   * @param {string|number} type name or number of a message type
   * @param {object|Array} payload fields by name, or the array of the wire
   * @param {{id?: string, retry?: boolean, timeoutMs?: number}} options `retry`: again, with the same id, after a lost
   *   link and after LIMITED or UNAVAILABLE, as long as the time lasts
   */
  post(room, type, payload, { id, retry = false, timeoutMs = REQUEST_MS } = {}) {
    return this._posts.post(room, type, payload, { id, retry, timeoutMs });
  }

  /**
   * Call an operation, with the fields of its request by name; resolves with its result, fields by name.
   * @throws {RequestError} if the broker refuses @throws {NoAnswerError}
   */
  call(operation, args = {}, { key = "", room = null, timeoutMs = REQUEST_MS } = {}) {
    return this._calls.call(operation, args, { key, room, timeoutMs });
  }

  /** Replace the token of the open link by one of the same user, see AUTH in SPEC.md; later links use it too. */
  async changeToken(token) {
    await this.opened();
    const sequence = this._requests.next();
    const answered = this._requests.open(sequence, "auth", null, REQUEST_MS);
    this._link.send(OPCODES.AUTH, [token], 0, sequence);
    const user = await answered;
    this._credentials.changed(token);
    for (const { room: number, role } of user.rooms) {
      const room = this._memberships.ofNumber(number);
      if (room) room.role = role;
    }
    this._renewLater(this._link, user.expires_at_ms);
    return user;
  }

  /** End the client: waiting likes are sent, then GOAWAY. */
  close() {
    if (this.closed) return;
    for (const room of this._memberships.byName.values()) if (room.isJoined && room.likeCounts.waiting) room._likes._send();
    this._directs.flush();
    const link = this._link;
    this._end(null, "closed by the application");
    link?.finish("the client is done");
  }

  // ---- links

  _start() {
    this._signal("start");
    this._connect();
  }

  async _connect() {
    let token;
    try {
      if (typeof this._dictionary === "function") this._dictionary = await this._dictionary();
      token = await this._credentials.next(performance.now());
    } catch (error) {
      this._afterLink({ signal: "lost", code: null, reason: `no token: ${error.message}` });
      return;
    }
    if (this.state !== "connecting") return;
    const { host } = this._machine;
    try {
      const address = host === CONFIGURED_HOST ? this._address
        : { ...withHost(this._address, host), encoding: this._address.encoding };
      const features = FEATURES.TICKET | FEATURES.CALL | FEATURES.LZ4 | (this._dictionary ? FEATURES.LZ4_DICT_1 : 0);
      const hello = {
        token, features, agent: this._agent, handshakeMs: this._handshakeMs,
        builtIn: this._dictionary || null, cache: this._dictionaries,
      };
      new Link(this._transport, address, hello, this, this._clock);
    } catch (error) {
      this._afterLink({ signal: "lost", code: null, reason: error.message });
    }
  }

  linkConnected() {
    if (this.state === "connecting") this._signal("connected");
  }

  linkOpened(link) {
    this._link = link;
    link.pingRenews = () => this._credentials.wantsTicket(performance.now());
    this._memberships.linkOpened();
  }

  linkAuthenticated(link) {
    this.user = link.user;
    this.server = link.hello;
    this.customTypes = link.hello.types;
    this._credentials.accepted(link.user, performance.now());
    this._signal("authenticated");
    useOffered(this, link, this._dictionaries, this._random, this._dictionaryWaitMs);
    this._renewLater(link, link.user.expires_at_ms);
  }

  linkEnded(ending) {
    if (this.closed) return;
    this._afterLink(this._credentials.classify(ending));
  }

  _afterLink(ending) {
    if (this.closed) return;
    this._link = null;
    this._missedEarlier = this.missedChat;
    const { signal, code, reason, retryAfterMs, jitterMs, hosts } = ending;
    this._machine.handle(signal, performance.now() / 1000, { code, retryAfterMs, jitterMs, hosts: hosts ?? [] });
    this._requests.linkEnded();
    this._posts.linkEnded();
    this._directs.linkEnded();
    this._memberships.linkEnded();
    if (this.state === "closed") {
      this._end(code, reason);
      return;
    }
    const retryInMs = this._machine.delayS * 1000;
    this._emit("state", { state: this.state, reason, code, retryInMs });
    this._after(retryInMs, () => {
      this._signal("timer");
      this._connect();
    });
  }

  _end(code, reason) {
    this.closed = new ClosedError(code, reason);
    if (this.state !== "closed") this._machine.handle("close", performance.now() / 1000);
    for (const timer of this._timers) clearTimeout(timer);
    this._timers.clear();
    this._requests.linkEnded();
    this._memberships.close(reason);
    this._emit("state", { state: "closed", reason, code, retryInMs: null });
    this._emit("closed", { code, reason });
  }

  _signal(signal) {
    this._machine.handle(signal, performance.now() / 1000);
    this._emit("state", { state: this.state, reason: "", code: null, retryInMs: null });
  }

  _renewLater(link, expiresAtMs) {
    if (!expiresAtMs || !this._credentials.hasSource) return;
    const leftMs = expiresAtMs - this.serverNow();
    const waitMs = Math.min(leftMs * (0.75 + 0.2 * this._random()), 86_400_000);
    if (leftMs <= 0) return;
    link.after(Math.max(waitMs, 0), () => this._renew(link, expiresAtMs, 0));
  }

  async _renew(link, expiresAtMs, failures) {
    if (expiresAtMs - this.serverNow() > 2 * 86_400_000) {
      this._renewLater(link, expiresAtMs);
      return;
    }
    try {
      const token = await this._credentials.newer();
      if (link.isEnded) return;
      link.ping(token, this._requests.next());
    } catch {
      link.after(backoffS(failures, this._random) * 1000, () => this._renew(link, expiresAtMs, failures + 1));
    }
  }

  onPong(pong) {
    if (pong.rttMs !== undefined) this.rttMs = pong.rttMs;
    this.missedChat = this._missedEarlier + pong.missed_chat;
    this._credentials.onTicket(pong.ticket, performance.now());
    for (const { room: number, online, interval_ms: intervalMs } of pong.rooms) {
      const room = this._memberships.ofNumber(number);
      if (room) Object.assign(room, { online, intervalMs });
    }
    if (pong.expires_at_ms && this._link) this._renewLater(this._link, pong.expires_at_ms);
  }

  onFrame(frame, message) {
    const { opcode, room: number, sequence } = frame;
    const room = this._memberships.ofNumber(number);
    if (opcode === OPCODES.TICK) room?._onTick(sequence, message);
    else if (opcode === OPCODES.EVENT) room?._onEvent(frame, message);
    else if (opcode === OPCODES.STATE) room?._onState(sequence, message);
    else if (opcode === OPCODES.ACK) this._posts.onAck(message);
    else if (opcode === OPCODES.RESULT) this._requests.take(sequence, "call")?.resolve(message);
    else if (opcode === OPCODES.DIRECT) this._directs.onDirect(message);
    else if (opcode === OPCODES.AUTH) this._requests.take(sequence, "auth")?.resolve(message);
    else if (opcode === OPCODES.ERROR) this._requests.take(sequence)?.reject(requestError(message));
    else if (opcode === OPCODES.LEAVE) this._memberships.onLeft(sequence, room, message);
    else this._memberships.onJoined(number, sequence, message);
  }

  // ---- waiting

  _raiseIfClosed() {
    if (this.closed) throw this.closed;
  }

  async _until(condition, timeoutMs, what) {
    this._raiseIfClosed();
    if (condition()) return;
    await new Promise((resolve, reject) => {
      const removers = [];
      const finish = (settle, value) => {
        clearTimeout(timer);
        this._timers.delete(timer);
        for (const remove of removers) remove();
        settle(value);
      };
      const check = () => {
        if (this.closed) finish(reject, this.closed);
        else if (condition()) finish(resolve);
      };
      const timer = setTimeout(() => finish(reject, new NoAnswerError(`${what} within ${timeoutMs} ms`, false)), timeoutMs);
      for (const name of ["state", "change"]) removers.push(this.on(name, check));
      for (const room of this._memberships.byName.values()) removers.push(room.on("ended", check));
    });
  }

  _sleep(ms) {
    return new Promise((resolve) => this._after(ms, resolve));
  }

  _after(ms, task) {
    const timer = setTimeout(() => {
      this._timers.delete(timer);
      task();
    }, ms);
    this._timers.add(timer);
  }
}
