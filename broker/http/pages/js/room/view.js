// What is going on in a room, folded from the answer to JOIN and the events after it. Pure: no document, no socket; times are arguments.

const OVER_STAYS_MS = 60_000, MOST_OWNED = 100;
const OVER = new Set(["closed", "settled", "cancelled", "done", "drawn", "voided", "revealed", "finished", "ended"]);
const lower = (name) => (typeof name === "string" ? name.toLowerCase() : name);

/** How an event changes the data of its activity: (data, fields of the event) => changes. */
const CHANGES = {
  "sales.scheduled": (_, e) => ({ ...e, state: "scheduled" }),
  "sales.opened": (data, e) => ({ ...e, available: data.available ?? e.stock, state: "open" }),
  "sales.price_changed": (_, e) => e,
  "sales.restocked": (_, e) => e,
  "sales.sold_out": (_, e) => ({ ...e, available: 0 }),
  "sales.counted": (_, e) => e,
  "sales.closed": (_, e) => ({ ...e, state: "closed" }),
  "sales.cancelled": (_, e) => ({ ...e, state: "cancelled" }),
  "sales.settled": (_, e) => ({ confirmed: e.confirmed, state: "settled" }),
  "packets.scheduled": (_, e) => ({ ...e, state: "scheduled", taken: 0 }),
  "packets.opened": (_, e) => ({ ...e, state: "open" }),
  "packets.counted": (_, e) => e,
  "packets.emptied": (data, e) => ({ state: "done", taken: data.count, last: e.name }),
  "packets.expired": (_, e) => ({ ...e, state: "done" }),
  "packets.cancelled": () => ({ state: "cancelled" }),
  "packets.settled": (_, e) => ({ ...e, state: "settled" }),
  "rains.scheduled": (_, e) => ({ ...e, state: "running", fallen: 0, shown: [] }),
  "rains.drop_announced": (data, e) => ({ shown: [...without(data.shown, e.packet), { packet: e.packet, is_open: false, taken: 0, open_at_ms: e.open_at_ms }] }),
  "rains.drop_opened": (data, e) => ({ fallen: (data.fallen ?? 0) + 1, shown: [...without(data.shown, e.packet), { ...e, is_open: true, taken: 0 }] }),
  "rains.drop_emptied": (data, e) => ({ shown: without(data.shown, e.packet) }),
  "rains.drop_expired": (data, e) => ({ shown: without(data.shown, e.packet) }),
  "rains.drop_missed": (data, e) => ({ shown: without(data.shown, e.packet) }),
  "rains.drop_settled": (data, e) => ({ shown: without(data.shown, e.packet) }),
  "rains.cancelled": () => ({ state: "cancelled", shown: [] }),
  "rains.settled": (_, e) => ({ ...e, state: "settled", shown: [] }),
  "lotteries.announced": (_, e) => ({ ...e.terms, commitment: e.commitment, keyword: e.eligibility?.keyword ?? "", phase: "announced", entries: 0 }),
  "lotteries.opened": (_, e) => ({ ...e, phase: "open" }),
  "lotteries.counted": (_, e) => e,
  "lotteries.closed": (_, e) => ({ root: e.root, entries: e.entries, phase: "closed" }),
  "lotteries.drawn": (_, e) => ({ winner_count: e.winner_count, winners: e.winners, phase: "drawn" }),
  "lotteries.voided": (_, e) => ({ reason: e.reason, phase: "voided" }),
  "polls.opened": (_, e) => ({ state: "open", terms: e, voters: 0, counts: e.options.map(() => 0) }),
  "polls.counted": (_, e) => e,
  "polls.closed": (_, e) => ({ ...e, state: "closed" }),
  "polls.revealed": (_, e) => ({ answer: e, state: "revealed" }),
  "quizzes.opened": (_, e) => ({ ...e, state: "running", number: 0, question: null }),
  "quizzes.asked": (_, e) => ({ number: e.number, question: { state: "open", terms: e.question, voters: 0, counts: [] } }),
  "quizzes.counted": (data, e) => (e.number === data.number && data.question?.state === "open" ? { question: { ...data.question, voters: e.voters } } : {}),
  "quizzes.closed": (data, e) => ({ question: { ...data.question, ...e.result, state: "closed" } }),
  "quizzes.revealed": (data, e) => ({ survivors: e.survivors, question: { ...data.question, state: "revealed", answer: { option: e.option } } }),
  "quizzes.finished": (_, e) => ({ end: e, state: "finished" }),
  "quizzes.cancelled": () => ({ state: "cancelled" }),
  "coupons.opened": (_, e) => ({ ...e, exhausted: false, state: "open" }),
  "coupons.exhausted": () => ({ exhausted: true }),
  "coupons.refilled": () => ({ exhausted: false }),
  "coupons.closed": () => ({ state: "closed" }),
  "countdowns.started": (_, e) => ({ ...e, state: "open" }),
  "countdowns.moved": (_, e) => e,
  "pk.started": (_, e) => ({ ...e, phase: "running", score: 0, other_score: 0 }),
  "pk.score_changed": (_, e) => e,
  "pk.ended": (_, e) => ({ ...e, phase: "ended" }),
  "mic.seat_taken": (data, e) => ({ taken: [...(data.taken ?? []).filter(({ seat }) => seat !== e.seat), { ...e, is_muted: false }] }),
  "mic.seat_left": (data, e) => ({ taken: (data.taken ?? []).filter(({ seat }) => seat !== e.seat) }),
  "mic.seat_muted": (data, e) => ({ taken: (data.taken ?? []).map((each) => (each.seat === e.seat ? { ...each, is_muted: e.is_muted } : each)) }),
  "mic.seats_changed": (_, e) => e,
  "moderation.modes_changed": (_, e) => e,
  "rankings.changed": (_, e) => e,
};
/** Counters, which events overtake: one that comes after the end of its activity is older, and not taken. */
const COUNTERS = new Set(["sales.counted", "packets.counted", "lotteries.counted", "polls.counted", "quizzes.counted", "pk.score_changed"]);
/** Events that begin an activity; what else comes of one that is not here is of one that is over, or was never shown. */
const BEGINS = new Set(["sales.scheduled", "packets.scheduled", "rains.scheduled", "lotteries.announced", "polls.opened", "quizzes.opened", "coupons.opened", "countdowns.started", "rankings.changed"]);
export const begins = (name) => BEGINS.has(name);
/** Returns the data of an activity after an event or a counter of it. */
export function changed(item, name, fields) {
  const change = CHANGES[name];
  return change && !(COUNTERS.has(name) && OVER.has(stateOf(item))) ? { ...item.data, ...change(item.data, fields) } : item.data;
}
const without = (drops = [], packet) => drops.filter((each) => each.packet !== packet);

