// Controls over the picture, and the side card as a sheet on phones.
import { $, $$ } from "../base/dom.js";

/** Pause, settings and the account; what a person sets is kept by the entry. */
export function stageTools(stage) {
  const toggle = (button, panel) => button.addEventListener("click", () => {
    for (const other of $$(".panel")) if (other !== panel) other.hidden = true;
    panel.hidden = !panel.hidden;
    for (const each of $$("[aria-controls]")) each.setAttribute("aria-expanded", String(!document.getElementById(each.getAttribute("aria-controls")).hidden));
  });
  toggle($("#settings"), $("#panel"));
  toggle($("#account"), $("#ledger"));
  toggle($("#account-phone"), $("#ledger"));
  const { density, size, opacity, off } = stage.options;
  Object.assign($("#density"), { value: Math.round(density * 99) });
  Object.assign($("#size"), { value: size });
  Object.assign($("#opacity"), { value: Math.round(opacity * 100) });
  Object.assign($("#off"), { checked: off });
  for (const [id, unit] of [["density", 99], ["size", 1], ["opacity", 100]]) $(`#${id}`).addEventListener("input", ({ target }) => stage.set({ [id]: Number(target.value) / unit }));
  $("#off").addEventListener("change", ({ target }) => stage.set({ off: target.checked }));
  $("#pause").addEventListener("click", ({ currentTarget: button }) => {
    const paused = !stage.options.paused;
    stage.set({ paused });
    button.setAttribute("aria-pressed", String(paused));
    $("use", button).setAttribute("href", $("use", button).getAttribute("href").replace(/#.*/, paused ? "#play" : "#pause"));
  });
}

/** The side card on a phone: closed it is chat and composer, open it has the tabs, and Escape closes it. */
export function phoneSide() {
  const side = $("#side");
  let from = null;
  function open() { from = document.activeElement; side.classList.add("is-open"); $("[aria-selected=true]", side).focus(); }
  function close() { if (!side.classList.contains("is-open")) return; side.classList.remove("is-open"); $("[data-tab=chat]").click(); from?.focus?.(); }
  $("#close-side").addEventListener("click", close);
  return { open, close };
}

/** A press is a like, holding gives five a second; the client sums them and sends once a second. */
export function likeButton(button, give) {
  let timer = 0;
  const stop = () => { clearInterval(timer); timer = 0; };
  button.addEventListener("pointerdown", () => { stop(); timer = setInterval(give, 200); });
  for (const event of ["pointerup", "pointerleave", "pointercancel", "blur"]) button.addEventListener(event, stop);
  button.addEventListener("click", give);
}

/** Keys of the page: / writes, d pauses danmaku, l likes, Escape closes what is open. */
export function shortcuts(side, composer) {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { for (const panel of $$(".panel")) panel.hidden = true; side.close(); }
    if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); composer.focus(); }
    if (event.key === "d") $("#pause").click();
    if (event.key === "l") $("#like").click();
  });
}
