// What an agent has before it: its conversations, what waits, who else is there; read again when the link comes back.
import { openSession } from "../base/session.js";
import { isForNow, textOf } from "../base/errors.js";

const OPEN = new Set(["bot", "queued", "assigned"]);
const AGAIN_MS = 1000;

export class AgentDesk {
  /** `onChange(what, more)`: "link", "self", "lists", "message" (conversation, message), "recalled" (conversation, offset),
   * "read" (conversation, offset), "typing" (conversation), "call" (event, call, data), "new" (view), "lost" (view), "second". */
  constructor(onChange) {
    this.onChange = onChange;
    this.views = new Map();
    this.agents = [];
    this.settings = null;
    this.self = null;
    this.state = "connecting";
    this.problem = null;
    this.unread = new Map();
    const { client } = openSession({ role: "viewer", user: new URLSearchParams(location.search).get("user") ?? "agent", agent: "roomcast-agent/1" });
    this.client = client;
    client.on("state", ({ state, code, reason }) => {
      this.state = state;
      if (state === "closed") this.problem = { code, reason };
      if (state === "open") this.refresh();
      onChange("link");
    });
    client.on("direct", ({ type, payload }) => { if (type === "activity") this._onEvent(payload); });
    setInterval(() => onChange("second"), 1000);
    setInterval(() => this.state === "open" && this._read("others"), 5000);
  }

  get user() { return this.client.user?.user_id ?? ""; }
  get now() { return this.client.serverNow?.() ?? Date.now(); }
  get mine() { return this._sorted((view) => view.agent === this.user && view.state === "assigned"); }
  get queued() { return this._sorted((view) => view.state === "queued"); }
  _sorted(holds) { return [...this.views.values()].filter(holds).sort((a, b) => (a.asked_at_ms || Infinity) - (b.asked_at_ms || Infinity) || a.started_at_ms - b.started_at_ms); }
  isMine(view) { return view?.state === "assigned" && view.agent === this.user; }

  refresh() { this._read("settings"); this._read("others"); this._read("mine"); }

  /** Calls an operation; throws with `text`, in words of the page. */
  async call(operation, fields = {}, options = {}) {
    try { return await this.client.call(operation, fields, options); } catch (error) { error.text = textOf(error); throw error; }
  }

  async _read(what) {
    try {
      if (what === "settings") this.settings = await this.client.call("desk.settings");
      else if (what === "mine") {
        const { items } = await this.client.call("desk.list", { which: "mine" });
        this._replace(items, (view) => view.agent === this.user && OPEN.has(view.state));
      } else {
        this.agents = (await this.client.call("desk.agents", { limit: 200 })).items;
        this.self = this.agents.find((each) => each.user === this.user) ?? null;
        const { items } = await this.client.call("desk.list", { which: "queued" });
        this._replace(items, (view) => view.state === "queued");
      }
      this.problem = null;
    } catch (error) {
      if (isForNow(error)) setTimeout(() => this.state === "open" && this._read(what), Math.max(AGAIN_MS, error.retryAfterMs ?? 0));
      else this.problem = error;
    }
    this.onChange(what === "mine" || what === "others" ? "lists" : "self");
    if (what === "others") this.onChange("self");
  }

  /** Takes over a list; what is not in it and `belongs` to it is there no more. */
  _replace(items, belongs) {
    const named = new Set(items.map((view) => view.id));
    for (const view of items) this._take(view);
    for (const [id, view] of this.views) if (belongs(view) && !named.has(id)) this.views.delete(id);
  }

  /** Takes over a view unless a later one is known. */
  _take(view) {
    const before = this.views.get(view.id);
    if (before && before.revision >= view.revision) return;
    this.views.set(view.id, view);
    if (!this.isMine(before) && this.isMine(view)) this.onChange("new", view);
    if (this.isMine(before) && !this.isMine(view)) this.onChange("lost", view);
  }

  _onEvent({ event, id, data }) {
    if (event === "desk.changed") { this._take(data); this.onChange("lists"); }
    else if (event === "conversations.message") {
      if (this.views.has(id)) this.unread.set(id, (this.unread.get(id) ?? 0) + (data.user !== this.user));
      this.onChange("message", { id, message: data });
    } else if (event === "conversations.recalled") this.onChange("recalled", { id, offset: data.offset });
    else if (event === "conversations.position" && data.user !== this.user) this.onChange("read", { id, offset: data.read });
    else if (event.startsWith("rtc.")) this.onChange("call", { event, id, data });
    else if (event === "conversations.typing") this.onChange("typing", { id });
  }

  async setState(state) { this.self = await this.call("desk.set_state", { state }); this.onChange("self"); this._read("mine"); }

  /** Does something with a conversation that this agent holds, and takes over what it is afterwards. */
  async change(operation, view, fields = {}) {
    const after = await this.call(operation, { conversation: view.id, ...fields });
    this._take(after);
    this.onChange("lists");
    return after;
  }

  open(id) { this.unread.delete(id); return this.call("desk.get", { conversation: id, messages: 50 }); }

  /** Tells how far this agent has read; only ever forwards. */
  read(id, offset) {
    this.unread.delete(id);
    this.client.call("conversations.report_position", { conversation: id, delivered: offset, read: offset }).catch(() => { /* the next one tells more */ });
  }
}