/** Kinds of which a room has one, without an id. */
const SINGLE = new Set(["mic", "moderation", "pk", "products", "audiences"]);

export class RoomView {
  constructor() { this.clear(); }

  clear() {
    /** Activities by "kind id": {kind, id, data, own, overAt}. */
    this.activities = new Map();
    this.products = new Map();
    this.explaining = null;
    this.mute = null;
    this.follows = false;
    this.more = false;
  }

  /** Takes the answer to a JOIN, drawn anew; own results that only this page knows stay. */
  joined(snapshot, nowMs) {
    const before = this.activities;
    this.clear();
    for (const { kind, id, data } of snapshot.activities ?? []) this.#put(kind, id, data, nowMs);
    for (const [key, item] of before) {
      const now = this.activities.get(key);
      if (now) now.own ??= item.own;
      else if (isOwned(item)) { item.overAt ??= nowMs; this.activities.set(key, item); }     // over meanwhile: it stays in Mine
    }
    this.resumed(snapshot);
  }

  /** Takes what is the viewer's own alone: after a RESUME without a gap the events bring the rest, but not this. */
  resumed({ own_activities: own = [] }) {
    this.mute = null;
    for (const { kind, id, data } of own) {
      if (kind === "moderation") this.mute = data.is_muted ? data : null;
      else if (kind === "audiences") this.follows = Boolean(data.follows);
      else this.own(kind, id, data);
    }
  }

