// What an agent picks from: canned answers, which this browser keeps, and who gets a conversation.
import { el } from "../base/dom.js";
import { keep, kept } from "../base/settings.js";
import { t } from "../base/strings.js";
import { openSheet } from "../parts/sheet.js";

const MAX_CANNED = 50;
export const cannedAnswers = () => kept("canned", [t("canned.hello"), t("canned.look"), t("canned.thanks")]);

/** `pick(text)`. Digits 1 to 9 pick as well. */
export function openCanned(pick) {
  const answers = cannedAnswers(), input = el("input.field", { maxlength: 500, autocomplete: "off", "aria-label": t("canned.new"), placeholder: t("canned.new") });
  const choose = (text) => { close(); pick(text); };
  const list = el("div.choices", {}, ...answers.map((text, at) => el("div.row", {}, el("button.btn", { type: "button", onclick: () => choose(text) }, at < 9 && el("kbd.kbd", {}, String(at + 1)), el("span", {}, text)),
    el("button.btn.quiet", { type: "button", "aria-label": t("canned.remove", { text }), onclick: () => { keep("canned", answers.filter((each) => each !== text)); close(); openCanned(pick); } }, "\u00d7"))));
  list.addEventListener("keydown", (event) => { const text = answers[Number(event.key) - 1]; if (text) { event.preventDefault(); choose(text); } });
  const close = openSheet(t("agent.canned"), list, el("form.stacked", { onsubmit: (event) => { event.preventDefault(); const text = input.value.trim(); if (text) keep("canned", [...answers, text].slice(-MAX_CANNED)); close(); openCanned(pick); } }, input));
  list.querySelector("button")?.focus();
}

/** `give({user, topic})`: to an agent who is there and has room, or back to the queue, of a topic. */
export function openTransfer(view, { agents, self, settings }, give) {
  const others = agents.filter((each) => each.user !== self && each.state === "online" && each.linked && each.load < each.capacity);
  const topic = el("select.field", {}, ...(settings?.topics ?? []).map((each) => el("option", { value: each.name }, each.name)));
  topic.value = view.topic;
  const changed = () => (topic.value && topic.value !== view.topic ? topic.value : null);
  const done = (user) => { close(); give({ user, topic: changed() }); };
  const close = openSheet(t("agent.transfer"), el("div.stacked", {}, el("label.stack", {}, t("context.topic"), topic),
    el("div.choices", {}, el("button.btn", { type: "button", onclick: () => done(null) }, t("transfer.queue")),
      ...others.map((each) => el("button.btn", { type: "button", onclick: () => done(each.user) }, `${each.name || each.user} \u00b7 ${t("transfer.load", { load: each.load, capacity: each.capacity })}`))),
    !others.length && el("p.muted", {}, t("transfer.nobody"))));
}
