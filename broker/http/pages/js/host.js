// Entry of the host desk: builds the parts, connects them to the link, and the keys of the keyboard.
import { $, $$, el, localise, setText } from "./base/dom.js";
import { duration, t, use } from "./base/strings.js";
import { announce } from "./base/announce.js";
import { brokerSettings, pageControls } from "./base/settings.js";
import { roomOfPage } from "./base/session.js";
import { base } from "../strings/base.js";
import { host as words } from "../strings/host.js";
import { openSheet } from "./parts/sheet.js";
import { tabs } from "./parts/tabs.js";
import { toast } from "./parts/toast.js";
import { textOf } from "./base/errors.js";
import { Desk, OF_PLATFORM } from "./host/desk.js";
import { asks } from "./host/asks.js";
import { launch } from "./host/launch.js";
import { modes } from "./host/modes.js";
import { numbers } from "./host/numbers.js";
import { order } from "./host/order.js";
import { running } from "./host/running.js";
import { shelf } from "./host/view.js";

use(base, words);
localise();
pageControls();
const settings = brokerSettings(), room = roomOfPage();
const act = {
  call: (operation, fields) => attempt(() => desk.call(operation, fields)),
  explain: (row) => explain(row),
  stopExplaining: () => act.call("products.stop_explaining"),
  addProduct,
  titleOf: (sku) => desk.products.find(({ product }) => product.id === sku)?.product.title ?? sku,
  setModes,
  canCall: (operation) => canCall(operation),
  extend: ({ id, data: { deadline_ms: deadline } }) => act.call("countdowns.move", { id, deadline_ms: deadline + 30000, known_ms: deadline }),
  reveal: (id, number) => attempt(() => desk.reveal(id, number)),
  answered(ask) { desk.questions.answer(ask.key); drawQuestions(); toast(t("asks.done"), { label: t("asks.pin"), run: () => act.pinAnswer(ask) }); },
  pinAnswer: (ask) => parts.launch.open("pin", { text: ask.text }),
};
const parts = {
  numbers: numbers($("#numbers")), order: order($("#order"), act, settings),
  launch: launch($("#launch"), { start, products: () => desk.products.map(({ product }) => product), online: () => desk.view?.online ?? 0, needsPlatform: () => desk.role !== "app" }),
  modes: modes($("#launch"), act), running: running($("#launch"), act), asks: asks($("#asks"), act),
};
$("#launch").append(parts.numbers.card);
const desk = new Desk(room, draw);
globalThis.roomcastDesk = desk;                              // for tests and the browser's console
addEventListener("languagechange", (event) => { event.detail.hash = ""; });

/** Does something, and says what went wrong in a toast. */
async function attempt(work) {
  try { return await work(); } catch (error) { toast(error.text ?? textOf(error), null, 8); return null; }
}

// ---- drawing

function draw(what, more) {
  if (what === "link" || what === "room") drawHead();
  if (what === "shelf") { parts.order.update(shelf(desk.products, desk.explaining.product), desk.explaining.at_ms, desk.isLive); parts.running.update(desk.activities.all(), desk.now); }
  if (what === "activities") parts.running.update(desk.activities.all(), desk.now);
  if (what === "mic") parts.asks.mic(desk.seats);
  if (what === "modes" || what === "room") parts.modes.update({ ...desk.modes, pre_review: desk.view?.rules?.pre_review });
  if (what === "numbers") parts.numbers.take(desk.stats, { giftCents: desk.money.lastMinute(desk.now), orders: desk.orders });
  if (what === "questions") drawQuestions();
  if (what === "elsewhere") tellElsewhere(more);
  if (what === "second") { parts.order.tick(desk.now); parts.running.tick(desk.now); drawClock(); }
}
/** Two desks at once: what the other one did is said, and the figures here are those of the room. */
function tellElsewhere({ what, value }) {
  const text = what === "explaining" ? (value ? t("desk.explaining", { name: act.titleOf(value) }) : t("desk.nothing-now")) : what === "phase" ? t(`phase.${value}`) : t("desk.modes");
  toast(t("elsewhere", { what: text }), null, 8);
}
/** Whether this desk can have an operation done: those that cost money go to the platform, which must answer app.call. */
const canCall = (operation) => !OF_PLATFORM.has(operation) || desk.role === "app" || settings.asks_platform;
const drawQuestions = () => parts.asks.questions(desk.questions.top(Date.now()));

