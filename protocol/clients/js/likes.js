// Likes of one room: summed, posted at most once a second, never posted twice.
import { ArgumentError } from "./errors.js";
import { LIMITS } from "./tables.js";

const INTERVAL_MS = 1000;

/** Sender of the likes of one room: each like is in one of `counts`. */
export class LikeSender {
  /** @param {(count: number) => Promise<object>} post posts a sum and resolves to its result */
  constructor(post, isActive) {
    this.counts = { waiting: 0, counted: 0, refused: 0, unknown: 0 };
    this._post = post;
    this._isActive = isActive;
    this._timer = null;
    this._isPosting = false;
  }

  /** Add `count` likes, sent within a second. */
  add(count) {
    if (!Number.isInteger(count) || count < 1 || count > LIMITS.maxLikesPerPost) {
      throw new ArgumentError(`count must be an integer from 1 to ${LIMITS.maxLikesPerPost}`);
    }
    this.counts.waiting += count;
    this._plan(INTERVAL_MS);
  }

  _plan(ms) {
    if (this._timer !== null || this._isPosting || !this.counts.waiting || !this._isActive()) return;
    this._timer = setTimeout(() => {
      this._timer = null;
      this._send();
    }, ms);
    this._timer.unref?.();
  }

  async _send() {
    this._isPosting = true;
    const { counts } = this;
    const sum = Math.min(counts.waiting, LIMITS.maxLikesPerPost);
    let waitMs = INTERVAL_MS;
    try {
      const result = await this._post(sum);
      if (result.outcome === "limited") waitMs = Math.max(result.retryAfterMs, INTERVAL_MS);
      else if (result.outcome === null && !result.sent) waitMs = INTERVAL_MS;
      else {
        counts.waiting -= sum;
        if (result.outcome === null) counts.unknown += sum;
        else {
          const counted = result.outcome === "accepted" ? Math.min(sum, result.detail) : 0;
          counts.counted += counted;
          counts.refused += sum - counted;
        }
      }
    } finally {
      this._isPosting = false;
      this._plan(waitMs);
    }
  }

  /** Stop: what waits is not sent any more. */
  stop() {
    clearTimeout(this._timer);
    this._timer = null;
  }
}
