// Check of a lottery's proof: commitment, root and draw are computed again here. The rules are those of the lottery's guide.
// Web Crypto is there on https and on this machine only. Pure but for that.

const encoder = new TextEncoder();
export const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));

function join(...parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { out.set(part, at); at += part.length; }
  return out;
}
function integer(bytes, value) {
  const out = new Uint8Array(bytes);
  for (let i = bytes - 1, left = BigInt(value); i >= 0; i -= 1, left >>= 8n) out[i] = Number(left & 255n);
  return out;
}
const u32 = (value) => integer(4, value), u64 = (value) => integer(8, value);
function text(value) {
  const bytes = encoder.encode(value);
  return join(u32(bytes.length), bytes);
}
const sha256 = async (data) => new Uint8Array(await crypto.subtle.digest("SHA-256", data));
async function mac(key, data) {
  const imported = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, data));
}

const digestOfTerms = (terms) => sha256(join(
  text("roomcast/lottery/terms/1"), text(terms.lottery_id), text(terms.room), u64(terms.open_at_ms), u64(terms.close_at_ms),
  u32(terms.grades.length), ...terms.grades.map(({ name, count }) => join(text(name), u32(count))),
  u32(terms.max_weight), text(terms.rule), text(terms.beacon_chain), u64(terms.beacon_round),
));

async function rootOf(entries) {
  let level = await Promise.all(entries.map(([id, weight]) => sha256(join(Uint8Array.of(0), text(id), u32(weight)))));
  if (!level.length) return sha256(new Uint8Array());
  while (level.length > 1) {
    const above = [];
    for (let i = 0; i < level.length; i += 2) above.push(i + 1 < level.length ? sha256(join(Uint8Array.of(1), level[i], level[i + 1])) : level[i]);
    level = await Promise.all(above);
  }
  return level[0];
}

/** Numbers below a bound that follow from a key. */
class DrawStream {
  constructor(key, name) { this.key = key; this.prefix = join(encoder.encode(name), Uint8Array.of(0)); this.block = 0; this.words = []; }
  async below(bound) {
    if (bound === 1) return 0;
    const shift = BigInt(64 - (bound - 1).toString(2).length);
    for (;;) {
      if (!this.words.length) {
        const view = new DataView((await mac(this.key, join(this.prefix, u64(this.block)))).buffer);
        this.words = [24, 16, 8, 0].map((at) => view.getBigUint64(at));
        this.block += 1;
      }
      const number = Number(this.words.pop() >> shift);
      if (number < bound) return number;
    }
  }
}

async function draw(key, weights, counts) {
  const stream = new DrawStream(key, "roomcast/lottery/winners/1"), left = [...weights];
  let total = left.reduce((sum, weight) => sum + weight, 0), entries = left.length;
  const winners = [];
  for (const wanted of counts) {
    const grade = [], most = Math.min(wanted, entries);
    for (let i = 0; i < most; i += 1) {
      let sought = await stream.below(total), place = 0;
      while (left[place] <= sought) { sought -= left[place]; place += 1; }
      grade.push(place);
      total -= left[place];
      left[place] = 0;
    }
    entries -= most;
    winners.push(grade);
  }
  return winners;
}

const isAbove = (a, b) => {
  const [x, y] = [[...a], [...b]], i = x.findIndex((c, at) => c !== y[at]);
  return i === -1 ? false : y[i] === undefined || x[i].codePointAt(0) > y[i].codePointAt(0);
};

/**
 * Returns [{name, isRight, value}] for commitment, root, draw and what this page has seen. `proof`: all pages joined;
 * `seen`: {commitment, root} that the page kept, either may be missing; then the last step has isRight null.
 */
export async function check(proof, seen = {}) {
  const { terms, committed, closed, entries } = proof, seed = unhex(proof.seed), termsDigest = await digestOfTerms(terms);
  const commitment = hex(await sha256(join(text("roomcast/lottery/commit/1"), seed, termsDigest)));
  const root = hex(await rootOf(entries));
  const weights = entries.map(([, weight]) => weight), weight = weights.reduce((sum, each) => sum + each, 0);
  const isInOrder = entries.every(([id], i) => i === 0 || isAbove(id, entries[i - 1][0])) && weights.every((each) => each >= 1 && each <= terms.max_weight);
  const isCounted = entries.length === closed.entries && weight === closed.weight;
  const beacon = proof.beacon ? await sha256(unhex(proof.beacon.signature)) : new Uint8Array();
  const isBeaconRight = !proof.beacon === !terms.beacon_round && (!proof.beacon || hex(beacon) === proof.beacon.value);
  const key = await mac(seed, join(text("roomcast/lottery/draw/1"), termsDigest, unhex(closed.root), u32(closed.entries), u64(closed.weight), u64(terms.beacon_round), beacon));
  const drawn = await draw(key, weights, terms.grades.map(({ count }) => count));
  const winners = JSON.stringify(drawn.map((grade) => grade.map((i) => entries[i][0])));
  const hasSeen = Boolean(seen.commitment || seen.root);
  return [
    { name: "commitment", isRight: commitment === committed.commitment, value: commitment },
    { name: "root", isRight: root === closed.root && isInOrder && isCounted, value: root },
    { name: "draw", isRight: isBeaconRight && winners === JSON.stringify(proof.winners), value: drawn.reduce((sum, grade) => sum + grade.length, 0) },
    { name: "seen", isRight: hasSeen ? (!seen.commitment || seen.commitment === committed.commitment) && (!seen.root || seen.root === closed.root) : null, value: seen.commitment ?? seen.root ?? "" },
  ];
}
