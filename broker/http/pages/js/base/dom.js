// The only way to make elements: text goes in as text, never as markup. Names of attributes that could run code are refused.
import { t } from "./strings.js";

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

const SVG = "http://www.w3.org/2000/svg";
const ICONS = new URL("../../art/icons.svg", import.meta.url).href;
const safe = new WeakSet();

/** Marks an address that `safeUrl` has judged; only such ones become href or src, and those of this page. */
export class SafeUrl {
  constructor(href) { this.href = href; safe.add(this); }
  toString() { return this.href; }
}

/** el("button.btn.primary", {onclick, "aria-label": text}, child, "text") */
export function el(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) setAttribute(node, key, value);
  node.append(...present(children));
  return node;
}

const present = (children) => children.flat().filter((child) => child !== null && child !== undefined && child !== false && child !== "");

/** Replaces what is in a node; null and false are left out, as in el(). */
export const fill = (node, ...children) => node.replaceChildren(...present(children));

function setAttribute(node, key, value) {
  if (value === false || value === null || value === undefined) return;
  if (key.startsWith("on")) {
    if (typeof value !== "function") throw new TypeError(`${key} takes a function`);
    node.addEventListener(key.slice(2), value);
  } else if (key === "style" || key === "srcdoc") {
    throw new TypeError(`${key} is not set here`);
  } else if (key === "href" || key === "src") {
    if (!safe.has(value) && !(typeof value === "string" && /^(#|\/\w)/.test(value))) throw new TypeError(`${key} takes what safeUrl returns`);
    node.setAttribute(key, String(value));
  } else if (key === "value" || key === "checked" || key === "disabled") {
    node[key] = value;
  } else {
    node.setAttribute(key, value === true ? "" : value);
  }
}

export function icon(name, small = false) {
  const svg = document.createElementNS(SVG, "svg"), use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", small ? "icon small" : "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `${ICONS}#${name}`);
  svg.append(use);
  return svg;
}

/** Sets text only where it differs: an equal one costs no layout. */
export function setText(node, text) {
  const value = String(text);
  if (node.textContent !== value) node.textContent = value;
}

export const tone = (name) => `tone-${[...name].reduce((sum, c) => sum + c.codePointAt(0), 0) % 5}`;
export const avatar = (name) => el(`span.avatar.${tone(name || "?")}`, { "aria-hidden": "true" }, [...(name || "?")][0]);

/** Fills what is marked in the HTML: data-t (text), data-t-label (aria-label), data-t-hint (placeholder), data-i (icon). */
export function localise(root = document) {
  for (const node of $$("[data-t]", root)) node.textContent = t(node.dataset.t);
  for (const node of $$("[data-t-label]", root)) { node.setAttribute("aria-label", t(node.dataset.tLabel)); node.title = t(node.dataset.tLabel); }
  for (const node of $$("[data-t-hint]", root)) node.placeholder = t(node.dataset.tHint);
  for (const node of $$("[data-i]", root)) if (!node.querySelector("svg")) node.prepend(icon(node.dataset.i));
}
