// Webhooks: endpoints, and the events that were given up: tried again or dropped.
import { el } from "../base/dom.js";
import { dateTime, duration, number, t } from "../base/strings.js";
import { askButton } from "../parts/ask.js";
import { table } from "../parts/table.js";
import { toast } from "../parts/toast.js";
import { button, card, head, loader, word } from "./common.js";

const PAGE = 100;

export function webhooks({ api, problem }) {
  const place = el("div"), load = loader(place, problem), all = button(t("w.retry-all"), () => retry(null)), more = button(t("w.more"), () => { most += PAGE; refresh(); }, "quiet");
  let most = PAGE;
  more.hidden = true;
  const endpoints = table([
    { label: t("w.endpoint"), cell: (e) => el("b", {}, e.name) }, { label: t("w.origin"), cell: (e) => el("span.mono", {}, e.origin) }, { label: t("w.events"), wraps: true, cell: (e) => e.events.join(", ") },
    { label: t("w.state"), cell: (e) => el(`span.chip.${e.state === "closed" ? "good" : "bad"}`, {}, word("breaker", e.state)) },
    { label: t("w.delivered"), right: true, cell: (e) => number(e.delivered) }, { label: t("w.waiting"), right: true, cell: (e) => `${number(e.waiting)}${e.oldest_ms ? ` · ${duration(e.oldest_ms / 1000)}` : ""}` }, { label: t("w.dead"), right: true, cell: (e) => number(e.dead) },
    { label: t("w.last"), wraps: true, cell: (e) => e.last_failure || "–" }, { label: "", hidden: t("w.test"), right: true, cell: (e) => button(t("w.test"), () => test(e.name)) },
  ], { empty: t("w.none"), label: t("w.endpoints") });
  const dead = table([
    { label: t("w.at"), cell: (d) => dateTime(d.created_at_ms) }, { label: t("w.type"), cell: (d) => el("span.mono", {}, d.type) }, { label: t("w.endpoint"), cell: (d) => d.endpoint }, { label: t("col.room"), cell: (d) => d.room || "–" },
    { label: t("w.attempts"), right: true, cell: (d) => number(d.attempts) }, { label: t("u.reason"), wraps: true, cell: (d) => d.reason },
    { label: "", hidden: t("retry"), right: true, cell: (d) => el("div.row", {}, button(t("retry"), () => retry([d.id])), askButton(t("w.drop"), t("w.drop-ask"), () => drop(d.id))) },
  ], { empty: t("w.no-dead"), label: t("w.letters") });

  async function refresh() {
    const found = await load(() => Promise.all([api.call("hooks.list"), api.all("hooks.deliveries", { state: "dead" }, most)]));
    if (!found) return;
    endpoints.show(found[0].items);
    dead.show(found[1]);
    all.hidden = !found[1].length;
    more.hidden = found[1].length < most;
  }
  async function retry(ids) {
    const done = await load(() => (ids ? api.call("hooks.retry", { ids }) : Promise.all(endpointsOf().map((endpoint) => api.call("hooks.retry", { endpoint }))).then((each) => ({ retried: each.reduce((n, { retried }) => n + retried, 0) }))));
    if (done) { toast(t("w.retried", { n: done.retried })); refresh(); }
  }
  const endpointsOf = () => [...endpoints.node.querySelectorAll("tbody b")].map((node) => node.textContent);
  async function drop(id) {
    const done = await load(() => api.call("hooks.drop", { ids: [id] }));
    if (done) { toast(t("w.dropped")); refresh(); }
  }
  async function test(endpoint) {
    const done = await load(() => api.call("hooks.test", { endpoint, note: "console" }));
    if (done) toast(t("w.tested", { endpoint, detail: done.detail, ms: done.took_ms }));
  }
  refresh();
  const timer = setInterval(refresh, 5000);
  return { nodes: [head("webhooks"), place, card(t("w.endpoints"), endpoints.node), el("article.card", {}, el("header", {}, el("h2", {}, t("w.letters")), all), dead.node, more)], close: () => clearInterval(timer) };
}
