// Rooms of one client: they are requested again on each link, from their position, until they are left or refused.
import { ArgumentError, NoAnswerError } from "./errors.js";
import { backoffS } from "./reconnect.js";
import { Room } from "./room.js";
import { numberOf } from "./rules.js";
import { OPCODES } from "./tables.js";

const REQUEST_MS = 30_000;

/** The rooms of a client, by name. */
export class Memberships {
  constructor(client) {
    this._client = client;
    this.byName = new Map();
  }

  /** See `Client.join`. */
  async join(name, { tier, timeoutMs }) {
    if (typeof name !== "string" || !name) throw new ArgumentError("the name of a room is a text");
    if (numberOf("Tier", tier) === undefined) throw new ArgumentError("tier must be full, medium or low");
    this._client._raiseIfClosed();
    let room = this.byName.get(name);
    if (!room) {
      room = new Room(this._client, name, tier);
      this.byName.set(name, room);
      if (this._client._link) this._request(room);
    }
    if (room.isJoined) return room;
    let refusal = null;
    const remove = room.on("ended", ({ error }) => (refusal = error ?? new NoAnswerError(`room ${name} was left`, true)));
    try {
      await this._client._until(() => room.isJoined || refusal !== null, timeoutMs, `no answer to JOIN of ${name}`);
    } catch (error) {
      if (!room.snapshot) this._forget(room);
      throw error;
    } finally {
      remove();
    }
    if (refusal) throw refusal;
    return room;
  }

  /** See `Room.leave`. */
  async leave(room) {
    if (room.membership !== "joined") {
      this._forget(room);
      return;
    }
    room.membership = "leaving";
    const sequence = this._client._requests.next();
    this._client._link.send(OPCODES.LEAVE, [], room.number, sequence);
    try {
      await this._client._requests.open(sequence, "leave", room, REQUEST_MS);
    } catch {
      // the link has ended, and the room with it
    }
    this._forget(room);
  }

  /** Return the room of a number that the broker gave, or undefined. */
  ofNumber(number) {
    for (const room of this.byName.values()) if (room.number === number && number) return room;
    return undefined;
  }

  _request(room) {
    if (room.membership !== "wanted" || !this._client._link) return;
    room.membership = "requested";
    const sequence = this._client._requests.next();
    const tier = numberOf("Tier", room.tier);
    const answered = this._client._requests.open(sequence, "join", room, REQUEST_MS);
    if (room.position) {
      const { epoch, offset } = room.position;
      this._client._link.send(OPCODES.RESUME, [room.name, tier, epoch, offset], 0, sequence);
    } else this._client._link.send(OPCODES.JOIN, [room.name, tier], 0, sequence);
    answered.catch((error) => {
      if (error instanceof NoAnswerError) {
        if (room.membership === "requested") room.membership = "wanted";
        if (this._client._link?.user) this._requestLater(room, 0);
      } else this._refused(room, error);
    });
  }

  _refused(room, error) {
    const isLater = error.error === "rate_limited" || (error.code >= 300 && error.code < 400 && room.snapshot);
    if (isLater && room.membership === "requested") {
      room.membership = "wanted";
      this._requestLater(room, error.retryAfterMs);
      return;
    }
    room.membership = "ended";
    room.number = 0;
    this.byName.delete(room.name);
    room._emit("ended", { reason: "refused", message: error.message, error });
  }

  _requestLater(room, retryAfterMs) {
    const waitMs = Math.max(retryAfterMs, backoffS(room.refusals++, this._client._random) * 1000);
    this._client._after(waitMs, () => this._request(room));
  }

  _forget(room) {
    if (this.byName.get(room.name) === room) this.byName.delete(room.name);
    room._end("requested", "");
  }

  onJoined(number, sequence, message) {
    const request = this._client._requests.take(sequence, "join");
    if (!request) return;
    request.resolve(message);
    if (request.room.membership !== "requested") {
      // It was given up meanwhile.
      this._client._link.send(OPCODES.LEAVE, [], number, this._client._requests.next());
      return;
    }
    const isResume = message.snapshot !== undefined;
    request.room._joined(number, isResume ? message.snapshot : message, isResume && message.recovered);
    this._client._emit("change", {});
  }

  onLeft(sequence, room, message) {
    this._client._requests.take(sequence, "leave")?.resolve(message);
    if (!room) return;
    const isFinal = message.reason !== "room_crashed" || room.membership !== "joined";
    room._emit("left", { reason: message.reason, message: message.message, isFinal });
    if (isFinal) {
      this.byName.delete(room.name);
      room._end(message.reason, message.message);
    } else {
      room._deferred();
      this._requestLater(room, 0);
    }
  }

  /** Request every room on a new link. */
  linkOpened() {
    for (const room of this.byName.values()) this._request(room);
  }

  linkEnded() {
    for (const room of [...this.byName.values()]) {
      room._deferred();
      if (room.membership === "ended") this.byName.delete(room.name);
    }
  }

  close(reason) {
    for (const room of [...this.byName.values()]) room._end("closed", reason);
    this.byName.clear();
  }
}
