// Credentials: what a client sends in AUTH on each new link: a text, a token of the application's function, or a ticket.
import { CLOSE } from "./errors.js";
import { webCrypto } from "./web_crypto.js";

const WANT_A_TOKEN = new Set([CLOSE.AUTH_FAILED, CLOSE.TOKEN_EXPIRED, CLOSE.TOKEN_REVOKED]);
const REFUSALS = 2;

/** Return the token of a new guest; who keeps it (in `localStorage`) is the same guest later. */
export function newGuestToken() {
  const bytes = webCrypto.getRandomValues(new Uint8Array(18));
  return `guest:${btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_")}`;
}

/** Credentials of one client. `token`: a text, a function that returns one (or a promise of one), or null for a guest. */
export class Credentials {
  constructor(token) {
    this._source = typeof token === "function" ? token : null;
    this._token = this._source ? null : (token ?? newGuestToken());
    this._ticket = "";
    this._ticketMs = 0;
    this._ticketUntil = -Infinity;
    this._isTicket = false;
    this._isUntested = false;
    this._refusals = 0;
  }

  get hasSource() {
    return this._source !== null;
  }

  /** Return the token for the next link. `now`: monotonic milliseconds. */
  async next(now) {
    this._isTicket = this._ticket !== "" && now < this._ticketUntil;
    if (this._isTicket) return this._ticket;
    if (this._source && !this._isUntested) return this.newer();
    return this._token;
  }

  /** Ask the application for a new token. */
  async newer() {
    const token = await this._source();
    if (typeof token !== "string" || !token) throw new Error("the function for tokens returned none");
    this._token = token;
    this._isUntested = true;
    return token;
  }

  /** The broker has accepted what was sent; its answer may hold a ticket. */
  accepted(user, now) {
    this._refusals = 0;
    this._isUntested = false;
    this._ticketMs = user.ticket_ms;
    this.onTicket(user.ticket, now);
  }

  onTicket(ticket, now) {
    if (ticket && this._source) {
      this._ticket = ticket;
      this._ticketUntil = now + this._ticketMs;
    }
  }

  /** Whether the next PING should ask for a new ticket. */
  wantsTicket(now) {
    return this._ticket !== "" && this._ticketMs > 0 && now >= this._ticketUntil - this._ticketMs / 2;
  }

  /** Another token was accepted on an open link. */
  changed(token) {
    this._token = token;
    this._isUntested = false;
    this._refusals = 0;
  }

  /** Return the ending for the reconnect machine: "lost" without a code where another token may be accepted. */
  classify(ending) {
    if (!this._source || !WANT_A_TOKEN.has(ending.code)) return ending;
    this._ticket = "";
    const again = { ...ending, signal: "lost", code: null };
    if (this._isTicket) return again;
    this._isUntested = false;
    if (ending.code !== CLOSE.TOKEN_EXPIRED && ++this._refusals >= REFUSALS) return ending;
    return again;
  }
}
