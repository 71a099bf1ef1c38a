// Posts of one client: what became of each, also of those that are held, and posting again.
import { ArgumentError, NoAnswerError } from "./errors.js";
import { payloadArray, postResult, typeNumber, unknownResult } from "./requests.js";
import { numberOf } from "./rules.js";
import { OPCODES } from "./tables.js";

const MAX_OPEN = 1024;
const MAX_HELD = 256;
const MAX_PENDING_BYTES = 256 * 1024;
const CHAT_LANE = 3;
const LANES = { announcement: 0, room_phase: 0, gift: 2, highlight: 2, media: 1, messages_deleted: 1 };
const EXTRA_MS = 1000;

/** Sender of the posts of a client. */
export class Posts {
  constructor(client) {
    this._client = client;
    /** Posts that are held, by their number: a second result follows when they are decided. */
    this._held = new Map();
  }

  /** See `Client.post`. */
  async post(room, type, payload, { id, retry, timeoutMs }) {
    const number = typeNumber(type, this._client.customTypes);
    if (number === undefined) throw new ArgumentError(`message type ${type} is not known`);
    const body = [number, id ?? newId(this._client._random), payloadArray(number, payload)];
    const until = performance.now() + timeoutMs;
    for (;;) {
      const result = await this._once(room, type, body, Math.max(0, until - performance.now()));
      const isAgain = result.outcome === null || result.outcome === "limited" || result.outcome === "unavailable";
      if (!retry || !isAgain || this._client.closed || room.membership === "ended") return result;
      const pauseMs = result.retryAfterMs + this._client._random() * EXTRA_MS;
      if (performance.now() + pauseMs >= until) return result;
      await this._client._sleep(pauseMs);
      try {
        await this._client._until(() => room.isJoined || room.membership === "ended", until - performance.now(), "no link");
      } catch {
        return result;
      }
    }
  }

  async _once(room, type, body, timeoutMs) {
    const link = this._client._link;
    const id = body[1];
    const isFull = this._client._requests.size >= MAX_OPEN || (link && link.pending > MAX_PENDING_BYTES);
    if (!room.isJoined || !link || isFull) return unknownResult(id, false);
    const sequence = this._client._requests.next();
    const answered = this._client._requests.open(sequence, "post", room, timeoutMs);
    link.send(OPCODES.POST, body, room.number, sequence);
    try {
      const { answer, ack } = await answered;
      const lane = LANES[type] ?? this._client.customTypes.find((each) => each.type === body[0])?.lane ?? CHAT_LANE;
      const result = postResult(id, answer, ack, typeof lane === "string" ? numberOf("Lane", lane) : lane);
      if (result.outcome === "held") this._hold(sequence, { room, id });
      return result;
    } catch (error) {
      if (error instanceof NoAnswerError) return unknownResult(id, error.sent);
      return { ...unknownResult(id, true), outcome: "rejected", error: error.error, reason: error.message,
               detail: error.code, retryAfterMs: error.retryAfterMs };
    }
  }

  /** Keep the request of a held message: a second result follows when it is decided. */
  _hold(sequence, held) {
    this._held.set(sequence, held);
    if (this._held.size > MAX_HELD) this._held.delete(this._held.keys().next().value);
  }

  /** Settle the posts that an ACK answers. */
  onAck(ack) {
    for (const answer of ack.results) {
      const request = this._client._requests.take(answer.sequence, "post");
      if (request) request.resolve({ answer, ack });
      else {
        const held = this._held.get(answer.sequence);
        if (!held) continue;
        this._held.delete(answer.sequence);
        held.room._emit("decided", postResult(held.id, answer, ack, CHAT_LANE));
      }
    }
  }

  linkEnded() {
    this._held.clear();
  }
}

function newId(random) {
  return `${Date.now().toString(36)}-${Math.floor(random() * 2 ** 40).toString(36)}`;
}
