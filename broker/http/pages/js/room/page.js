// The live room behind its first danmaku: builds the parts, turns what the client says into changes of the view, and draws once a frame.
import { $, $$, el, setText } from "../base/dom.js";
import { compact, number, t } from "../base/strings.js";
import { announce } from "../base/announce.js";
import { brokerSettings, keep, pageControls } from "../base/settings.js";
import { HOST, MERGED, OWN, PAID, PLAIN } from "../danmaku/stage.js";
import { account } from "../parts/account.js";
import { KINDS, acts } from "../parts/acts.js";
import { lineOf } from "../parts/chat_list.js";
import { composer, fateOf } from "../parts/composer.js";
import { giftName, giftRows } from "../parts/gift_rows.js";
import { hearts } from "../parts/hearts.js";
import { highlights } from "../parts/highlights.js";
import { lights } from "../parts/lights.js";
import { mine, products, rankings } from "../parts/panes.js";
import { saleCard } from "../parts/sale_card.js";
import { openSheet } from "../parts/sheet.js";
import { tabs } from "../parts/tabs.js";
import { toast } from "../parts/toast.js";
import { actions } from "./actions.js";
import { likeButton, phoneSide, shortcuts, stageTools } from "./controls.js";
import { pageState } from "./state.js";
import { RoomView, stateOf } from "./view.js";
import { chat, client, given, join, name, stage } from "../room.js";

pageControls();

const FLIES = { host: HOST, merged: MERGED, plain: PLAIN }, MAX_NAMES = 2000, MISSED_CHIP_MS = 10_000, AGAIN_MS = 60_000, BUSY_MS = 3000, PASSING = new Set(["overloaded", "rate_limited", "unavailable"]);
const isPhone = () => innerWidth < 720;
const settings = brokerSettings(), view = new RoomView(), names = new Map();
let room = null, myUser = "", likers = [], pane = "chat", isDrawn = false, merged = new Map(), perSecond = 0, flew = 0, slowUntil = 0, againMs = AGAIN_MS, againTimer = 0;
const page = { get room() { return room; }, get now() { return client.serverNow(); }, view, settings, redraw, showPane };
const act = actions(page);
const parts = {
  chat, gifts: giftRows($("#gifts")), hearts: hearts($("#hearts")), highlights: highlights($("#highlights")), sale: saleCard(act), account: account($("#account-list"), $("#account-line")), state: pageState(),
  composer: composer($("#composer"), $("#text"), $("#notice"), {
    line: (text) => { if (pane !== "chat") selectTab("chat"); const node = parts.chat.add({ userId: myUser, name: t("me"), text, own: true }); parts.chat.fate(node, t("fate.sending")); return node; },
    say: (text) => (room?.isJoined ? room.say(text) : Promise.resolve({ outcome: null, sent: false })),
    shown: (text) => stage.push({ text, kind: OWN, userId: myUser }),
    fate(node, result) {
      const text = node.line.text, isBad = ["rejected", "limited", "unavailable", null].includes(result.outcome);
      parts.chat.fate(node, fateOf(result, merged.get(text) ?? 0), isBad);
      if (result.outcome === "held") held.push({ id: result.id, node });
      if (held.length > 20) held.shift();
    },
  }),
};
const held = [];
$("#acts").append(parts.sale.node);
parts.acts = acts($("#acts"), act);
lights($(".lights"));
stageTools(stage);
const side = phoneSide();
const selectTab = tabs($("#tabs"), (tab) => { pane = tab; $("#chat-pane").hidden = tab !== "chat"; for (const id of ["goods", "ranks", "mine"]) $(`#${id}`).hidden = id !== tab; redraw(); });
function showPane(tab) { selectTab(tab); if (isPhone()) side.open(); else $(`#${tab}`)?.scrollIntoView({ block: "nearest" }); }
$("#cart").addEventListener("click", () => showPane("goods"));
$("#more-panes").addEventListener("click", () => showPane("mine"));
$("#follow").addEventListener("click", () => act.follow(!view.follows));
$("#veil-try").addEventListener("click", () => { if (parts.state.isEnded) enter(); else location.reload(); });
likeButton($("#like"), () => { if (!room?.isJoined) return; room.like(); parts.hearts.add(); });
shortcuts(side, parts.composer);

// ---- the link

