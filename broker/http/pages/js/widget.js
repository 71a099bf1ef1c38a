// Entry of the chat widget: one conversation of a customer with the shop's desk, in a frame of the shop's page or by itself.
import { $, el, localise, setText } from "./base/dom.js";
import { announce } from "./base/announce.js";
import { textOf } from "./base/errors.js";
import { brokerSettings } from "./base/settings.js";
import { openSession } from "./base/session.js";
import { t, use } from "./base/strings.js";
import { base } from "../strings/base.js";
import { talk as words } from "../strings/talk.js";
import { talkComposer, talkLog } from "./parts/talk_log.js";
import { shopPage } from "./widget/shop_page.js";

use(base, words);
localise();
const OPEN = new Set(["bot", "queued", "assigned"]), TYPING_MS = 5000;
const query = new URLSearchParams(location.search);
const shop = shopPage(brokerSettings().widget_origins ?? [], onShop);
let about = { topic: query.get("topic") ?? "", order: query.get("order"), product: query.get("product") };
const names = new Map();
let desk = null, typingUntil = 0, stream = null, isShown = !shop.isFramed, unread = 0;
const { client } = openSession({ role: "viewer", user: query.get("user") ?? "", agent: "roomcast-widget/1", ask: shop.isFramed ? shop.token : null });
globalThis.roomcastWidget = client;                          // for tests and the browser's console
const userOf = () => client.user?.user_id ?? "";
const log = talkLog($("#log"), (user) => user === userOf(), (message) => (message.user && message.user !== userOf() ? message.name || message.user : ""), (before) => client.call("conversations.history", { conversation: desk.id, before, limit: 50 }));
$("#close").hidden = !shop.isFramed;
$("#close").addEventListener("click", () => shop.close());
for (const n of [1, 2, 3, 4, 5]) { const row = $("#rating .row") ?? $("#rating").appendChild(el("div.row")); row.append(el("button.btn.num", { type: "button", "aria-label": t("widget.rating", { n }), onclick: () => rate(n) }, String(n))); }

client.on("state", ({ state, reason, code }) => {
  if (state === "open") refresh();
  if (state === "closed") notice(t("notice.closed", { reason: reason ?? "", code: code ?? "" }));
  draw();
});
client.on("direct", ({ type, payload }) => { if (type === "activity") onEvent(payload); });
setInterval(draw, 1000);

function onShop({ what, fields }) {
  if (what === "begin") { about = { ...about, ...fields }; if (client.state === "open" && !desk) refresh(); }
  else if (what === "shown") { isShown = Boolean(fields.shown); if (isShown) { seen(); $("#text").focus(); } }
}

function notice(text) { $("#notice").hidden = !text; setText($("#notice"), text); }

/** What the holder is called: its messages say so; before the first one it is only "an agent". */
const nameOfHolder = () => names.get(desk?.agent) ?? t("widget.agent");

function draw() {
  const state = client.state !== "open" ? "link" : desk?.state ?? "new";
  setText($("#status"), t(`widget.${state}`, { name: nameOfHolder() }));
  setText($("#typing"), Date.now() < typingUntil ? t("talk.typing", { name: nameOfHolder() }) : "");
  $("#rating").hidden = desk?.state !== "resolved" || Boolean(desk.rating);
}

async function refresh() {
  try {
    const { items } = await client.call("desk.list", { which: "mine" });
    const own = items.filter((view) => view.customer === userOf() && view.state !== "closed" && (!about.topic || view.topic === about.topic));
    const latest = own.sort((a, b) => OPEN.has(a.state) - OPEN.has(b.state) || a.started_at_ms - b.started_at_ms).at(-1);
    if (latest) {
      const found = await client.call("desk.get", { conversation: latest.id, messages: 50 });
      take(found.desk);
      for (const message of found.messages) put(message);
      seen();
    }
    notice("");
  } catch (error) { notice(textOf(error)); }
  draw();
}

function put(message) {
  if (message.name) names.set(message.user, message.name);
  return log.put(message);
}

function take(view) { if (!desk || desk.id !== view.id || view.revision > desk.revision) desk = view; }

function onEvent({ event, id, data }) {
  if (event === "desk.changed" && data.customer === userOf() && (desk ? data.id === desk.id : !about.topic || data.topic === about.topic)) {
    const before = desk?.state;
    take(data);
    if (desk.state !== before) announce(t(`widget.${desk.state}`, { name: nameOfHolder() }));
  } else if (id !== desk?.id) return;
  else if (event === "conversations.message") {
    if (!put(data)) return;
    if (data.user !== userOf()) { typingUntil = 0; log.endGrowing(); if (!isShown) shop.unread(++unread); if (data.user) announce(data.text); }
    seen();
  } else if (event === "conversations.recalled") log.recall(data.offset);
  else if (event === "conversations.position" && data.user !== userOf()) log.setRead(data.read);
  else if (event === "conversations.typing") typingUntil = Date.now() + TYPING_MS;
  else if (event === "desk.streaming") grow(data);
  draw();
}

/** A piece of an answer that streams: pieces come in order; after a gap the message itself is waited for. */
function grow({ stream: id, seq, text, ended }) {
  if (ended) { log.endGrowing(); return; }
  if (stream?.id !== id) stream = { id, next: 1, text: "" };
  if (seq !== stream.next) return;
  stream.next += 1;
  stream.text += text;
  log.grow(stream.text);
}

function seen() {
  if (!desk || !log.last || !isShown || document.visibilityState !== "visible") return;
  unread = 0;
  shop.unread(0);
  client.call("conversations.report_position", { conversation: desk.id, delivered: log.last, read: log.last }).catch(() => { /* the next one tells more */ });
}
document.addEventListener("visibilitychange", seen);

async function ask(text) {
  const key = crypto.randomUUID(), line = log.sending(text);
  const send = async () => {
    try {
      let offset;
      if (desk && desk.state !== "closed") ({ offset } = await client.call("desk.ask", { conversation: desk.id, text }, { key }));
      else {
        const opened = await client.call("desk.open", { topic: about.topic || "default", text, order: about.order ?? null, product: about.product ?? null }, { key });
        if (desk) log.clear();
        take(opened.desk);
        ({ offset } = opened);
      }
      line.done();
      log.put({ offset, user: userOf(), name: "", at_ms: client.serverNow(), text });
    } catch (error) {
      if (error.error === "STALE") { desk = null; line.done(); await ask(text); return; }
      line.failed(textOf(error), send);
    }
    draw();
  };
  await send();
}

async function rate(rating) {
  try { take(await client.call("desk.rate", { conversation: desk.id, rating })); announce(t("widget.thanks")); } catch (error) { notice(textOf(error)); }
  draw();
}

talkComposer($("#composer"), $("#text"), ask, () => desk && client.call("conversations.show_typing", { conversation: desk.id }).catch(() => {}));
draw();
