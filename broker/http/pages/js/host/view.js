// What the desk shows, folded from what the room says. Pure: no document, no socket, times are arguments.

import { begins, changed } from "../room/view.js";

export const SECONDS = 60;
const QUESTION = /[?\uff1f]|\u5417|\u5462|\u600e\u4e48|\u4ec0\u4e48|\u591a\u5c11|\u51e0|\u6709\u6ca1\u6709|\u54ea|^(how|what|when|where|which|who|why|can|could|does|do|is|are|will)\b/i;

export const isQuestion = (text) => QUESTION.test(text.trim());
export const sameText = (text) => text.normalize("NFKC").toLowerCase().replace(/[\s?\uff1f!\uff01.\u3002,\uff0c~]+/gu, "");

/** Questions of the last minute, equal ones counted together. Bounded: the oldest go first. */
export class Questions {
  constructor(most = 200) { this.most = most; this.items = new Map(); }

  add(text, count, atMs) {
    if (!isQuestion(text)) return;
    const key = sameText(text), item = this.items.get(key) ?? { key, text, seen: [], answered: false };
    item.seen.push([atMs, count]);
    if (item.seen.length > 120) item.seen.shift();
    this.items.delete(key);
    this.items.set(key, item);
    if (this.items.size > this.most) this.items.delete(this.items.keys().next().value);
  }

  answer(key) { const item = this.items.get(key); if (item) item.answered = true; }

  /** The most asked: {key, text, count, answered}; what is older than a minute is forgotten. */
  top(nowMs, most = 6) {
    const from = nowMs - SECONDS * 1000, found = [];
    for (const [key, item] of this.items) {
      item.seen = item.seen.filter(([at]) => at > from);
      if (!item.seen.length) this.items.delete(key);
      else found.push({ key, text: item.text, answered: item.answered, count: item.seen.reduce((sum, [, n]) => sum + n, 0) });
    }
    return found.sort((a, b) => a.answered - b.answered || b.count - a.count).slice(0, most);
  }
}

/** Series of one number a second, the newest last. */
export class Series {
  constructor() { this.data = []; }
  push(values) { this.data = [...this.data, ...values].slice(-SECONDS); }
  get last() { return this.data.at(-1) ?? 0; }
  /** Change of the last ten seconds against the ten before, in per cent; null where there is nothing to compare. */
  get trend() {
    const mean = (data) => data.reduce((sum, n) => sum + n, 0) / data.length, now = this.data.slice(-10), before = this.data.slice(-20, -10);
    if (before.length < 10 || !mean(before)) return null;
    return Math.round((mean(now) / mean(before) - 1) * 100);
  }
}

/** Money of gifts over the last minute. */
export class Money {
  constructor() { this.seen = []; }
  add(cents, atMs) { this.seen.push([atMs, cents]); if (this.seen.length > 5000) this.seen.shift(); }
  lastMinute(nowMs) { this.seen = this.seen.filter(([at]) => at > nowMs - 60000); return this.seen.reduce((sum, [, cents]) => sum + cents, 0); }
}

const OVER = new Set(["closed", "settled", "cancelled", "finished", "voided", "drawn", "revealed", "expired", "emptied", "ended", "result", "idle", "done"]);
const STAYS_MS = 60_000, MOST_LEFT = 50;
const stateOf = (data) => data.state ?? data.phase ?? "open";
const keyOf = ({ kind, id }) => `${kind} ${id}`;

/** Activities as the last read has them and as events have changed them since. The broker's list leaves out what is settled: here a
 * result stays for a minute after it has left the list. */
export class Activities {
  constructor() { this.items = []; this.left = new Map(); }

  /** Takes the whole list. */
  read(items, nowMs) {
    const there = new Set(items.map(keyOf));
    for (const item of this.items) if (!there.has(keyOf(item)) && OVER.has(stateOf(item.data))) this.left.set(keyOf(item), { item, atMs: nowMs });
    for (const [key, { atMs }] of this.left) if (there.has(key) || nowMs - atMs > STAYS_MS || this.left.size > MOST_LEFT) this.left.delete(key);
    this.items = items;
  }

  /** Takes an event or a counter of one. */
  take(name, id, fields) {
    const [kind] = name.split("."), item = this.items.find((each) => each.kind === kind && each.id === id) ?? this.left.get(`${kind} ${id}`)?.item;
    if (item) item.data = changed(item, name, fields);
    else if (begins(name)) this.items = [...this.items, { kind, id, data: changed({ kind, id, data: {} }, name, fields) }];
  }

  /** All that is to be shown. */
  all() { return [...this.items, ...[...this.left.values()].map(({ item }) => item)]; }
}

const KINDS = ["sales", "packets", "rains", "lotteries", "polls", "quizzes", "countdowns", "coupons", "pk"];

/** Activities that run or have just ended, what ends first on top: {kind, id, data, endsAt, startsAt, isOver, part}. */
export function running(items) {
  return items.filter(({ kind }) => KINDS.includes(kind)).map(({ kind, id: key, data }) => {
    const id = key || data.id; // a room has one PK at a time, whose key is empty
    const terms = data.terms ?? data.question?.terms ?? {};
    const state = stateOf(data);
    return {
      kind, id, data, state, isOver: OVER.has(state),
      startsAt: data.open_at_ms ?? data.start_at_ms ?? terms.open_at_ms ?? 0,
      endsAt: data.close_at_ms ?? data.expire_at_ms ?? data.deadline_ms ?? data.ends_at_ms ?? (data.start_at_ms ? data.start_at_ms + data.span_ms : null) ?? terms.close_at_ms ?? null,
      part: kind === "sales" ? data.confirmed / data.stock : kind === "packets" ? data.taken / data.count : null,
    };
  }).sort((a, b) => a.isOver - b.isOver || (a.endsAt || Infinity) - (b.endsAt || Infinity));
}

/** The shelf in its order, and what is explained. */
export function shelf(items, explaining) {
  const rows = items.map(({ product, arranged, clicks }) => ({ ...product, clicks, place: arranged ?? product.position }));
  rows.sort((a, b) => a.place - b.place || (a.id < b.id ? -1 : 1));
  const at = rows.findIndex((row) => row.id === explaining);
  return { rows, now: rows[at] ?? null, next: rows[(at + 1) % rows.length] ?? null };
}