$("#development").hidden = !settings.development || given;
globalThis.roomcastPage = { stage, client, view };            // for tests and the browser's console
function onLink(state) { if (client.user) myUser = client.user.user_id; parts.state.link(state, client.rttMs); drawState(); }
client.on("state", onLink);
onLink({ state: client.state, code: client.closed?.code, reason: client.closed?.message });
client.on("missed", ({ payload }) => {
  if (payload.chat && Date.now() > slowUntil) parts.chat.note(t("missed.chat"));       // once for a time of slowness; the account has the number
  slowUntil = Date.now() + MISSED_CHIP_MS;
  drawState();
});
addEventListener("online", drawState);
addEventListener("offline", drawState);
addEventListener("languagechange", (event) => { event.detail.hash = ""; });

/** Takes the answer to a JOIN; where the broker is busy it asks again soon, where the show has ended by and by, for a room may be opened again. */
export async function enter(joining = join()) {
  clearTimeout(againTimer);
  let snapshot;
  try {
    ({ room, snapshot } = await joining);
  } catch (error) {
    const willRetry = PASSING.has(error.error);
    parts.state.fail(error, willRetry);
    drawState();
    if (willRetry) againTimer = setTimeout(() => enter(), Math.max(BUSY_MS, error.retryAfterMs) * (1 + Math.random()));
    else if (parts.state.isEnded) enterLater();
    return;
  }
  againMs = AGAIN_MS;
  joined({ snapshot, recovered: false, isFirst: true });
}

/** What the room says to the page, by the name of its event; `direct` comes from the client. */
export const listeners = {
  joined, direct: onDirect, tick: onTick, event: onEvent,
  counter: ({ name: event, id, data }) => onActivity({ event, id, data }, client.serverNow()),
  state(state) { likers = state.top_likers ?? []; for (const [user, shown] of state.joins ?? []) remember(user, shown); onNumbers(); },
  gap: ({ first, last }) => parts.chat.note(t("gap.chat", { n: number(last - first + 1) })),
  decided: ({ id, outcome, reason }) => decided(id, outcome !== "rejected", reason),
  left({ reason, isFinal }) { if (isFinal) { parts.state.leave(reason); drawState(); } },
  ended({ reason }) { parts.state.leave(reason); drawState(); if (parts.state.isEnded) enterLater(); },
};

function enterLater() {
  clearTimeout(againTimer);
  againTimer = setTimeout(() => { if (document.hidden) enterLater(); else enter(); }, againMs * (0.5 + Math.random()));
  againMs = Math.min(2 * againMs, 10 * AGAIN_MS);
}

function joined({ snapshot, recovered, isFirst }) {
  myUser = client.user?.user_id ?? "";
  parts.state.joined();
  if (!recovered) {
    view.joined(snapshot, client.serverNow());
    if (isFirst) for (const entry of snapshot.recent) addEntry(entry, true);      // the chat list has them
    if (isFirst && snapshot.announcement) parts.chat.add({ name: snapshot.announcement.name, text: snapshot.announcement.payload.text, kind: "host" });
    drawPins(snapshot.pinned);
    parts.highlights.reset(view.activities, client.serverNow());
  } else view.resumed(snapshot);
  if (!$("#chat").childElementCount) parts.chat.empty(t("empty.chat"));
  loadTitle();
  loadShelf();
  onNumbers();
  drawState();
}

async function loadTitle() {
  const found = await room.call("rooms.get", { room: name }).catch(() => null), title = found?.title || name;
  setText($("#title"), title);
  setText($("#host-name"), title);
  setText($("#host-face"), [...title][0] ?? "");
  document.title = `${title} \u00b7 roomcast`;
}
/** The snapshot has the first products without picture and link; the list has them all. */
async function loadShelf() {
  if (!view.products.size && !view.more) return;
  const found = await room.call("products.list", { room: name, limit: 100 }).catch(() => null);
  for (const { product, arranged } of found?.items ?? []) view.products.set(product.id, { ...product, arranged });
  redraw();
}

// ---- what the room says

function remember(user, shown) { names.delete(user); names.set(user, shown || user); if (names.size > MAX_NAMES) names.delete(names.keys().next().value); }

function onTick({ entries, account: sums }) {
  perSecond += sums.admitted;
  for (const entry of entries) addEntry(entry, false);
}

