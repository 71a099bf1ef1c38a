// Twelve tiles; each opens a sheet with the last values filled in, and says before the launch what it costs and reaches.
import { el, icon, setText } from "../base/dom.js";
import { money, number, t } from "../base/strings.js";
import { keep, kept } from "../base/settings.js";
import { openSheet } from "../parts/sheet.js";

const S = 1000;
const text = (name, max, more = {}) => ({ name, type: "text", max, ...more });
const count = (name, value, min, max) => ({ name, type: "number", value, min, max });
const soon = count("soon_s", 3, 0, 3600);
const lines = (value) => value.split(/[|\n]/).map((line) => line.trim()).filter(Boolean);
const cents = (yuan) => Math.round(yuan * 100);

/** Fields of each tile, its cost in cents, and the call: [operation, fields]. `now`: the broker's clock. `operation`: of a
 * tile that the platform does. */
export const TILES = [
  { name: "announce", icon: "horn", token: "--lane-control", fields: [text("text", 200, { required: true })] },
  { name: "pin", icon: "pin", token: "--gold", fields: [text("text", 200, { required: true }), count("minutes", 10, 1, 1440)],
    call: (v, now, id) => ["messages.pin", { id, type: 4, payload: [v.text], ttl_ms: v.minutes * 60 * S }] },
  { name: "sale", icon: "clock", token: "--accent", fields: [{ name: "sku", options: "products" }, count("price", 19.9, 0.01, 1e6), count("stock", 50, 1, 1e6), count("per_user", 1, 1, 100), soon, count("minutes", 3, 1, 1440)],
    call: (v, now, id) => ["sales.create", { id, sku: v.sku, stock: v.stock, price_cents: cents(v.price), per_user: v.per_user, open_at_ms: now + v.soon_s * S, close_at_ms: now + v.soon_s * S + v.minutes * 60 * S }] },
  { name: "packet", icon: "packet", token: "--accent", operation: "packets.create", fields: [count("total", 100, 0.01, 1e6), count("shares", 20, 1, 1e5), text("title", 60), soon], cost: (v) => cents(v.total),
    call: (v, now, id) => ["packets.create", { id, order_id: `desk-${id}`, total_cents: cents(v.total), count: v.shares, title: v.title, open_at_ms: now + v.soon_s * S }] },
  { name: "rain", icon: "rain", token: "--info", operation: "rains.create", fields: [count("total", 300, 0.01, 1e6), count("drops", 6, 2, 100), count("shares", 20, 1, 1e5), count("seconds", 60, 5, 3600), soon], cost: (v) => cents(v.total),
    call: (v, now, id) => ["rains.create", { id, order_id: `desk-${id}`, total_cents: cents(v.total), drops: v.drops, count: v.shares, span_ms: v.seconds * S, start_at_ms: now + Math.max(5, v.soon_s) * S }] },
  { name: "coupon", icon: "ticket", token: "--gold", operation: "coupons.create", fields: [text("title", 60), text("prefix", 8, { value: "LIVE" }), count("codes", 100, 1, 1e6)],
    call: (v, now, id) => ["coupons.create", { id, count: v.codes, kind: "derived", prefix: v.prefix.toUpperCase(), title: v.title, template: `${v.title || v.prefix} {code}`, claims: true }] },
  { name: "lottery", icon: "dice", token: "--lane-control", fields: [text("prize", 40, { required: true }), count("winners", 3, 1, 1000), count("minutes", 2, 1, 1440)],
    call: (v, now, id) => ["lotteries.create", { id, open_at_ms: now + 2 * S, close_at_ms: now + v.minutes * 60 * S, grades: [{ name: v.prize, count: v.winners }], rule: "one entry a user" }] },
  { name: "poll", icon: "poll", token: "--info", fields: [text("title", 100, { required: true }), text("options", 400, { required: true, hint: "A | B | C" }), count("minutes", 2, 1, 1440)],
    call: (v, now, id) => ["polls.create", { id, title: v.title, options: lines(v.options), close_at_ms: now + v.minutes * 60 * S }] },
  { name: "quiz", icon: "quiz", token: "--good", fields: [text("title", 100, { required: true }), text("options", 400, { required: true, hint: "A | B | C" }), count("right", 1, 1, 10), count("seconds", 20, 5, 600)] },
  { name: "pk", icon: "pk", token: "--accent", fields: [text("other_room", 64, { required: true }), count("minutes", 5, 1, 60)],
    call: (v, now, id) => ["pk.invite", { id, other_room: v.other_room, duration_ms: v.minutes * 60 * S, measure: "gifts" }] },
  { name: "countdown", icon: "list", token: "--text-2", fields: [text("label", 60, { required: true }), count("minutes", 5, 1, 1440)],
    call: (v, now, id) => ["countdowns.start", { id, label: v.label, deadline_ms: now + v.minutes * 60 * S }] },
  { name: "mic", icon: "mic", token: "--good", fields: [count("seats", 2, 0, 8)], call: (v) => ["mic.set_seats", { seats: v.seats }] },
];

