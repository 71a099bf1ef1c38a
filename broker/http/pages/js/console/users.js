// Users: what is known of one, mutes, bans and kicks, what was done and can be undone, and open connections.
import { el } from "../base/dom.js";
import { dateTime, number, t } from "../base/strings.js";
import { askButton } from "../parts/ask.js";
import { form } from "../parts/form.js";
import { table } from "../parts/table.js";
import { toast } from "../parts/toast.js";
import { button, card, head, loader, pairs, word } from "./common.js";

const LENGTHS = [[600, "len.600"], [3600, "len.3600"], [86400, "len.86400"], [604800, "len.604800"], [0, "len.0"]];

export function users({ api, problem, argument: given, room: where }) {
  const place = el("div"), load = loader(place, problem), about = el("div"), links = el("div");
  const find = form([{ name: "user", label: t("u.id"), value: given, max: 64 }, { name: "where", label: t("u.room"), value: where, hint: t("u.everywhere"), max: 64 }], t("u.find"), async ({ user, where: wanted }) => {
    location.hash = `#users/${encodeURIComponent(user)}${wanted ? `/${encodeURIComponent(wanted)}` : ""}`;
    if (user === given && wanted === where) refresh();
  });
  const done = table([
    { label: t("u.at"), cell: (s) => dateTime(s.at_ms) }, { label: t("u.verb"), cell: (s) => el(`span.chip.${s.active ? "warn" : "plain"}`, {}, word("verb", s.verb)) },
    { label: t("col.user"), cell: (s) => el("a", { href: `#users/${encodeURIComponent(s.user)}` }, s.user) }, { label: t("col.room"), cell: (s) => s.room ?? t("u.everywhere") },
    { label: t("u.until"), cell: (s) => (s.until_ms ? dateTime(s.until_ms) : "–") }, { label: t("u.reason"), wraps: true, cell: (s) => s.reason || "–" }, { label: t("u.by"), cell: (s) => `${s.by}${s.undone_by ? ` · ${t("u.undone", { by: s.undone_by })}` : ""}` },
    { label: "", hidden: t("undo"), right: true, cell: (s) => (s.active && s.undo_until_ms > Date.now() ? button(t("undo"), () => undo(s.action)) : "") },
  ], { empty: t("u.none"), label: t("u.done") });

  const sanction = form([
    { name: "verb", label: t("u.what"), value: "mute", options: ["mute", "ban", "kick"].map((verb) => [verb, word("verb", verb)]) },
    { name: "room", label: t("u.room"), value: where, hint: t("u.everywhere"), max: 64 },
    { name: "seconds", label: t("u.length"), value: "600", options: LENGTHS.map(([s, key]) => [String(s), t(key)]) },
    { name: "reason", label: t("u.reason"), max: 256 },
  ], t("u.do"), async ({ verb, room, seconds, reason }) => {
    const length = Number(seconds) || null;
    if (verb === "ban" && !confirmed) { confirmed = true; throw Object.assign(new Error(t("u.ban-ask")), { field: "" }); }
    confirmed = false;
    if (verb === "kick") {
      if (!room) throw Object.assign(new Error(t("u.needs-room")), { field: "room" });
      await api.call("users.kick", { user: given, room, reason });
      toast(t("u.did-kick", { user: given }));
    } else {
      const { action } = await api.call(`moderation.${verb}`, { user: given, room: room || null, seconds: length, reason });
      toast(t(`u.did-${verb}`, { user: given }), { label: t("undo"), run: () => undo(action) });
    }
    refresh();
  });
  let confirmed = false;

  async function end(link) {
    const done = await load(() => api.call("users.disconnect", { user: given, link }));
    if (done) { toast(t(done.links ? "u.did-end-link" : "u.was-gone")); refresh(); }
  }
  async function undo(action) {
    if (await load(() => api.call("moderation.undo", { action, reason: "" }))) { toast(t("u.did-undo")); refresh(); }
  }

  async function refresh() {
    const found = await load(() => Promise.all([api.call("moderation.list", { user: given || null, room: where || null, active: given ? null : true, limit: 100 }), given ? api.call("users.get", { user: given }).catch((error) => { if (error.status === 403) return null; throw error; }) : null]));
    if (!found) return;
    done.show(found[0].items);
    const user = found[1];
    if (!user) return;
    about.replaceChildren(pairs([[t("u.rooms"), user.rooms.join(", ") || "–"], [t("u.tags"), user.tags.join(", ") || "–"], [t("u.sanctions"), number(user.sanctions.length)], [t("u.links"), number(user.links.length)]]));
    const open = table([
      { label: t("u.address"), cell: (link) => el("span.mono", {}, link.address) }, { label: t("u.transport"), cell: (link) => link.transport }, { label: t("u.agent"), cell: (link) => link.agent || "–" },
      { label: t("u.rooms"), wraps: true, cell: (link) => link.rooms.join(", ") || "–" }, { label: t("col.since"), right: true, cell: (link) => (link.since_ms ? dateTime(link.since_ms) : "–") },
      { label: "", hidden: t("u.end-link"), right: true, cell: (link) => askButton(t("u.end-link"), t("u.end-link-ask"), () => end(link.id), { "aria-label": `${t("u.end-link")} ${link.transport} ${link.address}` }) },
    ], { empty: t("u.no-links"), label: t("u.links") });
    open.show(user.links);
    links.replaceChildren(open.node, ...(user.links.length ? [el("div.plain-list", {}, askButton(t("u.disconnect"), t("u.disconnect-ask"), async () => { if (await load(() => api.call("users.disconnect", { user: given }))) { toast(t("u.did-disconnect")); refresh(); } }))] : []));
  }
  refresh();
  return {
    nodes: [head("users", given && el("span.chip.mono", {}, given)), place, card(t("u.find"), find.node),
      ...(given ? [el("div.two", {}, card(t("u.sanction"), sanction.node), card(t("u.about"), about)), card(t("u.links"), links)] : []), card(given ? t("u.done") : t("u.active"), done.node)],
  };
}