function addEntry(entry, isShown) {
  const line = lineOf(entry);
  if (!line) return;
  const { userId, text, count, kind } = line, isMine = userId === myUser;
  remember(userId, entry.name);
  if (count > 1 && (isMine || entry.senders.includes(myUser))) { merged.set(text, count); if (merged.size > 50) merged.delete(merged.keys().next().value); }
  if (isShown || (isMine && count === 1)) return;
  stage.push({ text, count, kind: FLIES[kind], userId });
  parts.chat.add(line);
  if ($("#read").checked) readAloud(`${line.name}: ${text}`);
}
let readAt = 0;
function readAloud(text) { if (Date.now() - readAt > 4000) { readAt = Date.now(); announce(text); } }

function onEvent({ type, payload, userId, name: by, atMs, offset }) {
  if (userId && by) remember(userId, by);
  if (type === "activity") onActivity(payload, atMs);
  else if (type === "gift") onGift(payload);
  else if (type === "highlight") { stage.push({ text: payload.text, kind: PAID, userId: payload.user_id }); parts.highlights.add({ ...payload, offset, user: payload.user_id }, client.serverNow()); parts.chat.add({ userId: payload.user_id, name: payload.name, text: payload.text, event: true }); }
  else if (type === "announcement") { stage.push({ text: payload.text, kind: HOST, userId }); parts.chat.add({ userId, name: by, text: payload.text, kind: "host" }); announce(payload.text); }
  else if (type === "room_phase") { announce(t(payload.phase === "live" ? "live" : `${payload.phase}.title`)); drawState(); }
  else if (type === "pins_changed") drawPins(payload.pinned);
  else if (type === "messages_deleted") onDeleted(payload);
}

function onGift({ combo, user_id: userId, name: by, gift_id: giftId, total, added, price_cents: cents, flags, order_id: order }) {
  const shown = by || userId;
  if (total && !added) return; // the end of a combo, which adds nothing
  parts.gifts.show({ combo: typeof combo === "string" ? combo : order, userId, name: shown, giftId, total: total || added || 1, cents });
  if (flags & 1) parts.chat.add({ userId, name: shown, text: t("gift.sent", { gift: giftName(giftId) }), event: true });
}

function onDeleted({ user_id: user, offsets }) {
  const isGone = (each) => (user && each.userId === user) || (each.offset && offsets.includes(each.offset));
  stage.remove(isGone);
  parts.chat.remove(isGone);
  parts.highlights.remove((each) => (user && each.user === user) || offsets.includes(each.offset));
}

function onActivity({ event, id, data }, atMs) {
  const before = view.explaining, item = view.take(event, id, data, atMs);
  if (event === "lotteries.announced") act.keepSeen(id, { commitment: data.commitment });
  else if (event === "lotteries.closed") act.keepSeen(id, { root: data.root });
  else if (event === "sales.opened" && item) announce(t("sale.opened", { title: act.titleOf(item.data.sku) }));
  else if (event === "sales.sold_out" && item) announce(t("sale.sold-out", { title: act.titleOf(item.data.sku) }));
  else if (event === "orders.shown") parts.chat.add({ name: data.name, text: t("bought", { product: data.product }) + (data.plus ? ` ${t("bought.more", { n: number(data.plus) })}` : ""), event: true });
  else if (event === "mic.seat_left" && data.user === myUser) view.own("mic", "", { status: "none" }); // the host may have taken the seat away
  else if (event === "reviews.decided") decided(data.client_msg_id, data.is_shown, data.reason);
  else if (event === "products.explaining" && view.explaining && view.explaining !== before) announce(`${t("explaining")}: ${act.titleOf(view.explaining)}`);
  redraw();
}
function decided(id, isShown, reason) {
  const at = held.findIndex((each) => each.id === id);
  if (at < 0) return;
  const text = isShown ? t("fate.approved") : t("fate.declined", { reason: reason || t("muted.no-reason") });
  parts.chat.fate(held[at].node, text, !isShown);
  announce(text);
  held.splice(at, 1);
}

