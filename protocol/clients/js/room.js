// Room: one membership over any number of links. Its position in the stream decides which events are new.
import { Emitter } from "./emitter.js";
import { ArgumentError } from "./errors.js";
import { LikeSender } from "./likes.js";
import { readPayload } from "./rules.js";
import { ENUMS } from "./tables.js";

const SPAN = 2 ** 32;
const NOT_ADDRESSED = 15;
const ACTIVITY_COUNTER_LANE = 4;
const AFTER_JOIN = new Set(["tick", "event", "counter", "state", "gap", "decided"]);

/** Return the offset of a header's 32 bits for a reader at `last`: the nearest one with these low bits. */
export function fullOffset(last, sequence) {
  const ahead = (((sequence - last + SPAN / 2) % SPAN) + SPAN) % SPAN;
  return Math.max(0, last + ahead - SPAN / 2);
}

/** Return what a reader at `before` has lost when the stream is at `now`, or null; see `protocol/resume.py`. */
export function missing(before, now, recovered) {
  const epochChanged = before.epoch !== now.epoch || before.offset > now.offset;
  if (recovered && !epochChanged) return null;
  const first = epochChanged ? 1 : before.offset + 1;
  if (first > now.offset && !epochChanged) return null;
  return { first, last: now.offset, epochChanged };
}

/** Name of a message type: that of the wire, the deployment's for its own types, else its number. */
export function typeName(type, customTypes) {
  return ENUMS.MessageType[type] ?? customTypes.find((each) => each.type === type)?.name ?? type;
}

/**
 * A room that the client is in. Events:
 * joined {snapshot, recovered} · tick · event · counter · state · gap {first, last, epochChanged} ·
 * left {reason, message, isFinal} · ended {reason, message}. README.md has their fields.
 */
export class Room extends Emitter {
  constructor(client, name, tier) {
    super();
    this.name = name;
    this.tier = tier;
    /** "wanted", "requested", "joined", "leaving" or "ended". */
    this.membership = "wanted";
    this.number = 0;
    this.snapshot = null;
    this.role = null;
    this.phase = null;
    this.online = 0;
    this.users = 0;
    this.likes = 0;
    this.intervalMs = 0;
    /** Messages of chat since the first JOIN by what became of them, as the ticks' accounts sum up. */
    this.account = { admitted: 0, shown: 0, merged: 0, sampled: 0, expired: 0, held: 0 };
    this.position = null;
    this.duplicates = 0;
    this.refusals = 0;
    this._client = client;
    this._stateNumber = -1;
    this._early = null;
    this._likes = new LikeSender(
      (count) => this.post("like", [count]),
      () => this.membership !== "ended" && this.membership !== "leaving",
    );
  }

  get isJoined() {
    return this.membership === "joined";
  }

  /** What became of the likes given to `like`: {waiting, counted, refused, unknown}. */
  get likeCounts() {
    return { ...this._likes.counts };
  }

  /** See `Client.post`. */
  post(type, payload, options) {
    return this._client.post(this, type, payload, options);
  }

  /** Post a danmaku. */
  say(text, style = null) {
    return this.post("danmaku", [text, style]);
  }

  /** Give likes: summed here, sent once a second. */
  like(count = 1) {
    if (this.membership === "ended") throw new ArgumentError(`room ${this.name} was left`);
    this._likes.add(count);
  }

  /** Call an operation for this room. */
  call(operation, args = {}, options = {}) {
    return this._client.call(operation, args, { ...options, room: this });
  }

  /** Leave the room; resolves when the broker has answered or the link has ended. */
  leave() {
    return this._client.leave(this);
  }

  // ---- called by the client

  _joined(number, answer, recoveredClaim) {
    const before = this.position;
    const isFirst = this.snapshot === null;
    if (isFirst) this._holdEarly();
    const now = { epoch: answer.epoch, offset: answer.offset };
    const lost = before === null ? null : missing(before, now, recoveredClaim);
    const recovered = recoveredClaim && lost === null;
    this.number = number;
    this.membership = "joined";
    this.refusals = 0;
    this._stateNumber = -1;
    this.snapshot = withPayloads(answer, this._client.customTypes);
    this.role = answer.role;
    this.likes = answer.likes;
    this._count(answer);
    if (!recovered) this.position = now;
    this._emit("joined", { snapshot: this.snapshot, recovered, isFirst });
    if (lost) this._emit("gap", lost);
    this._likes._plan(0);
  }

