// Tenants: what each uses of its quotas; for keys of no tenant, since it is about all of them.
import { el } from "../base/dom.js";
import { decimal, number, t } from "../base/strings.js";
import { table } from "../parts/table.js";
import { button, head, loader } from "./common.js";

export function tenants({ api, problem }) {
  const place = el("div"), load = loader(place, problem);
  const list = table([
    { label: t("k.tenant"), cell: (item) => [el("b.mono", {}, item.name), !item.is_configured && el("span.chip.warn", {}, t("t.ending"))] },
    { label: t("t.connections"), right: true, cell: (item) => use(item.connections, item.max_connections) },
    { label: t("t.rooms"), right: true, cell: (item) => use(item.rooms, item.max_rooms) },
    { label: t("t.messages"), right: true, cell: (item) => number(item.messages) }, { label: t("t.messages-quota"), right: true, cell: (item) => rate(item.messages_per_s) },
    { label: t("t.calls"), right: true, cell: (item) => number(item.calls) }, { label: t("t.calls-quota"), right: true, cell: (item) => rate(item.calls_per_s) },
    { label: t("t.refused"), right: true, cell: (item) => el(`span.chip.num.${item.refused ? "warn" : "plain"}`, {}, number(item.refused)) },
  ], { empty: t("t.none"), label: t("nav.tenants") });
  async function refresh() {
    const found = await load(() => api.call("broker.tenants"));
    if (found) list.show(found.items);
  }
  refresh();
  return { nodes: [head("tenants", el("span.grow"), button(t("t.again"), refresh)), place, el("article.card", {}, el("p.muted.plain-list", {}, t("t.text")), list.node)] };
}

/** What is used of a quota; from nine tenths on it stands out. */
const use = (count, most) => (most ? el(`span.chip.num.${count >= most * 0.9 ? "warn" : "plain"}`, {}, `${number(count)} / ${number(most)}`) : number(count));
const rate = (perSecond) => (perSecond ? `${decimal(perSecond)}/s` : "–");
