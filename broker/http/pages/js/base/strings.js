// Sentences of the page in its language: t("subject.thing", {name}) with the tables that the entry has given to use().
let table = {};

export const isChinese = () => (globalThis.document?.documentElement.lang ?? "en").startsWith("zh");
export const locale = () => (isChinese() ? "zh-CN" : "en");

/** Adds tables; each is {zh: {...}, en: {...}} with the same keys. */
export function use(...tables) {
  for (const each of tables) table = { ...table, ...(isChinese() ? each.zh : each.en) };
}

export const has = (key) => Object.hasOwn(table, key);

export function t(key, values = {}) {
  const text = Object.hasOwn(table, key) ? table[key] : key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

// ---- numbers, money and times in the page's language

const formats = new Map();
function format(kind, options) {
  const key = `${locale()} ${kind} ${JSON.stringify(options)}`;
  if (!formats.has(key)) formats.set(key, kind === "time" ? new Intl.DateTimeFormat(locale(), options) : new Intl.NumberFormat(locale(), options));
  return formats.get(key);
}
export const number = (n) => format("number", { maximumFractionDigits: 0 }).format(n);
export const decimal = (n, digits = 1) => format("number", { maximumFractionDigits: digits }).format(n);
export const compact = (n) => (n < 10000 ? number(n) : format("number", { notation: "compact", maximumFractionDigits: 1 }).format(n));
export const money = (cents) => format("number", { style: "currency", currency: "CNY", currencyDisplay: "narrowSymbol", minimumFractionDigits: cents % 100 ? 2 : 0, maximumFractionDigits: 2 }).format(cents / 100);
export const time = (ms) => format("time", { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }).format(ms);
export const dateTime = (ms) => format("time", { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }).format(ms);
/** Seconds as m:ss or h:mm:ss. */
export function duration(s) {
  const whole = Math.max(0, Math.floor(s)), parts = [Math.floor(whole / 60) % 60, whole % 60].map((n) => String(n).padStart(2, "0"));
  return whole >= 3600 ? `${Math.floor(whole / 3600)}:${parts.join(":")}` : parts.join(":");
}
