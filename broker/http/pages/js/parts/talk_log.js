// The lines of a conversation, by offset: texts, media by reference, cards, recalled ones, own ones that wait or have failed.
import { el, fill } from "../base/dom.js";
import { isForNow } from "../base/errors.js";
import { brokerSettings } from "../base/settings.js";
import { has, money, t, time } from "../base/strings.js";
import { safeUrl } from "../base/url.js";

const NEAR_TOP = 200;

/** `own(user)`: whether a message is of this side; `nameOf(message)`: who has written it, "" = it is not shown;
 * `older(before)`: asks for the messages before an offset, {items, more}: it is called where one scrolls to the top. */
export function talkLog(node, own, nameOf, older) {
  const lines = new Map(), pending = new Map();
  let read = 0, stream = null, clears = 0, isReading = false, isWhole = false;
  const isAtEnd = () => node.scrollHeight - node.scrollTop - node.clientHeight < 80;
  const keepEnd = (change) => { const wasAtEnd = isAtEnd(); change(); if (wasAtEnd) node.scrollTop = node.scrollHeight; };

  function link(url, words) {
    const settings = brokerSettings(), href = safeUrl(url, [...settings.link_hosts, ...settings.image_hosts], settings.development);
    return href ? el("a", { href, target: "_blank", rel: "noopener noreferrer" }, words) : words;
  }
  function content(message) {
    if (message.recalled) return el("div.bubble", {}, t("talk.recalled"));
    if (message.card) {
      const { title, text, status, amount_cents: cents } = message.card;
      return el("div.talk-card", {}, el("b", {}, title ?? message.text), text && el("span", {}, text), Number.isInteger(cents) && el("span.num", {}, money(cents)), status && el("span.chip.info", {}, has(`card.${status}`) ? t(`card.${status}`) : String(status)));
    }
    const { media } = message;
    return el("div.bubble", {}, message.text, media && el("div", {}, link(media.url, t("talk.media", { kind: media.kind }))));
  }
  function line(message) {
    const isOwn = own(message.user), name = nameOf(message), kind = message.user === "" && !message.card ? ".note" : isOwn ? ".own" : "";
    const mark = el("span", { "data-mark": message.offset });
    return el(`li.line${kind}${message.recalled ? ".gone" : ""}`, { "data-offset": message.offset }, name && el("span.of", {}, name), content(message), el("footer", {}, el("time.num", {}, time(message.at_ms)), isOwn && mark));
  }
  function mark() {
    for (const node_ of node.querySelectorAll("[data-mark]")) node_.textContent = Number(node_.dataset.mark) <= read ? t("talk.read") : "";
  }

  /** Shows a message once; a recalled one takes the place of what it was. */
  function put(message) {
    const before = lines.get(message.offset), made = line(message);
    if (before && !message.recalled) return false;
    keepEnd(() => {
      lines.set(message.offset, made);
      if (before) before.replaceWith(made);
      else {
        const next = [...node.children].find((each) => !each.dataset.offset || Number(each.dataset.offset) > message.offset);
        if (next) next.before(made); else node.append(made);
      }
      mark();
    });
    return true;
  }
  /** Reads what is before the first line; what is on the screen stays where it is. */
  async function readOlder() {
    const first = Math.min(...lines.keys()), clear = clears;
    if (isReading || isWhole || node.scrollTop > NEAR_TOP || !(first > 1 && first < Infinity)) return;
    isReading = true;
    try {
      const { items, more } = await older(first);
      if (clear !== clears) return;
      isWhole = !more;
      const below = node.scrollHeight - node.scrollTop;
      for (const message of items) put(message);
      node.scrollTop = node.scrollHeight - below;
    } catch (error) { isWhole = clear === clears && !isForNow(error); } finally { isReading = false; }
  }
  node.addEventListener("scroll", readOlder, { passive: true });

  return {
    get last() { return Math.max(0, ...lines.keys()); },
    put,
    recall(offset) {
      const found = lines.get(offset);
      if (found) { found.classList.add("gone"); fill(found, el("div.bubble", {}, t("talk.recalled"))); }
    },
    /** A line that is being sent; returns what ends it: done() or failed(retry). */
    sending(text) {
      const foot = el("footer", {}, t("talk.sending")), made = el("li.line.own.waiting", {}, el("div.bubble", {}, text), foot);
      pending.set(made, true);
      node.append(made);
      node.scrollTop = node.scrollHeight;
      return {
        done() { pending.delete(made); made.remove(); },
        failed(why, retry) { fill(foot, why, retry && el("button", { type: "button", onclick: () => { fill(foot, t("talk.sending")); retry(); } }, t("retry"))); },
      };
    },
    /** Own messages up to this offset have been read by the other side; it only rises. */
    setRead(offset) { if (offset > read) { read = offset; mark(); } },
    /** An answer that grows in one line; it is replaced by the message. Nothing of it is announced before it is done. */
    grow(text) {
      keepEnd(() => {
        if (!stream) { stream = el("li.line.streaming", { "aria-hidden": "true" }, el("div.bubble")); node.append(stream); }
        stream.firstElementChild.textContent = text;
      });
    },
    endGrowing() { stream?.remove(); stream = null; },
    clear() { lines.clear(); pending.clear(); read = 0; stream = null; clears += 1; isWhole = false; node.replaceChildren(); },
  };
}

/** A textarea that sends on Enter and breaks the line on Shift+Enter. `send(text)`. */
export function talkComposer(form, field, send, onTyping = () => {}) {
  let last = 0;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text) return;
    field.value = "";
    send(text);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  });
  field.addEventListener("input", () => { if (field.value && Date.now() - last > 3000) { last = Date.now(); onTyping(); } });
}
