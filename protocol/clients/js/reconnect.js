// State machine of reconnecting, by the same table as the Python client's: whether a client whose link has ended
// connects again, when, and to which host. Nothing here waits or reads a clock.
import { RECONNECT, TRANSITIONS } from "./reconnect_table.js";

/** Stands for the host of the address that the application gave. */
export const CONFIGURED_HOST = "";
const ENDINGS = new Set(["lost", "refused", "goaway"]);

/** Return what a client does after a close code: "now", "backoff" or "never". */
export function reconnectAdvice(code) {
  if (code >= 4000 && code <= 4199) return "now";
  if (code >= 4400 && code <= 4599) return "never";
  return "backoff";
}

/** Return the seconds to wait after failure `attempt` (0 = the first): full jitter; the upper bound doubles. */
export function backoffS(attempt, random) {
  const { minBackoffS, maxBackoffS } = RECONNECT;
  const high = Math.min(maxBackoffS, minBackoffS * 2 ** Math.min(attempt + 1, 16));
  return minBackoffS + random() * (high - minBackoffS);
}

/** Reconnect decisions of one client. In "connecting" connect to `host`, in "waiting" signal "timer" after `delayS`. */
export class Reconnect {
  /** @param {() => number} random uniform in [0, 1) */
  constructor(random = Math.random) {
    this.state = "idle";
    this.delayS = 0;
    /** The peer's last close code, null if it sent none. */
    this.code = null;
    /** Failures in a row, 0 after a link that lasted 30 s. */
    this.attempt = 0;
    this._random = random;
    this._hosts = [CONFIGURED_HOST];
    this._place = 0;
    this._openedAt = null;
  }

  get host() {
    return this._hosts[this._place];
  }

  /**
   * Process one signal and return the new state. `now`: monotonic seconds. `code`: one that the peer sent.
   * @throws {Error} where the table has no key; nothing changes then
   */
  handle(signal, now, { code = null, retryAfterMs = 0, jitterMs = 0, hosts = [] } = {}) {
    const isTerminal = ENDINGS.has(signal) && code !== null && reconnectAdvice(code) === "never";
    const state = TRANSITIONS[`${this.state} ${isTerminal ? "terminal" : signal}`];
    if (state === undefined) throw new Error(`${signal} may not come when ${this.state}`);
    if (signal === "authenticated") this._openedAt = now;
    else if (ENDINGS.has(signal)) {
      this.code = code;
      if (state === "waiting") this._plan(now, code, retryAfterMs, jitterMs, hosts);
      this._openedAt = null;
    }
    this.state = state;
    return state;
  }

  _plan(now, code, retryAfterMs, jitterMs, hosts) {
    const { stableS, maxPeerDelayS, nowJitterS } = RECONNECT;
    if (this._openedAt !== null && now - this._openedAt >= stableS) this.attempt = 0;
    const peerS =
      Math.min(retryAfterMs / 1000, maxPeerDelayS) + this._random() * Math.min(jitterMs / 1000, maxPeerDelayS);
    const isSoon = code !== null && reconnectAdvice(code) === "now";
    const ownS = isSoon && !this.attempt ? this._random() * nowJitterS : backoffS(this.attempt, this._random);
    const hasPeerDelay = retryAfterMs > 0 || jitterMs > 0;
    this.delayS = hasPeerDelay && !this.attempt ? peerS : Math.max(peerS, ownS);
    this.attempt += 1;
    if (hosts.length) {
      this._hosts = [...shuffled(hosts, this._random), CONFIGURED_HOST];
      this._place = 0;
    } else if (this._openedAt === null) this._place = (this._place + 1) % this._hosts.length;
  }
}

function shuffled(values, random) {
  const found = [...values];
  for (let index = found.length - 1; index > 0; index--) {
    const other = Math.floor(random() * (index + 1));
    [found[index], found[other]] = [found[other], found[index]];
  }
  return found;
}
