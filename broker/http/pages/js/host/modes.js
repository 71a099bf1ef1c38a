// Modes of the room as switches; each takes effect at once and can be undone from its toast.
import { el } from "../base/dom.js";
import { t } from "../base/strings.js";

const MODES = [
  ["slow", (m) => m.slow_s > 0, (on) => ({ slow_s: on ? 5 : 0 })],
  ["fans", (m) => m.followers_s >= 0, (on) => ({ followers_s: on ? 0 : -1 })],
  ["review", (m) => m.pre_review, (on) => ({ pre_review: on })],
  ["links", (m) => m.links === false, (on) => ({ links: !on })],
  ["mute", (m) => m.mute_all, (on) => ({ mute_all: on })],
];

export function modes(place, act) {
  const waiting = new Set(); // switches whose change has no answer yet: what was read before it does not turn them back
  let last = null;
  const draw = ({ input, isOn }) => { if (!waiting.has(input)) input.checked = Boolean(last && isOn(last)); };
  const switches = MODES.map(([name, isOn, fields]) => {
    const input = el("input.switch", { type: "checkbox", role: "switch", onchange: async () => {
      waiting.add(input);
      try { await act.setModes(name, fields(input.checked), fields(!input.checked)); } finally { waiting.delete(input); draw(each); }
    } });
    const each = { input, isOn, node: el("label", {}, t(`mode.${name}`), input) };
    return each;
  });
  place.append(el("article.card", {}, el("div.body.modes", { role: "group", "aria-label": t("desk.modes") }, switches.map((each) => each.node))));
  return {
    update(view) { last = view; switches.forEach(draw); },
    setEnabled(can) { for (const { input } of switches) input.disabled = !can; },
  };
}
