// What a viewer does: calls of the broker, and what their answers change in the page's view. Errors are said in words of the page.
import { NoAnswerError, RequestError } from "../base/session.js";
import { announce } from "../base/announce.js";
import { el } from "../base/dom.js";
import { money, t } from "../base/strings.js";
import { safeUrl } from "../base/url.js";
import { proofView } from "../parts/lottery.js";
import { reasonOf } from "../parts/composer.js";
import { openSheet } from "../parts/sheet.js";
import { toast } from "../parts/toast.js";

const MAX_ENTRIES = 20_000;
const KEPT_SEEN = 100;

/** `page`: {room, view, settings, redraw(), showPane(name)}; `room` is that of the client. */
export function actions(page) {
  const seen = new Map();
  const call = (operation, fields = {}, options = {}) => page.room.call(operation, { room: page.room.name, ...fields }, options);
  /** Calls, and says what went wrong in a toast; null then. */
  async function attempt(operation, fields, options) {
    try { return await call(operation, fields, options); } catch (error) { toast(wordsOf(error)); return null; }
  }
  function own(kind, id, data) { page.view.own(kind, id, data); page.redraw(); }

  async function claim(sale) {
    sale.pressKey ??= `claim-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
    try {
      const answer = await call("sales.claim", { id: sale.id, price_version: sale.data.price_version ?? 0 }, { key: sale.pressKey });
      takeClaim(sale.id, answer);
      toast(t(`claim.${String(answer.state).toLowerCase()}`, { n: answer.place ?? "", s: answer.expires_at_ms ? Math.ceil((answer.expires_at_ms - page.now) / 1000) : "" }));
    } catch (error) {
      if (!(error instanceof NoAnswerError)) sale.pressKey = undefined;      // after no answer the same key asks for the same claim
      throw error;
    }
  }
  function takeClaim(id, claimed) {
    const claims = (page.view.get("sales", id)?.own?.claims ?? []).filter(({ number }) => number !== claimed.number), before = page.view.get("sales", id)?.own?.claims?.find(({ number }) => number === claimed.number);
    own("sales", id, { claims: [...claims, { ...before, ...claimed }] });
  }

  async function grab(item) {
    try {
      const { cents } = await call("packets.grab", { id: item.id, keyword: item.data.eligibility?.keyword ?? "" }, { key: `grab-${item.id}` });
      own("packets", item.id, { cents });
      toast(t("packet.got", { sum: money(cents) }));
    } catch (error) {
      if (["empty", "expired", "closed"].includes(error.error)) { item.none = wordsOf(error); announce(item.none); page.redraw(); } else toast(wordsOf(error));
    }
  }
  async function grabDrop(item, packet) {
    const taken = [...(item.own?.taken ?? []), packet];
    try {
      const { cents } = await call("packets.grab", { id: packet }, { key: `grab-${packet}` });
      own("rains", item.id, { cents: (item.own?.cents ?? 0) + cents, taken });
      toast(t("packet.got", { sum: money(cents) }));
    } catch (error) {
      if (error instanceof RequestError) own("rains", item.id, { taken });
      toast(wordsOf(error));
    }
  }

  async function verify(item) {
    const proof = await attempt("lotteries.proof", { id: item.id });
    if (!proof) return;
    for (let { next } = proof; next && proof.entries.length < MAX_ENTRIES;) {
      const more = await attempt("lotteries.proof", { id: item.id, cursor: next });
      if (!more) return;
      proof.entries.push(...more.entries);
      proof.winners.forEach((grade, i) => grade.push(...(more.winners[i] ?? [])));
      next = more.next;
    }
    const { node } = await proofView(proof, seen.get(item.id), item.own);
    openSheet(t("proof.title"), node);
  }

  const hosts = (kind) => (address) => (address ? safeUrl(address, page.settings[kind], page.settings.development) : null);
  const image = hosts("image_hosts"), link = hosts("link_hosts");
  let reports = Math.floor(Date.now() / 1000);
  return {
    attempt, claim, takeClaim, grab, grabDrop, verify,
    /** Keeps what the room said of a lottery, to compare its proof with. */
    keepSeen(id, found) { seen.set(id, { ...seen.get(id), ...found }); if (seen.size > KEPT_SEEN) seen.delete(seen.keys().next().value); },
    async release(sale, number) {
      const answer = await attempt("sales.release", { id: sale.id, number });
      if (answer) { takeClaim(sale.id, answer); sale.pressKey = undefined; }
    },
    async enter(item) {
      const entry = await attempt("lotteries.enter", { id: item.id, keyword: item.data.keyword ?? "" });
      if (entry) own("lotteries", item.id, entry);
    },
    async coupon(item) {
      const coupon = await attempt("coupons.claim", { id: item.id }, { key: `coupon-${item.id}` });
      if (coupon) { own("coupons", item.id, coupon); toast(t("coupon.mine", { code: coupon.code })); }
    },
    async vote(item, index) {
      const before = item.own?.options ?? [], { choices } = item.data.terms;
      const options = choices > 1 ? [...new Set([...before, index])].slice(-choices) : [index];
      const vote = await attempt("polls.vote", { id: item.id, options });
      if (vote) own("polls", item.id, { options: vote.options });
    },
    async answer(item, index) {
      const answer = await attempt("quizzes.answer", { id: item.id, number: item.data.number, option: index });
      if (answer) own("quizzes", item.id, { number: item.data.number, answer: index, plays: true });
    },
    async mic(operation, fields = {}) {
      const answer = await attempt(operation, fields);
      if (answer) own("mic", "", answer.state?.user ? answer.state : answer);
    },
    async follow(follows) {
      const reach = await attempt("audiences.follow", { follows });
      if (reach) { page.view.follows = reach.follows; page.redraw(); }
    },
    report: async (line) => { if (await attempt("moderation.report", { reason: "other", user: line.userId, text: line.text })) toast(t("line.reported")); },
    imageOf: (product) => image(product?.image), linkOf: (product) => link(product?.url),
    look(product) {
      const address = link(product?.url);
      if (!address) return;
      const away = el("a", { href: address, target: "_blank", rel: "noopener noreferrer" });
      away.click();
      this.clicked(product);
    },
    clicked(product) { reports += 1; call("products.report_clicks", { id: product.id, clicks: 1, report: reports }).catch(() => {}); },
    titleOf: (sku) => page.view.products.get(sku)?.title ?? sku,
    say: (title, text) => openSheet(title, el("p.said", {}, text)),
    showMine: () => page.showPane("mine"),
    openSheet(title, node, onClose) { openSheet(title, node); document.querySelector("#sheet").addEventListener("close", () => onClose?.(), { once: true }); },
  };
}

export function wordsOf(error) {
  if (error instanceof NoAnswerError) return t("error.no-answer");
  return error instanceof RequestError ? reasonOf(error.error, error.error === "not_eligible" ? error.field ?? "" : "") : t("error.no-answer");
}
