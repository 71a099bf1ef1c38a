// The desk's link: one room, what it is now (read again when it says that it has changed), and the calls of the person.
import { openSession } from "../base/session.js";
import { isForNow, textOf } from "../base/errors.js";
import { t } from "../base/strings.js";
import { Activities, Money, Questions } from "./view.js";

const DIRECTING = new Set(["host", "assistant", "app"]);
/** Operations for the platform alone, since they cost money: a host asks it to do them. */
export const OF_PLATFORM = new Set(["packets.create", "rains.create", "coupons.create", "packets.cancel", "rains.cancel", "coupons.close"]);
/** What an operation changes that another desk changes as well. */
const CHANGES = {
  "products.explain": "explaining", "products.stop_explaining": "explaining", "rooms.set_phase": "phase", "rooms.open": "phase", "rooms.close": "phase",
  "moderation.set_modes": "modes",
};
const OWN_MS = 5000, AGAIN_MS = 1000;
const KEYED = new Set(["packets.create", "rains.create", "coupons.create"]);

export class Desk {
  /** `onChange(what)`: "link", "room", "shelf", "activities", "mic", "modes", "numbers", "questions"; ("elsewhere", {what,
   * value}): another desk, or the platform, has changed what this one shows. */
  constructor(name, onChange) {
    this.name = name;
    this.onChange = onChange;
    this.view = null;
    this.products = [];
    this.activities = new Activities();
    this.explaining = { product: null, at_ms: 0 };
    this.seats = null;
    this.modes = null;
    this.questions = new Questions();
    this.money = new Money();
    this.orders = 0;
    this.state = "connecting";
    this.problem = null;
    this.stats = null;
    this._salts = new Map();
    this._own = new Map(); // what this desk has asked for: what -> until when a change is its own
    this._timers = new Map();
    this._lastSecond = 0;
    const { client } = openSession({ role: "app", user: "host", agent: "roomcast-desk/1" });
    this.client = client;
    client.on("state", ({ state, code, reason, retryInMs }) => { this.state = state; this.retryInMs = retryInMs; if (state === "closed") this.problem = { code, reason }; onChange("link"); });
    this.join();
    this._second = setInterval(() => this._everySecond(), 1000);
  }

  get now() { return this.client.serverNow?.() ?? Date.now(); }
  get role() { return this.room?.role ?? null; }
  get mayDirect() { return DIRECTING.has(this.role); }
  get isLive() { return this.state === "open" && Boolean(this.room?.isJoined) && this.view !== null && this.view.phase !== "ended" && this.mayDirect; }

  async join() {
    try {
      this.room = await this.client.join(this.name, { tier: "full" });
    } catch (error) {
      this.room = null;
      this.problem = error;
      this.onChange("room");
      return;
    }
    this.problem = null;
    const { room } = this;
    room.on("joined", () => this.refresh());
    room.on("event", (event) => this._onEvent(event));
    room.on("counter", (counter) => this._onCounter(counter));
    room.on("tick", ({ entries }) => { for (const each of entries) if (each.type === "danmaku") this.questions.add(each.payload.text ?? each.payload[0] ?? "", each.count ?? 1, Date.now()); });
    room.on("state", () => this.onChange("room"));
    room.on("ended", () => this._ended());
    room.on("left", ({ isFinal }) => { if (isFinal) this._ended(); });
    this.refresh();
  }

  _ended() {
    if (this.view) this.view = { ...this.view, phase: "ended" };
    this.onChange("room");
  }

  refresh() { for (const what of ["room", "shelf", "activities", "mic", "modes"]) this._load(what); }

  /** The start of a show: the room is opened, or opened again, with its title. */
  async goLive(title) {
    this._own.set("phase", performance.now() + OWN_MS);
    await this.client.call("rooms.open", { room: this.name, reopen: true, ...(title ? { title } : {}) });
    if (this.view?.phase === "paused") await this.call("rooms.set_phase", { phase: "live" });
    this.view = null;
    if (this.room && !this.room.isJoined) this.room = null;
    if (!this.room) await this.join(); else this.refresh();
  }

  _reportElsewhere(what, before, now) {
    if (before === undefined || JSON.stringify(before) === JSON.stringify(now) || (this._own.get(what) ?? 0) > performance.now()) return;
    this.onChange("elsewhere", { what, value: now });
  }

  /** Calls an operation on this room; throws with `text`, in words of the page. */
  async call(operation, fields = {}) {
    const request = { room: this.name, ...fields }, changes = CHANGES[operation];
    if (changes) this._own.set(changes, performance.now() + OWN_MS);
    try {
      if (OF_PLATFORM.has(operation) && this.role !== "app") return (await this.client.call("app.call", { method: operation, body: request })).body;
      return await this.client.call(operation, request, KEYED.has(operation) ? { key: `desk-${fields.id}` } : {});
    } catch (error) {
      error.text = textOf(error);
      throw error;
    } finally { this._later("activities", 300); }
  }