  #put(kind, id, data, nowMs) {
    if (kind === "products") {
      for (const row of data.products ?? []) this.products.set(row.id, row);
      if (data.card) this.products.set(data.card.id, data.card);
      this.explaining = data.explaining?.product ?? null;
      this.more = Boolean(data.more);
      return;
    }
    const key = `${kind} ${SINGLE.has(kind) ? "" : id}`, item = this.activities.get(key) ?? { kind, id, own: null, overAt: null };
    item.data = { ...data };
    this.activities.set(key, item);
    this.#mark(item, nowMs);
  }

  /** Adds what is the viewer's own in an activity. */
  own(kind, id, data) {
    const key = `${kind} ${SINGLE.has(kind) ? "" : id}`, item = this.activities.get(key);
    if (item) item.own = { ...item.own, ...data };
    else if (kind === "mic") this.activities.set(key, { kind, id, data: { seats: 0, taken: [] }, own: data, overAt: null });
  }

  /** Takes an event or a counter of an activity; returns the activity that has changed, or null. */
  take(name, id, data, nowMs) {
    const [kind] = name.split(".");
    if (kind === "products") return this.#shelf(name, data);
    if (name === "moderation.muted") { this.mute = data.is_muted ? data : null; return this.mute; }
    if (name === "countdowns.stopped") { const key = `countdowns ${id}`, item = this.activities.get(key) ?? null; this.activities.delete(key); return item; }
    if (!CHANGES[name]) return null;
    const key = `${kind} ${SINGLE.has(kind) ? "" : id || data.kind || ""}`;
    let item = this.activities.get(key);
    if (!item && !BEGINS.has(name) && !SINGLE.has(kind)) return null;
    if (!item) { item = { kind, id: id || data.kind || "", data: {}, own: null, overAt: null }; this.activities.set(key, item); }
    item.data = changed(item, name, data);
    this.#mark(item, nowMs);
    return item;
  }

  #shelf(name, data) {
    if (name === "products.put") this.products.set(data.product.id, { ...this.products.get(data.product.id), ...data.product });
    else if (name === "products.removed") { this.products.delete(data.id); if (data.explaining || this.explaining === data.id) this.explaining = data.explaining?.product ?? null; }
    else if (name === "products.arranged") for (const { product, position } of data.positions) { const row = this.products.get(product); if (row) row.arranged = position; }
    else if (name === "products.explaining") this.explaining = data.product;
    return { kind: "products" };
  }

  #mark(item, nowMs) {
    const isOver = OVER.has(stateOf(item));
    item.overAt = isOver ? item.overAt ?? nowMs : null;
  }

  /** Products in the order of the list. */
  shelf() {
    const place = (row) => row.arranged ?? row.position ?? 0;
    return [...this.products.values()].sort((a, b) => place(a) - place(b) || (a.id < b.id ? -1 : 1));
  }

  /** Activities to show, what ends first on top; what is over stays a minute. `kinds`: which. */
  running(kinds, nowMs) {
    const isPast = ({ kind, overAt }) => overAt !== null && nowMs - overAt > OVER_STAYS_MS && !SINGLE.has(kind);
    const kept = [];
    for (const [key, item] of this.activities) {
      if (item.kind === "countdowns" && item.data.deadline_ms <= nowMs) item.overAt ??= item.data.deadline_ms;   // its end has no event
      if (!isPast(item)) continue;
      if (isOwned(item)) kept.push(key); else this.activities.delete(key);
    }
    for (const key of kept.slice(0, Math.max(0, kept.length - MOST_OWNED))) this.activities.delete(key);
    return [...this.activities.values()].filter((item) => kinds.includes(item.kind) && !isPast(item))
      .sort((a, b) => (a.overAt !== null) - (b.overAt !== null) || (endOf(a) ?? Infinity) - (endOf(b) ?? Infinity) || (a.id < b.id ? -1 : 1));
  }

  /** What the viewer has claimed, won or entered, also of activities that are over: the newest hundred. */
  owned() { return [...this.activities.values()].filter(isOwned); }

  get(kind, id = "") { return this.activities.get(`${kind} ${id}`) ?? null; }
}

const isOwned = ({ own }) => Boolean(own && (own.claims?.length || own.cents || own.code || own.entry));

export const stateOf = ({ kind, data }) => lower(["lotteries", "pk"].includes(kind) ? data.phase : data.state) ?? "open";

/** When an activity begins or ends next, in Unix ms of the broker; null: that is not known. */
export function endOf({ kind, data, ...rest }) {
  const state = stateOf({ kind, data, ...rest });
  if (state === "scheduled" || state === "announced") return data.open_at_ms ?? null;
  if (kind === "rains") return data.start_at_ms + data.span_ms;
  if (kind === "polls") return data.terms?.close_at_ms ?? null;
  if (kind === "quizzes") return data.question?.terms?.close_at_ms ?? null;
  return data.close_at_ms || data.expire_at_ms || data.deadline_ms || data.ends_at_ms || null;
}

/** Thousandths of each option of a poll, from its result or its counts so far. */
export function shares({ per_mille: perMille, counts = [] }) {
  if (perMille?.length) return perMille;
  const sum = counts.reduce((total, n) => total + n, 0);
  return counts.map((n) => (sum ? Math.round(1000 * n / sum) : 0));
}
