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
  let items = [], overSince = new Map(), clocks = [];

  function update(activities, nowMs) {
    items = fold(activities);
    for (const { kind, id, isOver } of items) if (isOver && !overSince.has(`${kind} ${id}`)) overSince.set(`${kind} ${id}`, nowMs);
    if (overSince.size > 500) overSince = new Map([...overSince].slice(-200));
    const shown = items.filter(({ kind, id, isOver }) => !isOver || nowMs - overSince.get(`${kind} ${id}`) < 60000);
    setText(count, number(shown.filter((each) => !each.isOver).length));
    clocks = [];
    fill(list, ...(shown.length ? shown.map(row) : [el("li.empty", {}, el("p.muted", {}, t("running.none")))]));
    tick(nowMs);
  }

  function row(item) {
    const { kind, id, isOver, state } = item, tile = TILES.find((each) => each.name === TILE[kind]);
    const picture = icon(tile?.icon ?? "list", true), meter = el("div.meter", { "aria-hidden": "true" }, el("i")), clock = el("span.chip.num", { role: "timer" });
    const node = el("li", { "data-kind": kind, "data-id": id }, picture, el("div.grow", {}, el("h3.clip", {}, title(item, act.titleOf)), el("p.num.clip", {}, summary(item))), meter, clock, el("div.row", {}, more(item)));
    node.style.setProperty("--c", `var(${tile?.token ?? "--text-2"})`);
    if (isOver) setText(clock, word(state)); else clocks.push({ item, clock, meter });
    meter.style.setProperty("--v", `${Math.round((isOver ? 1 : item.part ?? 0) * 100)}%`);
    return node;
  }

  function more({ kind, id, isOver, state, data }) {
    const question = data.question;
    return [
      kind === "lotteries" && state === "closed" && el("button.btn", { type: "button", onclick: () => act.call("lotteries.draw", { id, round: 0, signature: "" }) }, t("running.draw")),
      kind === "quizzes" && question?.state === "closed" && el("button.btn", { type: "button", onclick: () => act.reveal(id, data.number) }, t("running.reveal")),
      kind === "quizzes" && !isOver && question?.state === "revealed" && el("button.btn", { type: "button", onclick: () => act.call("quizzes.finish", { id }) }, t("running.finish")),
      kind === "pk" && state === "inviting" && !data.is_inviting && el("button.btn", { type: "button", onclick: () => act.call("pk.answer", { id, accepts: true }) }, t("running.accept")),
      !isOver && STOPS[kind] && askButton(t("running.stop"), t(kind === "sales" ? "running.stop-sale" : "running.stop-ask", { n: number(data.confirmed ?? 0), left: number(data.available ?? 0) }), () => act.call(...STOPS[kind](id))),
    ].filter(Boolean);
  }

  /** Clocks go on the broker's time. */
  function tick(nowMs) {
    for (const { item, clock, meter } of clocks) {
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