export function launch(place, { start, products, online, needsPlatform }) {
  const tiles = TILES.map((tile) => {
    const picture = icon(tile.icon), node = el("button.tool", { type: "button", onclick: () => open(tile) }, picture, t(`tool.${tile.name}`));
    node.style.setProperty("--c", `var(${tile.token})`);
    return node;
  });
  const why = el("p.muted.plain", { hidden: true }, t("launch.by-platform"));
  place.append(el("article.card", {}, el("header", {}, el("h2", {}, t("desk.tools"))), el("div.body.tools", {}, tiles), why));

  function open(tile, given = {}) {
    const last = { ...kept(`desk.${tile.name}`, {}), ...given }, inputs = new Map();
    const rows = tile.fields.map((field) => {
      const input = makeInput(field, last[field.name], products());
      inputs.set(field.name, input);
      return el("label.stack", {}, t(`launch.${field.name}`), input);
    });
    const note = el("p.muted.num"), error = el("p.bad-text", { role: "alert", hidden: true }), go = el("button.btn.primary", { type: "submit" }, t("launch.go"));
    const values = () => Object.fromEntries([...inputs].map(([name, input]) => [name, input.type === "number" ? Number(input.value) : input.value.trim()]));
    const say = () => setText(note, [t("launch.reaches", { n: number(online()) }), tile.cost && t("launch.costs", { sum: money(tile.cost(values())) }), tile.operation && needsPlatform() && t("launch.asks")].filter(Boolean).join(" · "));
    const form = el("form.stacked", { oninput: say, onsubmit }, rows, note, error, go);
    async function onsubmit(event) {
      event.preventDefault();
      go.disabled = true;
      error.hidden = true;
      try { await start(tile, values()); keep(`desk.${tile.name}`, values()); close(); } catch (problem) {
        setText(error, problem.text ?? problem.message);
        error.hidden = false;
      } finally { go.disabled = false; }
    }
    say();
    const close = openSheet(t(`tool.${tile.name}`), form);
  }
  /** Tiles that this desk cannot start are away, and a line says who can. */
  function setEnabled(can, canCall) {
    tiles.forEach((node, i) => { node.disabled = !can; node.hidden = can && Boolean(TILES[i].operation) && !canCall(TILES[i].operation); });
    why.hidden = !tiles.some((node) => node.hidden);
  }
  return { setEnabled, open: (name, given) => open(TILES.find((tile) => tile.name === name), given) };
}

function makeInput({ name, type, value = "", min, max, options, hint, required }, last, products) {
  const now = last ?? value;
  if (options) return el("select.field", { name }, products.map(({ id, title }) => el("option", { value: id, selected: id === now }, title)));
  return el("input.field", { name, type, value: String(now), placeholder: hint, required: required || type === "number", autocomplete: "off", ...(type === "number" ? { min, max, step: "any", inputmode: "decimal" } : { maxlength: max }) });
}
