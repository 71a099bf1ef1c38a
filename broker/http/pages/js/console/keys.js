// Keys of the control API: made (the text is shown once), revoked; and the key that signs reconnect tickets.
import { el } from "../base/dom.js";
import { dateTime, t } from "../base/strings.js";
import { askButton } from "../parts/ask.js";
import { form } from "../parts/form.js";
import { table } from "../parts/table.js";
import { toast } from "../parts/toast.js";
import { button, card, head, loader } from "./common.js";

const SCOPES = [
  "rooms:read", "rooms:write", "messages:write", "directs:write", "users:read", "users:write", "hooks:write", "moderation:read", "moderation:write",
  "commerce:read", "commerce:write", "admin",
];
const DAY_S = 86400;

export function keys({ api, problem }) {
  const place = el("div"), load = loader(place, problem), note = el("p.muted.plain-list"), once = el("div");
  const list = table([
    { label: t("k.id"), cell: (k) => el("b.mono", {}, k.id) }, { label: t("k.note"), wraps: true, cell: (k) => k.note || "–" }, { label: t("k.scopes"), wraps: true, cell: (k) => k.scopes.map((scope) => el("span.chip.mono", {}, scope)) },
    { label: t("k.rooms"), wraps: true, cell: (k) => k.rooms.join(", ") }, { label: t("k.tenant"), cell: (k) => k.tenant || "–" }, { label: t("k.expires"), cell: (k) => expiry(k.expires_at_s) }, { label: t("k.kind"), cell: (k) => t(k.signs ? "k.signs" : "k.bearer") },
    { label: "", hidden: t("k.revoke"), right: true, cell: (k) => (k.id === api.keyId ? el("span.chip", {}, t("k.own")) : askButton(t("k.revoke"), t("k.revoke-ask"), () => revoke(k.id), { "aria-label": `${t("k.revoke")} ${k.id}` })) },
  ], { empty: t("k.none"), label: t("nav.keys") });

  const boxes = SCOPES.map((scope) => el("input", { type: "checkbox", value: scope }));
  const making = form([
    { name: "id", label: t("k.id"), max: 32, required: true, hint: "order-service" }, { name: "rooms", label: t("k.rooms-hint"), value: "*" },
    { name: "of_tenant", label: t("k.tenant"), max: 32 }, { name: "note", label: t("k.note"), max: 128 }, { name: "days", label: t("k.days"), type: "number", min: 1, max: 3650 },
    { name: "kind", label: t("k.kind"), value: "bearer", options: [["bearer", t("k.bearer")], ["signs", t("k.signs")]] },
  ], t("k.make"), async ({ id, rooms, of_tenant, note: text, days, kind }) => {
    const scopes = boxes.filter((box) => box.checked).map((box) => box.value);
    if (!scopes.length) { boxes[0].focus(); throw new Error(t("k.needs-scope")); }
    const made = await api.call("broker.create_api_key", {
      id, scopes, rooms: rooms.split(",").map((each) => each.trim()).filter(Boolean), of_tenant, note: text, signs: kind === "signs", expires_at_s: days ? Math.floor(Date.now() / 1000) + days * DAY_S : 0,
    });
    for (const name of ["id", "note", "of_tenant"]) making.input(name).value = "";
    for (const box of boxes) box.checked = false;
    show(made);
    refresh();
  });
  making.node.insertBefore(el("fieldset.checks", {}, el("legend", {}, t("k.scopes")), boxes.map((box) => el("label", {}, box, el("span.mono", {}, box.value)))), making.node.querySelector("[type=submit]"));

  /** The text of a new key, until it is put away: nothing keeps it. */
  function show({ id, key }) {
    const field = el("input.field.mono", { type: "text", readonly: true, value: key, onfocus: () => field.select() });
    const copy = button(t("k.copy"), async () => { try { await navigator.clipboard.writeText(key); toast(t("k.copied")); } catch { field.focus(); } });
    once.replaceChildren(card(t("k.once", { id }), el("div.plain-list.once", {}, el("label.stack", {}, t("k.once-text"), field), copy, button(t("k.put-away"), () => { once.replaceChildren(); making.input("id").focus(); }))));
    field.focus();
  }
  async function revoke(id) {
    if (await load(() => api.call("broker.revoke_api_key", { id }))) { toast(t("k.revoked", { id })); refresh(); }
  }
  async function refresh() {
    const found = await load(() => api.call("broker.api_keys"));
    if (!found) return;
    list.show(found.items);
    note.textContent = t(found.required ? "k.how" : "k.development");
    makingCard.hidden = !found.required;
  }
  const rotate = askButton(t("k.rotate"), t("k.rotate-ask"), async () => {
    const done = await load(() => api.call("broker.rotate_keys", { kind: "tickets" }));
    if (done) toast(t("k.rotated", { time: dateTime(done.previous_until_ms) }));
  });
  const makingCard = card(t("k.new"), making.node);
  makingCard.hidden = true;
  refresh();
  return { nodes: [head("keys"), place, once, el("article.card", {}, el("header", {}, el("h2", {}, t("k.api"))), note, list.node), makingCard, card(t("k.tickets"), el("p.muted.plain-list", {}, t("k.tickets-text")), el("div.plain-list", {}, rotate))] };
}

function expiry(seconds) {
  if (!seconds) return t("k.never");
  return el(`span.chip.${seconds * 1000 < Date.now() ? "bad" : "plain"}`, {}, dateTime(seconds * 1000));
}