let shownPhase = "";
function drawHead() {
  const { view, state, problem } = desk, isOpen = state === "open" && Boolean(desk.room?.isJoined), phase = view?.phase ?? (problem ? "none" : "loading");
  setText($("#title"), view?.title || room);
  document.title = `${view?.title || room} \u00b7 ${t("desk.title")}`;
  $("#phase").className = `chip ${phase === "live" ? "live" : phase === "paused" ? "warn" : ""}`;
  setText($("#phase-word"), t(`phase.${phase}`));
  $("#link").className = `chip hide-s ${isOpen ? "good" : "warn"}`;
  setText($("#link-word"), isOpen ? t("link.ok") + (desk.client.rttMs ? ` ${Math.round(desk.client.rttMs)} ms` : "") : t("link.again"));
  $("#live").hidden = !(problem?.error || phase === "ended") || state !== "open";
  $("#pause").hidden = $("#end").hidden = !isOpen || !desk.mayDirect || phase === "ended" || phase === "none";
  $("#pause").setAttribute("aria-pressed", String(phase === "paused"));
  const pauseWord = t(phase === "paused" ? "desk.resume" : "desk.pause");
  setText($("#pause-word"), pauseWord);
  $("#pause").setAttribute("aria-label", pauseWord);
  drawNotice(phase, isOpen);
  parts.launch.setEnabled(desk.isLive, canCall);
  parts.modes.setEnabled(desk.isLive);
  parts.order.update(shelf(desk.products, desk.explaining.product), desk.explaining.at_ms, desk.isLive);
  parts.numbers.setBudget(view?.rules?.chat_budget_per_s);
  if (phase !== shownPhase) { if (shownPhase) announce(t(`phase.${phase}`)); shownPhase = phase; }
  drawClock();
}

function drawNotice(phase, isOpen) {
  const notice = $("#notice"), { state, problem } = desk;
  let text = "", kind = "warn";
  if (state === "closed") { text = t("notice.closed", { reason: problem?.reason ?? "", code: problem?.code ?? "" }); kind = "bad"; }
  else if (phase === "ended") text = t("notice.ended");
  else if (problem?.error) text = `${textOf(problem)} \u2013 ${t("notice.go-live")}`;
  else if (!isOpen && desk.view) text = t("notice.reconnecting");
  else if (isOpen && desk.role && !desk.mayDirect) { text = t("notice.role", { role: desk.role }); kind = "bad"; }
  else if (phase === "paused") text = t("notice.paused");
  notice.hidden = !text;
  notice.className = `strip ${kind}`;
  setText(notice, text);
}

const drawClock = () => setText($("#elapsed"), desk.view && desk.view.phase !== "ended" ? duration((desk.now - desk.view.opened_at_ms) / 1000) : "");

// ---- what the person does

async function explain(row) {
  if (!row || !desk.isLive) return;
  const before = desk.explaining.product;
  if (!(await act.call("products.explain", { id: row.id }))) return;
  toast(t("desk.explaining", { name: row.title }), { label: t("undo"), run: () => (before ? act.call("products.explain", { id: before }) : act.stopExplaining()) });
}

async function setModes(name, fields, back) {
  if (await attempt(() => desk.setModes(fields))) toast(t(`mode.${name}`), { label: t("undo"), run: () => attempt(() => desk.setModes(back)) });
}

/** A launch from a tile: it throws what went wrong for the sheet to show. */
async function start(tile, values) {
  const id = `${tile.name}-${Date.now().toString(36)}`;
  if (tile.name === "announce") {
    const result = await desk.room.post("announcement", [values.text]);
    if (result.outcome !== "accepted") throw Object.assign(new Error("refused"), { text: [t("error.refused"), result.reason].filter(Boolean).join(": ") });
  } else if (tile.name === "quiz") {
    const options = values.options.split(/[|\n]/).map((line) => line.trim()).filter(Boolean);
    await desk.ask(id, values.title, options, Math.min(values.right, options.length) - 1, Math.round(desk.now) + values.seconds * 1000);
  } else {
    const [operation, fields] = tile.call(values, Math.round(desk.now), id);
    await desk.call(operation, fields);
    if (tile.name === "pin") { toast(t("launch.done", { what: t("tool.pin") }), { label: t("undo"), run: () => act.call("messages.unpin", { id }) }); return; }
    if (tile.name === "mic") desk._later("mic", 100);
  }
  toast(t("launch.done", { what: t(`tool.${tile.name}`) }));
}

