// Must-deliver messages: each is given to the application once, and acknowledged when its listener has returned.
import { readPayload } from "./rules.js";
import { typeName } from "./room.js";

const SEEN = 1024;
const ACK_INTERVAL_MS = 1000;

/** Receiver of DIRECT messages. `acknowledge(id)` sends an ACK, if there is a link. */
export class Directs {
  constructor(client, acknowledge) {
    this._client = client;
    this._acknowledge = acknowledge;
    // By id and time: a broker without a ledger counts from 1 again after a restart, and those are new messages.
    this._seen = new Set();
    this._waiting = null;
    this._timer = null;
    this._ackedAt = -Infinity;
  }

  onDirect(direct) {
    const event = {
      id: direct.direct_id, atMs: direct.at_ms, type: typeName(direct.type, this._client.customTypes),
      payload: readPayload(direct.type, direct.payload),
    };
    if (!direct.direct_id) {
      const isMissed = event.type === "missed";
      if (isMissed) {
        const [chat = 0, ambient = 0] = Array.isArray(direct.payload) ? direct.payload : [];
        event.payload = { chat, ambient };
        this._client.missedChat += chat;
      }
      this._client._emit(isMissed ? "missed" : "direct", event);
      return;
    }
    const key = `${direct.direct_id} ${direct.at_ms}`;
    if (!this._seen.has(key)) {
      // Without a listener nothing is acknowledged: the broker keeps the message and sends it on the next link.
      if (!this._client.hasListener("direct")) return;
      this._seen.add(key);
      if (this._seen.size > SEEN) this._seen.delete(this._seen.values().next().value);
      this._client._emit("direct", event);
    }
    this._waiting = direct.direct_id;
    this._plan();
  }

  _plan() {
    if (this._timer !== null) return;
    const waitMs = Math.max(0, this._ackedAt + ACK_INTERVAL_MS - performance.now());
    this._timer = setTimeout(() => {
      this._timer = null;
      this.flush();
    }, waitMs);
    this._timer.unref?.();
  }

  flush() {
    if (this._waiting === null) return;
    const id = this._waiting;
    this._waiting = null;
    this._ackedAt = performance.now();
    this._acknowledge(id);
  }

  linkEnded() {
    clearTimeout(this._timer);
    this._timer = null;
    this._waiting = null;
  }
}
