// Review: who decides next. Keyboard first; a decision is held five seconds on this side, so that it can be undone.
import { avatar, el, fill, setText } from "../base/dom.js";
import { duration, has, number, t, time } from "../base/strings.js";
import { announce } from "../base/announce.js";
import { loading } from "../parts/table.js";
import { toast } from "../parts/toast.js";
import { button, head, loader, textOf, word } from "./common.js";

const HOLD_MS = 5000, CLAIM_MS = 60000, CLAIM_AFTER_MS = 300, POLL_MS = 3000, MUTE_S = 600, PAGE = 100, MOST_PAGES = 10;
const keyOf = (item) => `${item.room} ${item.id}`;

export function review({ api, problem, argument: room }) {
  const place = el("div"), load = loader(place, problem);
  const list = el("ol.queue", { id: "queue", role: "listbox", tabindex: "0", "aria-label": t("r.queue"), onkeydown: onKey });
  const detail = el("article.card.detail", { id: "detail", "aria-live": "off" }, loading()), waiting = el("span.chip.warn.num");
  const more = button(t("r.more"), showMore, "quiet");
  more.hidden = true;
  const hints = el("span.keys", { "aria-hidden": "true" }, ["J K:r.move", "A:r.approve", "R:r.reject", "M:r.mute", "E:r.same", "Z:undo"].map((pair) => {
    const [key, name] = pair.split(":");
    return el("span.row", {}, el("kbd.kbd", {}, key), t(name));
  }));
  const find = el("input.field", { type: "search", value: room, placeholder: t("r.room"), autocomplete: "off", "aria-label": t("r.room"), onchange: () => { location.hash = find.value.trim() ? `#review/${encodeURIComponent(find.value.trim())}` : "#review"; } });
  let items = [], selected = "", claimTimer = 0, lastCount = -1, isFirst = true, pages = 1, hasMore = false;
  const held = new Map(); // decisions that wait: key -> {item, verdict, timer}
  const histories = new Map(); // what is known of users
  const fences = new Map();

  /** The first pages of the queue, as many as the person has gone on to. */
  async function readPages() {
    const found = [];
    let next = null;
    for (let page = 0; page < pages && (page === 0 || next); page++) {
      const answer = await api.call("moderation.queue", { room: room || null, limit: PAGE, ...(next ? { cursor: next } : {}) });
      found.push(...answer.items);
      next = answer.next;
    }
    return { items: found, next };
  }
  function showMore() { pages = Math.min(pages + 1, MOST_PAGES); return refresh(); }

  async function refresh() {
    const found = await load(readPages);
    if (!found) return;
    hasMore = found.next !== null;
    items = found.items.filter((item) => item.state !== "approved" && !held.has(keyOf(item)));
    draw();
    if (isFirst) { isFirst = false; list.focus(); }
  }

  // ---- drawing

  const at = () => items.findIndex((item) => keyOf(item) === selected);
  const isElsewhere = (item) => item.state === "claimed" && !fences.has(keyOf(item));

  function draw() {
    if (at() < 0) select(items.find((item) => !isElsewhere(item)) ?? items[0], false);
    setText(waiting, `${number(items.length)}${hasMore ? "+" : ""}`);
    waiting.hidden = !items.length;
    more.hidden = !hasMore || pages === MOST_PAGES;
    list.replaceChildren(...items.map((item, i) => el(isElsewhere(item) ? "li.held-by" : "li", {
      role: "option", id: `held-${i}`, "aria-selected": String(keyOf(item) === selected), onclick: () => { select(item); draw(); },
    }, el("span.clip", {}, textOf(item.payload)), el("span.due", { "data-due": item.due_at_ms ?? "" }),
    el("small.clip", {}, `${item.name || item.user} · ${item.room}${isElsewhere(item) ? ` · ${t("r.has", { name: item.claimed_by })}` : ""}`), el(`span.chip.${item.held_by === "report" ? "warn" : "bad"}`, {}, word("held", item.held_by)))));
    if (items.length) list.setAttribute("aria-activedescendant", `held-${at()}`); else list.removeAttribute("aria-activedescendant");
    list.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" });
    drawDetail();
    tick();
  }

  function drawDetail() {
    const item = items[at()];
    if (!item) { detail.replaceChildren(el("p.muted.empty-row", {}, t("r.empty"))); return; }
    const known = histories.get(item.user);
    fill(detail,
      el("div.row", {}, avatar(item.name || item.user), el("div.grow", {}, el("h2", {}, el("a", { href: `#users/${encodeURIComponent(item.user)}` }, item.name || item.user)), el("small.muted", {}, known ? t("r.history", known) : " ")), el("span.chip.warn.num", { id: "due", "data-due": item.due_at_ms ?? "" })),
      marked(item),
      el("div.facts", {}, el("span.chip", {}, `${t("r.why")}: ${word("held", item.held_by)}`), item.reason && el("span.chip", {}, item.reason),
        [...new Set(item.findings.map((finding) => `${[finding.list_name, finding.category].filter(Boolean).join(" · ")}`))].map((text) => el("span.chip.bad", {}, text)),
        el("a.chip.mono", { href: `#rooms/${encodeURIComponent(item.room)}` }, item.room), el("span.chip.num", {}, time(item.at_ms))),
      item.reports.length > 0 && el("div", {}, el("h3", {}, t("r.reports", { n: number(item.reports.length) })), el("ol.around", {}, item.reports.slice(0, 5).map((report) => el("li", {}, `${report.user}  ${report.reason}`)))),
      item.context.length > 0 && el("div", {}, el("h3", {}, t("r.context")), el("ol.around", {}, item.context.map((line) => el("li", {}, `${line.name || line.user}  ${textOf(line.payload ?? line.text ?? "")}`)))),
      el("div.act-row", {}, act("r.approve", "approve", "yes", "A"), act("r.reject", "reject", "no", "R"), act("r.mute", "mute", "", "M"), el("button.btn.quiet", { type: "button", onclick: () => move(1) }, t("r.skip"), el("kbd.kbd", {}, "J"))));
  }

  const act = (label, what, kind, letter) => el(`button.btn${kind && `.${kind}`}`, { type: "button", onclick: () => decide(what) }, t(label), el("kbd.kbd", {}, letter));

  /** The text with what was found in it marked. Positions count code points. */
  function marked(item) {
    const letters = [...textOf(item.payload)], said = el("p.said", { dir: "auto" });
    let from = 0;
    for (const { start, end } of [...item.findings].sort((a, b) => a.start - b.start)) {
      if (start < from || end > letters.length || typeof item.payload?.[0] !== "string") continue;
      said.append(letters.slice(from, start).join(""), el("mark", {}, letters.slice(start, end).join("")));
      from = end;
    }
    said.append(letters.slice(from).join(""));
    return said;
  }

  function tick() {
    for (const node of [...list.querySelectorAll(".due"), ...detail.querySelectorAll("#due")]) {
      const left = node.dataset.due ? Math.max(0, (Number(node.dataset.due) - Date.now()) / 1000) : null;
      node.hidden = left === null;
      if (left === null) continue;
      setText(node, node.id ? t("r.due", { s: duration(left) }) : duration(left));
      node.classList.toggle("soon", left < 10);
    }
  }

  // ---- selecting and claiming

  function select(item, isByPerson = true) {
    selected = item ? keyOf(item) : "";
    clearTimeout(claimTimer);
    if (!item) return;
    if (isByPerson || fences.size) claimTimer = setTimeout(() => claim(item), CLAIM_AFTER_MS);
    if (!histories.has(item.user)) {
      histories.set(item.user, null);
      api.call("moderation.list", { user: item.user, room: room || null, active: null, limit: 100 }).then(({ items: past }) => {
        const since = Date.now() - 86400000;
        histories.set(item.user, { n: past.filter((each) => each.at_ms > since).length, active: past.filter((each) => each.active).length });
        if (selected === keyOf(item)) drawDetail();
      }, () => {});
    }
  }

  async function claim(item) {
    if (fences.has(keyOf(item)) || isElsewhere(item)) return;
    const got = await api.call("moderation.claim", { room: item.room, items: [item.id], ttl_ms: CLAIM_MS }).catch(() => null);
    if (got?.items.length) { fences.set(keyOf(item), got.fence); setTimeout(() => fences.delete(keyOf(item)), CLAIM_MS); }
    else if (got) refresh();
  }

  function move(step) {
    if (!items.length) return;
    if (step > 0 && at() === items.length - 1 && !more.hidden) showMore();
    select(items[(at() + step + items.length) % items.length]);
    draw();
    list.focus();
  }

  // ---- deciding

  function decide(what, all = false) {
    const item = items[at()];
    if (!item || isElsewhere(item)) return;
    const group = all ? items.filter((each) => textOf(each.payload) === textOf(item.payload) && !isElsewhere(each)) : [item];
    const next = items[at() + 1] ?? items[at() - 1];
    for (const each of group) held.set(keyOf(each), { item: each, what, timer: 0 });
    items = items.filter((each) => !held.has(keyOf(each)));
    last = group.map(keyOf);
    if (next && !held.has(keyOf(next))) select(next);
    const batch = last;
    const timer = setTimeout(() => send(batch), HOLD_MS);
    for (const key of batch) held.get(key).timer = timer;
    draw();
    list.focus();
    toast(t(group.length > 1 ? "r.done-n" : "r.done", { what: t(`r.${what}`), n: group.length }), { label: t("undo"), run: undo }, HOLD_MS / 1000);
    if (items[at()]) announce(textOf(items[at()].payload));
  }
  let last = [];
  let lastWhat = "approve";

  function undo() {
    const back = last.filter((key) => held.has(key));
    if (!back.length) return;
    for (const key of back) { clearTimeout(held.get(key).timer); items.push(held.get(key).item); held.delete(key); }
    items.sort((a, b) => a.at_ms - b.at_ms);
    selected = back[0];
    draw();
    announce(t("undo"));
  }

  async function send(keys, keepalive = false) {
    const groups = new Map(); // of one room and one decision each
    for (const key of keys) {
      const waits = held.get(key);
      if (!waits) continue;
      clearTimeout(waits.timer);
      const name = `${waits.what} ${waits.item.room}`;
      groups.set(name, [...(groups.get(name) ?? []), waits]);
    }
    // All at once: of a page that is left, what would wait for an answer is never sent.
    await Promise.all([...groups.values()].map(async (group) => {
      const { what, item: { room } } = group[0], mutes = what === "mute" ? [...new Set(group.map(({ item }) => item.user))] : [];
      try {
        const [done] = await Promise.all([
          api.call("moderation.decide", { room, items: group.map(({ item }) => item.id), verdict: what === "approve" ? "approve" : "reject" }, { keepalive }),
          ...mutes.map((user) => api.call("moderation.mute", { room, user, seconds: MUTE_S, reason: t("r.mute-reason") }, { keepalive })),
        ]);
        const refused = done.items.filter((each) => each.code !== null);
        if (refused.length) toast(t("r.taken", { n: refused.length }));
      } catch (error) { place.replaceChildren(problem(error)); }
      for (const { item } of group) { held.delete(keyOf(item)); fences.delete(keyOf(item)); }
    }));
    if (!keepalive) refresh();
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const run = { j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1), a: () => decide(lastWhat = "approve"), r: () => decide(lastWhat = "reject"), m: () => decide("mute"), e: () => decide(lastWhat, true), z: undo }[key];
    if (!run) return;
    event.preventDefault();
    run();
  }

  const onHide = () => send([...held.keys()], true);
  addEventListener("pagehide", onHide);
  refresh();
  const clock = setInterval(tick, 1000), poll = setInterval(refresh, POLL_MS);
  return {
    nodes: [head("review", waiting, el("span.grow"), hints, el("label.find", {}, find)), place, el("div.review", {}, el("article.card", {}, el("header", {}, el("h2", {}, t("r.queue"))), list, more), detail)],
    update(event) {
      const count = event.review_messages?.waiting ?? 0;
      if (count !== lastCount) { lastCount = count; refresh(); }
    },
    close() { clearInterval(clock); clearInterval(poll); clearTimeout(claimTimer); removeEventListener("pagehide", onHide); send([...held.keys()], true); },
  };
}
