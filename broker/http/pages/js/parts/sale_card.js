// The large card: the sale that runs, or the product that is explained. Its clock is the broker's, its result the broker's answer.
import { el, fill, icon, setText } from "../base/dom.js";
import { announce } from "../base/announce.js";
import { duration, money, number, t } from "../base/strings.js";
import { stateOf } from "../room/view.js";
import { reasonOf } from "./composer.js";

const ENDED = new Set(["expired", "cancelled", "released", "lost", "void", "dismissed"]);

/** The newest claim of one's own, with its state in lower case. */
export function ownClaim(own) {
  const claims = own?.claims ?? [], last = claims[claims.length - 1];
  return last ? { ...last, state: String(last.state).toLowerCase() } : null;
}

/** What a claim is now, in words. */
export function claimText(claim, nowMs) {
  if (claim.state === "reserved") return t("claim.reserved", { s: Math.max(0, Math.ceil((claim.expires_at_ms - nowMs) / 1000)) });
  if (claim.state === "waiting") return t("claim.waiting", { n: claim.place ?? "?" });
  return t(`claim.${claim.state}`);
}

export function picture(address) {
  const box = el("span.picture-box", { "aria-hidden": "true" });
  const drawn = () => fill(box, icon("bag"));
  if (!address) drawn();
  else box.append(el("img", { src: address, alt: "", loading: "lazy", referrerpolicy: "no-referrer", onerror: drawn }));
  return box;
}

/** `act`: {claim(sale), release(sale, number), look(product), imageOf(product), linkOf(product)}. */
export function saleCard(act) {
  const image = el("span.image"), onNow = el("span.chip.live", {}, t("explaining")), clock = el("time", { role: "timer" }), word = el("span"), clockChip = el("span.chip.gold.num", {}, word, " ", clock);
  const title = el("h2.clip"), price = el("b"), was = el("s"), bar = el("i"), meter = el("div.meter.grow", { "aria-hidden": "true" }, bar), left = el("small.muted.num"), stock = el("div.row.stock", {}, meter, left);
  const result = el("p.result", { hidden: true }), label = el("span"), release = el("button.btn.quiet.release", { type: "button", hidden: true, onclick: () => act.release(sale, claim.number) }, t("claim.release"));
  const button = el("button.btn.primary.buy", { type: "button", onclick: press }, label);
  const node = el("article.card.act.sale", { hidden: true }, image, el("div.grow", {}, el("div.row.wrap", {}, onNow, clockChip), title, el("p.price.num", {}, price, " ", was), stock, result), el("div.buttons", {}, button, release));
  let sale = null, product = null, claim = null, isAsking = false, problem = "", shownImage = null, spoken = "";
  async function press() {
    if (isAsking) return;
    if (!sale) { act.look(product); return; }
    isAsking = true; problem = "";
    draw();
    try { await act.claim(sale); } catch (error) { problem = error.error ? reasonOf(error.error) : t("error.no-answer"); announce(problem); } finally { isAsking = false; draw(); }
  }
  function show(nextSale, nextProduct, isExplained, nowMs) {
    if (sale?.id !== nextSale?.id) problem = "";
    sale = nextSale; product = nextProduct;
    node.hidden = !sale && !product;
    if (node.hidden) return;
    claim = ownClaim(sale?.own);
    onNow.hidden = !isExplained;
    setText(title, product?.title ?? sale.data.sku);
    const address = product ? act.imageOf(product) : null;
    if (shownImage !== (address?.href ?? "")) { shownImage = address?.href ?? ""; fill(image, picture(address)); }
    draw(nowMs);
  }
  let lastMs = 0;
  function draw(nowMs = lastMs) {
    lastMs = nowMs;
    const state = sale ? stateOf(sale) : "", { data } = sale ?? { data: {} };
    const until = state === "scheduled" ? data.open_at_ms : state === "open" ? data.close_at_ms : 0, seconds = (until - nowMs) / 1000;
    clockChip.hidden = !until;
    setText(word, t(state === "scheduled" ? "sale.begins" : "sale.ends"));
    setText(clock, duration(Math.ceil(Math.max(0, seconds))));
    clockChip.classList.toggle("urgent", until && seconds < 10);
    setText(price, money(sale ? data.price_cents : product.price_cents));
    const isCheaper = sale && product && product.price_cents > data.price_cents;
    was.hidden = !isCheaper;
    if (isCheaper) setText(was, money(product.price_cents));
    stock.hidden = !sale;
    if (sale) {
      const available = data.available ?? data.stock;
      meter.style.setProperty("--v", `${data.stock ? 100 * available / data.stock : 0}%`);
      setText(left, state === "open" || state === "scheduled" ? t("sale.left", { n: number(available), of: number(data.stock) }) : t(`sale.${state}`));
    }
    const words = isAsking ? t("claim.asking") : problem || (claim ? claimText(claim, nowMs) : "");
    result.hidden = !words;
    setText(result, words);
    result.className = `result ${claim && !problem && !ENDED.has(claim.state) ? "good" : problem || claim ? "warn" : ""}`;
    const hasClaim = claim && !ENDED.has(claim.state), canClaim = sale && !hasClaim && state === "open";
    setText(label, !sale ? t("product.look") : isAsking ? "\u2026" : hasClaim ? "\u2713" : state === "scheduled" ? t("sale.soon") : data.available === 0 && state === "open" ? t("sale.queue") : t("sale.claim"));
    button.disabled = sale ? isAsking || !canClaim : !act.linkOf(product);
    button.hidden = !sale && !act.linkOf(product);
    button.setAttribute("aria-label", `${hasClaim ? words : label.textContent} \u2013 ${title.textContent}`);
    release.hidden = !(claim && ["reserved", "waiting"].includes(claim.state)) || isAsking;
    const lapse = claim?.state === "reserved" ? Math.ceil((claim.expires_at_ms - nowMs) / 1000) : 0;
    if ((lapse === 10 || lapse === 3) && spoken !== `${claim.number} ${lapse}`) { spoken = `${claim.number} ${lapse}`; announce(words); }
  }
  return { node, show, tick: (nowMs) => { if (!node.hidden) draw(nowMs); } };
}
