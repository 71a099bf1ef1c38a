// Entry of the agent page: builds the parts, connects them to the link, and the keys of the keyboard.
import { $, el, localise, setText } from "./base/dom.js";
import { announce } from "./base/announce.js";
import { textOf } from "./base/errors.js";
import { brokerSettings, pageControls } from "./base/settings.js";
import { t, use } from "./base/strings.js";
import { base } from "../strings/base.js";
import { talk as words } from "../strings/talk.js";
import { openSheet } from "./parts/sheet.js";
import { talkComposer, talkLog } from "./parts/talk_log.js";
import { toast } from "./parts/toast.js";
import { agentCall } from "./agent/call.js";
import { contextPane } from "./agent/context.js";
import { queueLists, slaOf } from "./agent/queues.js";
import { openCanned, openTransfer } from "./agent/sheets.js";
import { AgentDesk } from "./agent/state.js";

use(base, words);
localise();
pageControls();
const STATES = ["online", "busy", "away", "offline"], TYPING_MS = 5000;
let open = "", hints = [], typingUntil = 0, loading = 0;
const state = $("#state");
state.append(...STATES.map((each) => el("option", { value: each }, t(`state.${each}`))));
const desk = new AgentDesk(onChange);
const call = agentCall(desk.client, { node: $("#call"), text: $("#call-text"), answer: $("#call-answer"), refuse: $("#call-refuse"), end: $("#call-end") }, (conversation) => desk.views.has(conversation) && show(conversation));
globalThis.roomcastAgent = desk;                             // for tests and the browser's console
const viewOf = () => desk.views.get(open);
const log = talkLog($("#log"), (user) => user !== viewOf()?.customer, (message) => (message.user === viewOf()?.customer || message.user === desk.user ? "" : message.name || message.user), (before) => desk.client.call("conversations.history", { conversation: open, before, limit: 50 }));
const lists = queueLists({ mine: $("#mine"), queued: $("#queued"), count: $("#queued-count") }, { open: show });
const context = contextPane($("#context"), { tag: (view, tags) => attempt(() => desk.change("desk.tag", view, { tags })) });
$("#development").hidden = !brokerSettings().development;

async function attempt(work) {
  try { return await work(); } catch (error) { toast(error.text ?? textOf(error), null, 8); return null; }
}

// ---- drawing

function onChange(what, more) {
  if (what === "message") onMessage(more);
  else if (what === "call") call.onEvent(more);
  else if (what === "recalled" && more.id === open) log.recall(more.offset);
  else if (what === "read" && more.id === open) log.setRead(more.offset);
  else if (what === "typing" && more.id === open) typingUntil = Date.now() + TYPING_MS;
  else if (what === "new") { announce(t("agent.new", { name: more.name || more.customer })); if (!open && document.body.dataset.pane !== "context") show(more.id, false); }
  else if (what === "lost" && more.id === open && more.state === "assigned") toast(t("agent.lost", { name: more.agent }));
  draw();
}

function draw() {
  const view = viewOf(), isOpen = desk.state === "open", isMine = desk.isMine(view);
  $("#link").className = `chip hide-s ${isOpen ? "good" : "warn"}`;
  setText($("#link-word"), isOpen ? t("link.ok") : t("link.again"));
  state.disabled = !isOpen || !desk.self;
  if (desk.self && document.activeElement !== state) state.value = desk.self.state;
  drawNotice(isOpen);
  lists.update({ mine: desk.mine, queued: desk.queued, open, unread: desk.unread, settings: desk.settings, now: desk.now, canOpenQueued: true });
  context.update(view, hints);
  setText($("#who"), view ? view.name || view.customer : "");
  $("#who").parentElement.hidden = $("#log").hidden = !view;
  $("#empty").hidden = Boolean(view);
  $("#composer").hidden = !isMine;
  $("#transfer").hidden = $("#resolve").hidden = !isMine;
  $("#take-over").hidden = !view || isMine || !desk.self?.supervisor || desk.self.state !== "online" || view.state === "resolved" || view.state === "closed";
  const sla = view && view.state !== "resolved" ? slaOf(view, desk.settings, desk.now) : null;
  $("#sla").hidden = !sla;
  $("#sla").className = `chip num ${sla?.kind ?? ""}`;
  setText($("#sla"), sla?.text ?? "");
  setText($("#typing"), view && Date.now() < typingUntil ? t("talk.typing", { name: view.name || view.customer }) : "");
  document.title = `${desk.mine.length ? `(${desk.mine.length}) ` : ""}${t("agent.title")}`;
}

