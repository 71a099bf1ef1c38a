// Configuration: the settings in force, without secrets, filtered as one types; and reading the file again.
import { el } from "../base/dom.js";
import { t } from "../base/strings.js";
import { askButton } from "../parts/ask.js";
import { table } from "../parts/table.js";
import { toast } from "../parts/toast.js";
import { card, head, loader } from "./common.js";

export function config({ api, problem }) {
  const place = el("div"), load = loader(place, problem);
  const find = el("input.field", { type: "search", placeholder: "room.", autocomplete: "off", "aria-label": t("cf.find"), oninput: draw });
  const list = table([{ label: t("cf.setting"), wraps: true, cell: ([name]) => el("b.mono", {}, name) }, { label: t("cf.value"), wraps: true, cell: ([, value]) => el("span.mono", {}, value === null ? t("cf.unset") : typeof value === "string" ? value : JSON.stringify(value)) }], { empty: t("cf.none"), label: t("nav.config") });
  let settings = [];
  function draw() { list.show(settings.filter(([name]) => name.includes(find.value.trim().toLowerCase()))); }
  async function refresh() {
    const found = await load(() => api.call("broker.config"));
    if (found) { settings = Object.entries(found.settings); draw(); }
  }
  const reload = askButton(t("cf.reload"), t("cf.reload-ask"), async () => {
    const done = await load(() => api.call("broker.reload"));
    if (done) { toast(t("cf.reloaded", { changed: done.changed.join(", ") || "–", restart: done.needs_restart.join(", ") || "–" })); refresh(); }
  });
  refresh();
  return { nodes: [head("config", el("span.grow"), el("label.find", {}, find)), place, el("article.card", {}, list.node), card(t("cf.file"), el("div.plain-list", {}, reload))] };
}
