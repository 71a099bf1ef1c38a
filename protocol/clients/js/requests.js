// Open requests of one client: each has one answer, or none when its link or its time ends.
import { NoAnswerError, RequestError } from "./errors.js";
import { numberOf } from "./rules.js";
import { ENUMS, PAYLOADS, RECORDS } from "./tables.js";

/** Requests by their number. An answer, a timeout or the end of the link settles each of them once. */
export class Requests {
  constructor() {
    this._open = new Map();
    this._last = 0;
  }

  get size() {
    return this._open.size;
  }

  /** Return a request number. */
  next() {
    this._last = (this._last % 0xffffffff) + 1;
    return this._last;
  }

  /** Open the request `sequence`; `kind` and `room` say what its answer may be. Returns a promise of the answer. */
  open(sequence, kind, room, timeoutMs) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this._open.delete(sequence);
        reject(new NoAnswerError(`no answer within ${timeoutMs} ms`, true));
      }, timeoutMs);
      timer.unref?.();
      this._open.set(sequence, { kind, room, resolve, reject, timer });
    });
  }

  /** Return the open request of this number and end it; undefined if there is none of the kind. */
  take(sequence, ...kinds) {
    const request = this._open.get(sequence);
    if (!request || (kinds.length && !kinds.includes(request.kind))) return undefined;
    this._open.delete(sequence);
    clearTimeout(request.timer);
    return request;
  }

  /** End every request without an answer. */
  linkEnded() {
    for (const request of this._open.values()) {
      clearTimeout(request.timer);
      request.reject(new NoAnswerError("the link ended before the answer", true));
    }
    this._open.clear();
  }
}

/** Return the error of an ERROR message. */
export function requestError(reply) {
  return new RequestError(reply, ENUMS.ErrorCode[reply.code] ?? String(reply.code));
}

/** Return the number of a message type by its name, or undefined. */
export function typeNumber(type, customTypes) {
  if (typeof type === "number") return type;
  return numberOf("MessageType", type) ?? customTypes.find((each) => each.name === type)?.type;
}

/** Return a payload as the wire has it: an object with the names of the fields becomes an array. */
export function payloadArray(type, payload) {
  const fields = RECORDS[PAYLOADS[type]];
  if (!fields || Array.isArray(payload) || payload === null || typeof payload !== "object") return payload;
  const values = fields.map(([name, , fallback]) => payload[name] ?? fallback ?? null);
  while (values.length > 1 && fields[values.length - 1].length > 2 && payload[fields[values.length - 1][0]] === undefined) {
    values.pop();
  }
  return values;
}

/** Return what became of a post. `offset`: of its event, on lanes 0 to 2. */
export function postResult(id, answer, ack, lane) {
  const { outcome, detail } = answer;
  const reason = ack.reasons.find((each) => each.sequence === answer.sequence);
  const first = ack.firsts.find((each) => each.sequence === answer.sequence);
  const isWait = outcome === "limited" || outcome === "unavailable";
  return {
    id, outcome, detail, sent: true,
    error: outcome === "rejected" ? (ENUMS.ErrorCode[detail] ?? String(detail)) : null,
    retryAfterMs: isWait ? detail : (reason?.retry_after_ms ?? 0),
    reason: reason?.text ?? "",
    offset: lane < 3 && ["accepted", "merged", "masked"].includes(outcome) ? detail : null,
    first: first ?? null,
  };
}

/** Return the result of a post that has no answer. */
export function unknownResult(id, sent) {
  return { id, outcome: null, detail: 0, sent, error: null, retryAfterMs: 0, reason: "", offset: null, first: null };
}
