// What runs, what ends first on top: its clock, its numbers, and how it is stopped. Results stay a minute.
import { el, fill, icon, setText } from "../base/dom.js";
import { duration, has, money, number, t } from "../base/strings.js";
import { askButton } from "../parts/ask.js";
import { running as fold } from "./view.js";
import { TILES } from "./launch.js";

const TILE = { sales: "sale", packets: "packet", rains: "rain", lotteries: "lottery", polls: "poll", quizzes: "quiz", countdowns: "countdown", coupons: "coupon", pk: "pk" };
const STOPS = {
  sales: (id) => ["sales.close", { id }], polls: (id) => ["polls.close", { id }], lotteries: (id) => ["lotteries.void", { id, reason: "stopped" }], quizzes: (id) => ["quizzes.cancel", { id }],
  countdowns: (id) => ["countdowns.stop", { id }], pk: (id) => ["pk.cancel", { id }], packets: (id) => ["packets.cancel", { id }], rains: (id) => ["rains.cancel", { id }], coupons: (id) => ["coupons.close", { id }],
};

export function running(place, act) {
  const list = el("ul.running"), count = el("span.chip.num");
  place.append(el("article.card", {}, el("header", {}, el("h2", {}, t("desk.running")), count), list));
  const none = el("li.empty", {}, el("p.muted", {}, t("running.none")));
  let items = [], overSince = new Map(), rows = new Map();

  /** Rows stay as long as their activity: a question that is open in one, and the focus, outlast what changes around it. */
  function update(activities, nowMs) {
    items = fold(activities);
    for (const { kind, id, isOver } of items) if (isOver && !overSince.has(`${kind} ${id}`)) overSince.set(`${kind} ${id}`, nowMs);
    if (overSince.size > 500) overSince = new Map([...overSince].slice(-200));
    const shown = items.filter(({ kind, id, isOver }) => !isOver || nowMs - overSince.get(`${kind} ${id}`) < 60000);
    setText(count, number(shown.filter((each) => !each.isOver).length));
    const before = rows;
    rows = new Map(shown.map((item) => [`${item.kind} ${item.id}`, before.get(`${item.kind} ${item.id}`) ?? makeRow(item)]));
    for (const item of shown) rows.get(`${item.kind} ${item.id}`).set(item);
    const nodes = shown.length ? [...rows.values()].map((row) => row.node) : [none];
    if (nodes.length !== list.children.length || nodes.some((node, i) => node !== list.children[i])) fill(list, ...nodes);
    tick(nowMs);
  }

  function makeRow({ kind, id }) {
    const tile = TILES.find((each) => each.name === TILE[kind]), name = el("h3.clip"), text = el("p.num.clip"), buttons = el("div.row");
    const meter = el("div.meter", { "aria-hidden": "true" }, el("i")), clock = el("span.chip.num", { role: "timer" });
    const node = el("li", { "data-kind": kind, "data-id": id }, icon(tile?.icon ?? "list", true), el("div.grow", {}, name, text), meter, clock, buttons);
    node.style.setProperty("--c", `var(${tile?.token ?? "--text-2"})`);
    const row = { node, clock, meter, item: null, set };
    let latest = null, drawn = "";
    function set(item) {
      latest = row.item = item;
      setText(name, title(item, act.titleOf));
      setText(text, summary(item));
      if (item.isOver) setText(clock, word(item.state));
      meter.style.setProperty("--v", `${Math.round((item.isOver ? 1 : item.part ?? 0) * 100)}%`);
      const offered = choices(item).join();
      if (offered !== drawn) { drawn = offered; fill(buttons, ...more(item, () => latest)); }
    }
    return row;
  }

  /** What can be done with an activity, by name. */
  function choices({ kind, id, isOver, state, data }) {
    const question = data.question;
    return [
      kind === "lotteries" && state === "closed" && "draw", kind === "quizzes" && question?.state === "open" && "close", kind === "quizzes" && question?.state === "closed" && "reveal", kind === "quizzes" && !isOver && question?.state === "revealed" && "finish",
      kind === "pk" && state === "invited" && "accept", kind === "pk" && state === "invited" && "decline", kind === "countdowns" && !isOver && "more", !isOver && STOPS[kind] && state !== "invited" && act.canCall(STOPS[kind](id)[0]) && "stop",
    ].filter(Boolean);
  }

  function more(item, latest) {
    const { kind, id } = item, plain = (name, run) => el("button.btn", { type: "button", "aria-label": `${t(`running.${name}`)} ${title(item, act.titleOf)}`, onclick: run }, t(`running.${name}`));
    const make = {
      draw: () => plain("draw", () => act.call("lotteries.draw", { id, round: 0, signature: "" })), close: () => plain("close", () => act.call("quizzes.close", { id, number: latest().data.number })), reveal: () => plain("reveal", () => act.reveal(id, latest().data.number)),
      finish: () => plain("finish", () => act.call("quizzes.finish", { id })), accept: () => plain("accept", () => act.call("pk.answer", { id, accepts: true })), decline: () => plain("decline", () => act.call("pk.answer", { id, accepts: false })), more: () => plain("more", () => act.extend(latest())),
      stop: () => askButton(t("running.stop"), () => t(kind === "sales" ? "running.stop-sale" : "running.stop-ask", { n: number(latest().data.confirmed ?? 0), left: number(latest().data.available ?? 0) }), () => act.call(...STOPS[kind](id))),
    };
    return choices(item).map((name) => make[name]());
  }

  /** Clocks go on the broker's time. */
  function tick(nowMs) {
    for (const { item, clock, meter } of rows.values()) {
      if (item.isOver) continue;
      const waits = item.startsAt > nowMs, end = waits ? item.startsAt : item.endsAt;
      setText(clock, end ? `${waits ? t("running.in") : ""}${duration((end - nowMs) / 1000)}` : word(item.state));
      if (item.part === null && end && !waits && item.startsAt) meter.style.setProperty("--v", `${Math.min(100, Math.max(0, (100 * (nowMs - item.startsAt)) / (end - item.startsAt)))}%`);
    }
  }
  return { update, tick };
}

const word = (state) => (has(`state.${state}`) ? t(`state.${state}`) : state);
const title = ({ kind, data, id }, titleOf) => [t(`tool.${TILE[kind]}`), data.title || data.label || data.terms?.title || data.question?.terms?.title || (data.sku && titleOf(data.sku)) || data.grades?.[0]?.name || data.other_room || id].join(" · ");

function summary({ kind, data }) {
  switch (kind) {
    case "sales": return t("running.sale", { confirmed: number(data.confirmed), stock: number(data.stock), waiting: number(data.reserved), price: money(data.price_cents) });
    case "packets": return t("running.packet", { taken: number(data.taken), count: number(data.count), sum: money(data.total_cents) });
    case "rains": return t("running.rain", { fallen: number(data.fallen), drops: number(data.drops), sum: money(data.total_cents) });
    case "lotteries": return t("running.lottery", { n: number(data.entries) });
    case "polls": return t("running.poll", { n: number(data.voters) }) + (data.counts?.length ? ` · ${data.counts.map((n, i) => `${data.terms.options[i]} ${number(n)}`).join(" / ")}` : "");
    case "quizzes": return data.question ? t("running.quiz", { n: number(data.question.voters ?? 0), number: number(data.number) }) : "";
    case "pk": return `${number(data.score ?? 0)} : ${number(data.other_score ?? 0)}`;
    default: return "";
  }
}