function addProduct() {
  const name = el("input.field", { required: true, maxlength: 100, autocomplete: "off" }), price = el("input.field", { type: "number", min: 0, step: "any", value: "99", required: true }), stock = el("input.field", { type: "number", min: 0, value: "100" }), error = el("p.bad-text", { role: "alert", hidden: true });
  const close = openSheet(t("desk.add"), el("form.stacked", { onsubmit: save }, el("label.stack", {}, t("launch.title"), name), el("label.stack", {}, t("launch.price"), price), el("label.stack", {}, t("launch.stock"), stock), error, el("button.btn.primary", { type: "submit" }, t("save"))));
  async function save(event) {
    event.preventDefault();
    try {
      await desk.call("products.put", { id: `p-${Date.now().toString(36)}`, version: 1, title: name.value.trim(), price_cents: Math.round(Number(price.value) * 100), position: desk.products.length + 1, stock: stock.value === "" ? null : Number(stock.value) });
      close();
    } catch (problem) { setText(error, problem.text); error.hidden = false; }
  }
}

$("#live").addEventListener("click", () => {
  const title = el("input.field", { maxlength: 100, value: desk.view?.title ?? "", autocomplete: "off" });
  const close = openSheet(t("desk.live"), el("form.stacked", { onsubmit: (event) => { event.preventDefault(); attempt(() => desk.goLive(title.value.trim())); close(); } }, el("label.stack", {}, t("launch.title"), title), el("button.btn.primary", { type: "submit" }, t("desk.live"))));
});
$("#pause").addEventListener("click", () => act.call("rooms.set_phase", { phase: desk.view.phase === "paused" ? "live" : "paused" }));

// The end: a press asks, and holding the same place for a second ends the show. Enter held on the keyboard does the same.
let holding = 0;
const end = $("#end"), endWord = end.querySelector("span");
function hold() {
  if (holding) return;
  setText(endWord, t("desk.hold"));
  end.classList.add("holding");
  holding = setTimeout(async () => { release(); await act.call("rooms.close"); }, 1000);
}
function release() {
  clearTimeout(holding);
  holding = 0;
  end.classList.remove("holding");
  setTimeout(() => !holding && setText(endWord, t("desk.end")), 1500);
}
end.addEventListener("pointerdown", hold);
for (const name of ["pointerup", "pointerleave", "pointercancel", "blur"]) end.addEventListener(name, release);
end.addEventListener("keydown", (event) => { if ((event.key === "Enter" || event.key === " ") && !event.repeat) hold(); });
end.addEventListener("keyup", release);

const pick = tabs($("#panes"), (which) => { for (const node of $$("[data-pane]")) node.classList.toggle("on", node.dataset.pane === which); parts.numbers.draw(); });
pick("order");
addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey || $("#sheet").open) return;
  const { next, now } = shelf(desk.products, desk.explaining.product);
  const run = { n: () => explain(next), p: () => now && act.call("messages.pin", { id: `explained-${now.id}`.slice(0, 64), type: 4, payload: [now.title], ttl_ms: 600000 }).then((done) => done && toast(t("launch.done", { what: t("tool.pin") }))), a: () => parts.launch.open("announce"), q: () => { const [ask] = desk.questions.top(Date.now()); if (ask && !ask.answered) act.answered(ask); }, "?": () => openSheet(t("desk.keys"), el("ul.keys-list", {}, ["N", "P", "A", "Q"].map((key) => el("li.row", {}, el("kbd.kbd", {}, key), t(`key.${key}`))))) }[event.key.toLowerCase()];
  if (run && desk.room) { event.preventDefault(); run(); }
});
addEventListener("resize", () => parts.numbers.draw());
addEventListener("themechange", () => parts.numbers.draw());
$("#development").hidden = !settings.development;
drawHead();
