// Audit: who has changed what, on whose behalf, and how it ended; the newest first, page by page.
import { el } from "../base/dom.js";
import { dateTime, number, t } from "../base/strings.js";
import { form } from "../parts/form.js";
import { table } from "../parts/table.js";
import { button, card, head, loader, word } from "./common.js";

export function audit({ api, problem, allowed }) {
  const place = el("div"), load = loader(place, problem), chosen = el("pre.data", { tabindex: "0" }), more = button(t("au.older"), () => page(), "quiet");
  const details = card(t("au.details"), chosen);
  let pages = [], filter = {}, all = [];
  const list = table([
    { label: t("au.entry"), cell: (a) => String(a.entry) }, { label: t("u.at"), cell: (a) => dateTime(a.at_ms) }, { label: t("au.actor"), cell: (a) => `${word("actor", a.actor_kind)} ${a.actor}${a.as_user ? ` → ${a.as_user}` : ""}` },
    { label: t("au.operation"), cell: (a) => el("span.mono", {}, a.operation) }, { label: t("col.room"), cell: (a) => a.room || "–" }, { label: t("au.subject"), cell: (a) => (a.subject ? el("a", { href: `#users/${encodeURIComponent(a.subject)}` }, a.subject) : "–") },
    { label: t("u.reason"), wraps: true, cell: (a) => a.reason || "–" }, { label: t("au.outcome"), cell: (a) => el(`span.chip.${a.outcome === "OK" ? "good" : "warn"}`, {}, a.outcome) },
    { label: "", hidden: t("au.details"), right: true, cell: (a) => button(t("au.details"), () => { chosen.textContent = JSON.stringify({ request: a.request, before: a.before, after: a.after }, null, 2); details.hidden = false; chosen.focus(); }) },
  ], { empty: t("au.none"), label: t("nav.audit") });
  const find = form([{ name: "room", label: t("col.room"), max: 64 }, { name: "actor", label: t("au.actor"), max: 64 }, { name: "subject", label: t("au.subject"), max: 64 }, { name: "operation", label: t("au.operation"), max: 64, hint: "moderation.mute" }], t("au.find"), async (values) => {
    filter = Object.fromEntries(Object.entries(values).filter(([, value]) => value));
    await refresh();
  });

  /** Entries come oldest first: all pages up to a bound are read, and shown from the end. */
  async function refresh() {
    const found = await load(async () => {
      const entries = [];
      let after = 0;
      for (let turn = 0; turn < 20 && after !== null; turn++) {
        const { items, next } = await api.call("moderation.audit", { ...filter, after, limit: 200 });
        entries.push(...items);
        after = next;
      }
      return entries.reverse();
    });
    if (!found) return;
    all = found;
    pages = [];
    page();
  }
  function page() {
    pages = all.slice(0, pages.length + 100);
    list.show(pages);
    more.hidden = pages.length >= all.length;
  }

  /** The hash chain, checked by the broker; the head that is shown is an anchor for `roomcast audit verify`. */
  const result = el("div", { role: "status" });
  const verify = button(t("au.verify"), async () => {
    verify.disabled = true;
    result.replaceChildren(el("p.muted", {}, t("au.verifying")));
    const found = await load(() => api.call("broker.verify_chain", { entries: 1_000_000 }));
    verify.disabled = false;
    result.replaceChildren(...(found ? [verdict(found)] : []));
  });
  verify.hidden = !allowed.includes("config"); // both are for keys of the whole broker
  details.hidden = true;
  refresh();
  return { nodes: [head("audit", el("span.grow"), verify), place, result, el("article.card", {}, find.node), el("article.card", {}, list.node), more, details] };
}

function verdict(found) {
  const scope = t(found.is_whole ? "au.whole" : "au.last", { n: number(found.entries) });
  return card(t("au.chain"),
    el("p.plain-list", {}, el(`span.chip.${found.holds ? "good" : "bad"}`, {}, t(found.holds ? "au.holds" : "au.broken")), " ", found.problem || scope),
    el("p.plain-list.muted", {}, t("au.anchor"), " ", el("span.mono", {}, `${found.last}:${found.hash}`)));
}