  /** Changes modes of the room; `pre_review` is one of its rules. What the answer confirms is shown before it is read again. */
  async setModes(values) {
    const isRule = "pre_review" in values;
    const answer = isRule ? await this.call("rooms.set_rules", { rules: values }) : await this.call("moderation.set_modes", values);
    if (isRule) this.view = { ...this.view, rules: { ...this.view?.rules, ...values } }; else this.modes = { ...this.modes, ...values };
    this.onChange("modes");
    this._later(isRule ? "room" : "modes", 50);
    return answer;
  }

  // ---- quizzes: the right answer is fixed by a hash before the first answer, and revealed afterwards

  async ask(id, title, options, right, closeAtMs) {
    const salt = crypto.getRandomValues(new Uint8Array(16));
    await this.call("quizzes.create", { id, title });
    await this.call("quizzes.ask", { id, number: 1, title, options, close_at_ms: closeAtMs, answer_hash: await answerHash(salt, right) });
    this._salts.set(`${id} 1`, { salt: hex(salt), option: right });
  }

  async reveal(id, number) {
    const known = this._salts.get(`${id} ${number}`);
    if (!known) throw Object.assign(new Error("no salt"), { text: t("error.no-salt") });
    return this.call("quizzes.reveal", { id, number, ...known });
  }

  // ---- what the room says

  _onEvent({ type, payload, atMs }) {
    if (type === "room_phase") { if (payload?.phase === "ended") this._ended(); else this._later("room", 50); }
    else if (type === "gift" || type === "highlight") this.money.add(type === "gift" ? (payload.count ?? 0) * (payload.price_cents ?? 0) : payload.cents ?? 0, atMs);
    else if (type === "activity") this._changed(payload);
  }

  _onCounter({ name, id, data }) {
    if (name === "orders.shown") this.orders = data.total;
    else if (name !== "rankings.changed") this._changed({ event: name, id, data }, 1000);
  }

  _changed({ event = "", id, data }, wait = 200) {
    const subject = event.split(".")[0];
    this.activities.take(event, id, data);
    const what = { products: "shelf", mic: "mic", moderation: "modes" }[subject];
    if (what) this._later(what, wait);
    if (!what || what === "shelf") this._later("activities", wait);
  }

  /** Reads again soon; several changes make one call, for which the most urgent one waits no longer than alone. */
  _later(what, wait) {
    const before = this._timers.get(what), at = performance.now() + wait;
    if (before && before.at <= at) return;
    clearTimeout(before?.timer);
    this._timers.set(what, { at, timer: setTimeout(() => { this._timers.delete(what); this._load(what); }, wait) });
  }

  async _load(what) {
    if (!this.room) { this.onChange("room"); return; }
    try {
      switch (what) {
        case "room": {
          const before = this.view?.phase;
          this.view = await this.client.call("rooms.get", { room: this.name });
          this._reportElsewhere("phase", before, this.view.phase);
          break;
        }
        case "shelf": this.products = (await this.client.call("products.list", { room: this.name, limit: 100 })).items; break;
        case "mic": this.seats = await this.client.call("mic.get", { room: this.name }); break;
        case "modes": {
          const before = this.modes ?? undefined;
          this.modes = await this.client.call("moderation.get_modes", { room: this.name });
          this._reportElsewhere("modes", before, this.modes);
          break;
        }
        default: {
          const { items } = await this.client.call("activities.list", { room: this.name }), shelf = items.find(({ kind }) => kind === "products")?.data;
          this.activities.read(items, this.now);
          const before = this._hasShelf ? this.explaining.product : undefined;
          this._hasShelf = true;
          this.explaining = shelf?.explaining ?? { product: null, at_ms: 0 };
          this._reportElsewhere("explaining", before, this.explaining.product);
        }
      }
    } catch (error) {
      if (isForNow(error)) this._later(what, Math.max(AGAIN_MS, error.retryAfterMs ?? 0));
    }
    this.onChange(what);
    if (what === "activities") this.onChange("shelf");
  }

  async _everySecond() {
    this.onChange("second");
    if (this.state !== "open" || !this.room?.isJoined || !this.mayDirect || this._asking) return;
    this._asking = true;
    try {
      const missed = this._lastSecond ? Math.round((Date.now() - this._lastSecond) / 1000) : 60;
      this.stats = await this.client.call("rooms.stats", { room: this.name, seconds: Math.min(60, Math.max(1, missed)) });
      this._lastSecond = Date.now();
      this.onChange("numbers");
    } catch { /* the next second asks again */ } finally { this._asking = false; }
    this.onChange("questions");
  }
}

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** SHA-256 of the packed text "roomcast/quiz/1", the salt and the option as a u32: see SPEC. */
async function answerHash(salt, option) {
  const label = new TextEncoder().encode("roomcast/quiz/1"), data = new Uint8Array(4 + label.length + salt.length + 4), view = new DataView(data.buffer);
  view.setUint32(0, label.length);
  data.set(label, 4);
  data.set(salt, 4 + label.length);
  view.setUint32(4 + label.length + salt.length, option);
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", data)));
}
