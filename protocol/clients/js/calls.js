// Calls of one client: at most as many in flight as the broker takes, and a bounded number that wait.
import { NoAnswerError } from "./errors.js";
import { operationNumber, prepare, readResult } from "./operations.js";
import { LIMITS, OPCODES } from "./tables.js";

const MAX_WAITING = 256;

/** Sender of the calls of a client. */
export class Calls {
  constructor(client, isText) {
    this._client = client;
    this._isText = isText;
    this._open = 0;
    this._waiting = [];
  }

  /** See `Client.call`. */
  async call(operation, args, { key, room, timeoutMs }) {
    const client = this._client;
    prepare(operation);
    await client.opened({ timeoutMs });
    if (!client._link?.hasCalls) throw new NoAnswerError("the broker has no operations", false);
    if (this._open >= LIMITS.maxCalls) {
      if (this._waiting.length >= MAX_WAITING) throw new NoAnswerError("too many calls wait", false);
      await new Promise((resolve) => this._waiting.push(resolve));
    }
    this._open += 1;
    try {
      const link = client._link;
      if (!link?.user) throw new NoAnswerError("the link ended before the call", false);
      const sequence = client._requests.next();
      const answered = client._requests.open(sequence, "call", room, timeoutMs);
      const name = this._isText ? operation : operationNumber(operation);
      link.send(OPCODES.CALL, [name, key, args], room?.isJoined ? room.number : 0, sequence);
      return readResult(operation, (await answered).result);
    } finally {
      this._open -= 1;
      this._waiting.shift()?.();
    }
  }
}