  /** Keep what comes in one read with the answer to JOIN until `join` has resolved and listeners are there. */
  _holdEarly() {
    this._early = [];
    setTimeout(() => {
      const early = this._early;
      this._early = null;
      for (const [name, event] of early) super._emit(name, event);
    });
  }

  _emit(name, event) {
    if (this._early && AFTER_JOIN.has(name)) this._early.push([name, event]);
    else super._emit(name, event);
  }

  _count({ online, users, phase, interval_ms: intervalMs }) {
    this.online = online;
    this.users = users;
    this.phase = phase;
    this.intervalMs = intervalMs;
  }

  _onEvent(frame, event) {
    const payload = readPayload(event.type, event.payload);
    const type = typeName(event.type, this._client.customTypes);
    if (frame.lane === ACTIVITY_COUNTER_LANE) {
      this._emit("counter", { atMs: event.at_ms, name: payload?.event, id: payload?.id, data: payload?.data });
      return;
    }
    if (this.position === null) return;
    const last = this.position.offset;
    const offset = fullOffset(last, frame.sequence);
    if (offset <= last) {
      this.duplicates += 1;
      return;
    }
    if (offset > last + 1) this._emit("gap", { first: last + 1, last: offset - 1, epochChanged: false });
    this.position = { epoch: this.position.epoch, offset };
    if (event.type === NOT_ADDRESSED) return;
    if (type === "room_phase" && payload?.phase) this.phase = payload.phase;
    this._emit("event", {
      offset, lane: frame.lane, type, atMs: event.at_ms, userId: event.user_id, name: event.name, payload,
    });
  }

  _onTick(number, tick) {
    this.intervalMs = tick.interval_ms;
    const entries = tick.entries.map((entry) => readEntry(entry, this._client.customTypes));
    const account = tick.account ?? accountOf(entries);
    for (const name of Object.keys(this.account)) this.account[name] += account[name];
    this._emit("tick", {
      number, atMs: tick.at_ms, intervalMs: tick.interval_ms, stage: tick.stage, entries, account,
    });
  }

  _onState(number, state) {
    const isNewer = this._stateNumber < 0 || (number - this._stateNumber + SPAN) % SPAN < SPAN / 2;
    if (!isNewer) return;
    this._stateNumber = number;
    this._count(state);
    this.likes = state.likes;
    this._emit("state", state);
  }

  _deferred() {
    this.number = 0;
    if (this.membership === "joined" || this.membership === "requested") this.membership = "wanted";
    else if (this.membership === "leaving") this._end("requested", "");
  }

  _end(reason, message) {
    if (this.membership === "ended") return;
    this.membership = "ended";
    this.number = 0;
    this._likes.stop();
    this._emit("ended", { reason, message });
  }
}

/** Return the account of a tick that has none: every message was shown or merged. */
function accountOf(entries) {
  const admitted = entries.reduce((sum, entry) => sum + entry.count, 0);
  return { admitted, shown: entries.length, merged: admitted - entries.length, sampled: 0, expired: 0, held: 0 };
}

function readEntry(entry, customTypes) {
  return {
    type: typeName(entry.type, customTypes), userId: entry.user_id, name: entry.name,
    payload: readPayload(entry.type, entry.payload), count: entry.count, senders: entry.senders, role: entry.role,
  };
}

function withPayloads(snapshot, customTypes) {
  return {
    ...snapshot,
    recent: snapshot.recent.map((entry) => readEntry(entry, customTypes)),
    pinned: snapshot.pinned.map((pin) => ({ ...pin, payload: readPayload(pin.type, pin.payload) })),
    announcement: snapshot.announcement && {
      ...snapshot.announcement, payload: readPayload(snapshot.announcement.type, snapshot.announcement.payload),
    },
  };
}
