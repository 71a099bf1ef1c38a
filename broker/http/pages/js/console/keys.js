// Keys of the control API without their secrets, and the key that signs reconnect tickets.
import { el } from "../base/dom.js";
import { dateTime, t } from "../base/strings.js";
import { askButton } from "../parts/ask.js";
import { table } from "../parts/table.js";
import { toast } from "../parts/toast.js";
import { card, head, loader } from "./common.js";

export function keys({ api, problem }) {
  const place = el("div"), load = loader(place, problem), note = el("p.muted.plain-list");
  const list = table([
    { label: t("k.id"), cell: (k) => el("b.mono", {}, k.id) }, { label: t("k.note"), wraps: true, cell: (k) => k.note || "–" }, { label: t("k.scopes"), wraps: true, cell: (k) => k.scopes.map((scope) => el("span.chip.mono", {}, scope)) },
    { label: t("k.rooms"), wraps: true, cell: (k) => k.rooms.join(", ") }, { label: t("k.tenant"), cell: (k) => k.tenant || "–" }, { label: t("k.expires"), cell: (k) => expiry(k.expires_at_s) }, { label: t("k.kind"), cell: (k) => t(k.signs ? "k.signs" : "k.bearer") },
  ], { empty: t("k.none"), label: t("nav.keys") });
  load(() => api.call("broker.api_keys")).then((found) => {
    if (!found) return;
    list.show(found.items);
    note.textContent = t(found.required ? "k.how" : "k.development");
  });
  const rotate = askButton(t("k.rotate"), t("k.rotate-ask"), async () => {
    const done = await load(() => api.call("broker.rotate_keys", { kind: "tickets" }));
    if (done) toast(t("k.rotated", { time: dateTime(done.previous_until_ms) }));
  });
  return { nodes: [head("keys"), place, el("article.card", {}, el("header", {}, el("h2", {}, t("k.api"))), note, list.node), card(t("k.tickets"), el("p.muted.plain-list", {}, t("k.tickets-text")), el("div.plain-list", {}, rotate))] };
}

function expiry(seconds) {
  if (!seconds) return t("k.never");
  return el(`span.chip.${seconds * 1000 < Date.now() ? "bad" : "plain"}`, {}, dateTime(seconds * 1000));
}
