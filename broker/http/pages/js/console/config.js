// Configuration: the settings in force, without secrets, and where each came from; filtered as one types.
import { el } from "../base/dom.js";
import { t } from "../base/strings.js";
import { askButton } from "../parts/ask.js";
import { table } from "../parts/table.js";
import { toast } from "../parts/toast.js";
import { card, head, loader } from "./common.js";

const WORDS = new Set(["file", "flag", "program"]);

export function config({ api, problem }) {
  const place = el("div"), load = loader(place, problem);
  const find = el("input.field", { type: "search", placeholder: "room.", autocomplete: "off", "aria-label": t("cf.find"), oninput: draw });
  const changed = el("input", { type: "checkbox", onchange: draw });
  const list = table([
    { label: t("cf.setting"), wraps: true, cell: ([name]) => el("b.mono", {}, ...name.split(/(?<=[._])/).flatMap((part) => [part, el("wbr")])) },
    { label: t("cf.value"), wraps: true, cell: ([, value]) => el("span.mono", {}, value === null ? t("cf.unset") : typeof value === "string" ? value : JSON.stringify(value)) },
    { label: t("cf.origin"), wraps: true, cell: ([name]) => source(origins[name]) },
  ], { empty: t("cf.none"), label: t("nav.config") });
  let settings = [], origins = {};
  function draw() {
    const text = find.value.trim().toLowerCase();
    list.show(settings.filter(([name]) => name.includes(text) && (!changed.checked || Object.hasOwn(origins, name))));
  }
  async function refresh() {
    const found = await load(() => api.call("broker.config"));
    if (found) { settings = Object.entries(found.settings); origins = found.origins; draw(); }
  }
  const reload = askButton(t("cf.reload"), t("cf.reload-ask"), async () => {
    const done = await load(() => api.call("broker.reload"));
    if (done) { toast(t("cf.reloaded", { changed: done.changed.join(", ") || "–", restart: done.needs_restart.join(", ") || "–" })); refresh(); }
  });
  refresh();
  return { nodes: [head("config", el("span.grow"), el("label.row", {}, changed, t("cf.changed")), el("label.find", {}, find)), place, el("article.card", {}, list.node), card(t("cf.file"), el("div.plain-list", {}, reload))] };
}

/** A chip for what was set; a variable of the environment by its name. */
function source(origin) {
  if (origin === undefined) return el("span.muted", {}, t("from.default"));
  return WORDS.has(origin) ? el("span.chip", {}, t(`from.${origin}`)) : el("span", {}, el("span.chip", {}, t("from.environment")), " ", el("span.mono", {}, origin));
}