/** Messages for this user alone. */
function onDirect({ type, payload }) {
  if (type !== "activity") return;
  const { event, id, data } = payload, [kind, what] = event.split(".");
  if (kind === "sales") {
    const state = what.replace("claim_", "").replace("voided", "void");
    act.takeClaim(id, { expires_at_ms: null, place: null, ...data, state });
    toast(t(`claim.${state}`, { s: data.expires_at_ms ? Math.ceil((data.expires_at_ms - client.serverNow()) / 1000) : "" }));
  } else if (event === "lotteries.won") { view.own("lotteries", id, { entry: data.entry, prize: data.prize }); toast(t("lottery.won", { prize: data.prize })); }
  else if (event === "coupons.issued") { view.own("coupons", id, { code: data.code, expire_at_ms: data.expire_at_ms }); toast(t("coupon.mine", { code: data.code })); }
  else if (event === "quizzes.won") { view.own("quizzes", id, { cents: data.cents }); toast(t("quiz.won")); }
  else if (event === "mic.invited") { view.own("mic", "", { status: "invited", ...data }); toast(t("mic.invited")); }
  else if (event === "mic.rejected") { view.own("mic", "", { status: "none" }); toast(t("mic.rejected")); }
  redraw();
}

// ---- drawing

function redraw() {
  if (isDrawn) return;
  isDrawn = true;
  requestAnimationFrame(() => { isDrawn = false; draw(); });
}

function draw() {
  const nowMs = client.serverNow(), running = view.running(KINDS, nowMs);
  const sales = running.filter(({ kind, overAt }) => kind === "sales" && overAt === null), explained = view.products.get(view.explaining) ?? null;
  const sale = sales.find(({ data }) => data.sku === view.explaining) ?? sales.find((each) => stateOf(each) === "open") ?? (explained ? null : sales[0] ?? null);
  parts.sale.show(sale, sale ? view.products.get(sale.data.sku) ?? null : explained, Boolean(view.explaining && (!sale || sale.data.sku === view.explaining)), nowMs);
  parts.acts.update(running.filter((item) => item !== sale && !(item.kind === "mic" && !item.data.seats) && !(item.kind === "pk" && !item.data.other_room)), nowMs);
  const shelf = view.shelf();
  setText($("#goods-count"), shelf.length || "");
  setText($("#cart-count"), shelf.length);
  $("#cart-count").hidden = !shelf.length;
  setText($("#follow"), t(view.follows ? "followed" : "follow"));
  $("#follow").setAttribute("aria-pressed", String(view.follows));
  if (pane === "goods") products($("#goods"), act, shelf, view.explaining);
  else if (pane === "ranks") rankings($("#ranks"), [...view.activities.values()].filter(({ kind }) => kind === "rankings"), names, likers);
  else if (pane === "mine") mine($("#mine"), view.owned(), nowMs, act.titleOf);
  if (parts.composer.setMute(view.mute)) announce($("#notice").textContent);
}

function drawState() {
  const state = parts.state.draw(room, { likes: compact(room?.likes ?? 0), isSlow: Date.now() < slowUntil });
  parts.composer.setClosed(["live", "reconnecting"].includes(state) ? "" : state);
  for (const button of $$(".act .btn, #follow, #like")) button.classList.toggle("waits", ["reconnecting", "offline"].includes(state));
}

function onNumbers() {
  const before = Number($("#likes").dataset.count ?? 0);
  setText($("#online"), number(room.online));
  setText($("#likes"), compact(room.likes));
  $("#likes").dataset.count = room.likes;
  if (before && room.likes > before) parts.hearts.add(Math.min(3, room.likes - before));
}

function drawPins(pinned = []) {
  const last = pinned[pinned.length - 1], text = last?.payload?.text ?? last?.payload?.[0] ?? "";
  $("#pinned").hidden = !text;
  if (text && $("#pinned-text").textContent !== text) { setText($("#pinned-text"), text); announce(`${t("pinned")}: ${text}`); }
}

export function openLine(line) {
  const item = (key, run) => el("button.btn", { type: "button", onclick: () => { close(); run(); } }, t(key));
  const close = openSheet(line.name, el("p.said", {}, line.text), el("div.row.wrap", {}, item("line.reply", () => parts.composer.reply(line.name)), item("line.copy", () => navigator.clipboard?.writeText(line.text).then(() => toast(t("line.copied")))), item("line.report", () => act.report(line))));
}

for (const id of ["density", "size", "opacity", "off"]) $(`#${id}`).addEventListener("change", () => { const { density, size, opacity, off } = stage.options; keep("fly", { density, size, opacity, off }); });

setInterval(() => {
  const nowMs = client.serverNow(), { flew: all, noRoom } = stage.stats();
  draw();
  parts.sale.tick(nowMs);
  parts.highlights.tick(nowMs);
  if (room) parts.account.update(room.account, { noRoom, missed: client.missedChat, perSecond, flew: all - flew });
  perSecond = 0; flew = all;
  drawState();
}, 1000);