function drawNotice(isOpen) {
  const notice = $("#notice"), { problem } = desk;
  let text = "", kind = "warn";
  if (desk.state === "closed") { text = t("notice.closed", { reason: problem?.reason ?? "", code: problem?.code ?? "" }); kind = "bad"; }
  else if (problem?.error) { text = textOf(problem); kind = "bad"; }
  else if (isOpen && desk.agents.length && !desk.self) { text = t("agent.no-agent", { user: desk.user }); kind = "bad"; }
  else if (!isOpen && desk.settings) text = t("notice.reconnecting");
  else if (isOpen && desk.self && desk.self.state !== "online") text = t("agent.gets-none");
  notice.hidden = !text;
  notice.className = `strip ${kind}`;
  setText(notice, text);
}

// ---- what the person does

function pane(which) { document.body.dataset.pane = which; }

/** Opens a conversation: its last messages are read, and so is what comes while it is open. */
async function show(id, moves = true) {
  const number = ++loading;
  if (id !== open) { log.clear(); hints = []; typingUntil = 0; }
  open = id;
  if (moves) pane("talk");
  draw();
  const found = await attempt(() => desk.open(id));
  if (!found || number !== loading) return;
  desk._take(found.desk);
  for (const message of found.messages) log.put(message);
  hints = found.hints;
  seen();
  draw();
  if (moves && desk.isMine(viewOf())) $("#text").focus();
}

function seen() { if (open && desk.isMine(viewOf()) && log.last && document.visibilityState === "visible") desk.read(open, log.last); }

function onMessage({ id, message }) {
  const view = desk.views.get(id);
  if (id === open) { log.put(message); if (message.user === view?.customer) { typingUntil = 0; readHints(id); } seen(); }
  if (view && message.user === view.customer) announce(t("agent.wrote", { name: view.name || view.customer, text: message.text }));
}

/** Reads the hints that the last messages give. */
async function readHints(id) {
  const found = await desk.open(id).catch(() => null);
  if (!found || id !== open || found.hints.length === hints.length) return;
  hints = found.hints;
  draw();
}

async function answer(text) {
  const view = viewOf();
  if (!desk.isMine(view)) return;
  const key = crypto.randomUUID(), line = log.sending(text);
  const send = async () => {
    try {
      const { offset } = await desk.call("desk.answer", { conversation: view.id, epoch: view.epoch, text }, { key });
      line.done();
      if (view.id === open) log.put({ offset, user: desk.user, name: "", at_ms: desk.now, text });
    } catch (error) { line.failed(error.text, send); }
  };
  await send();
}

const resolve = () => { const view = viewOf(); if (desk.isMine(view)) attempt(() => desk.change("desk.resolve", view, { epoch: view.epoch, read: log.last })).then((done) => { if (done) { toast(t("agent.resolved")); next(1); } }); };
function transfer() {
  const view = viewOf();
  if (!desk.isMine(view)) return;
  openTransfer(view, { agents: desk.agents, self: desk.user, settings: desk.settings }, ({ user, topic }) => attempt(() => desk.change("desk.transfer", view, { epoch: view.epoch, user, topic })).then((done) => done && toast(t("agent.transferred"))));
}
const canned = () => desk.isMine(viewOf()) && openCanned((text) => { $("#text").value = text; $("#text").focus(); });
function next(by) {
  const ids = desk.mine.map((view) => view.id), at = ids.indexOf(open);
  if (ids.length) show(ids[(at + by + ids.length) % ids.length]);
}

talkComposer($("#composer"), $("#text"), answer, () => desk.client.call("conversations.show_typing", { conversation: open }).catch(() => {}));
state.addEventListener("change", () => attempt(() => desk.setState(state.value)));
$("#resolve").addEventListener("click", resolve);
$("#transfer").addEventListener("click", transfer);
$("#canned").addEventListener("click", canned);
$("#take-over").addEventListener("click", () => attempt(() => desk.change("desk.take_over", viewOf())).then((done) => done && show(done.id)));
$("#back").addEventListener("click", () => pane(document.body.dataset.pane === "context" ? "talk" : "queues"));
$("#context-open").addEventListener("click", () => pane(document.body.dataset.pane === "context" ? "talk" : "context"));
document.addEventListener("visibilitychange", seen);
addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") { event.preventDefault(); resolve(); return; }
  if (event.key === "/" && event.target.id === "text" && !event.target.value) { event.preventDefault(); canned(); return; }
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey || $("#sheet").open) return;
  const run = { "/": canned, t: transfer, j: () => next(1), k: () => next(-1), "?": () => openSheet(t("agent.keys"), el("ul.keys-list", {}, ["/", "T", "J K", "Ctrl Enter"].map((key) => el("li.row", {}, el("kbd.kbd", {}, key), t(`key.${key}`))))) }[event.key.toLowerCase()];
  if (run) { event.preventDefault(); run(); }
});
draw();
