// What the page knows: the broker's settings (in the HTML), and the person's own, kept where storage is not blocked.
import { $ } from "./dom.js";
import { isChinese } from "./strings.js";

/** Settings of the broker: {development, viewers, asks_platform, link_hosts, image_hosts}. */
export function brokerSettings() {
  try { return JSON.parse($('meta[name="roomcast"]').content); } catch { return { development: false, viewers: "", link_hosts: [], image_hosts: [] }; }
}

export function kept(key, otherwise = null) {
  try { return JSON.parse(localStorage.getItem(`roomcast.${key}`)) ?? otherwise; } catch { return otherwise; }
}

export function keep(key, value) {
  try { localStorage.setItem(`roomcast.${key}`, JSON.stringify(value)); } catch { /* storage is blocked: it holds for this page */ }
}

/** Buttons #theme and #language. The first changes at once, the second loads the page again. */
export function pageControls() {
  const write = (key, value) => { try { localStorage.setItem(key, value); } catch { /* as above */ } };
  $("#theme")?.addEventListener("click", () => {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    write("theme", root.dataset.theme);
    dispatchEvent(new Event("themechange"));
  });
  $("#language")?.addEventListener("click", () => {
    const next = isChinese() ? "en" : "zh", url = new URL(location);
    write("lang", next);
    url.searchParams.set("lang", next);
    dispatchEvent(new CustomEvent("languagechange", { detail: url }));
    location.assign(url);
  });
}
