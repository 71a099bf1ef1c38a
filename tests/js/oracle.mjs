// msgpack of the client against npm's `@msgpack/msgpack`, whose address is the argument: 20,000 values both ways.
import assert from "node:assert/strict";

const { encode, decode } = await import(process.argv[2]);
const { pack, unpack } = await import(new URL("../../protocol/clients/js/msgpack.js", import.meta.url));
const TEXTS = ["", "abc", "主播", "😀", "x"];
let state = 3;
const random = (bound) => (state = (state * 1103515245 + 12345) % 2147483648) % bound;

function value(depth) {
  switch (random(depth > 3 ? 6 : 8)) {
    case 0: return null;
    case 1: return random(2) === 1;
    case 2: return (random(2) ? 1 : -1) * Math.floor(2 ** random(53));
    case 3: return random(1000) / 7;
    case 6: return Array.from({ length: random(20) }, () => value(depth + 1));
    case 7: return Object.fromEntries(Array.from({ length: random(6) }, (_, index) => [`k${index}`, value(depth + 1)]));
    default: return TEXTS[random(TEXTS.length)].repeat(random(400));
  }
}

for (let count = 0; count < 20_000; count++) {
  const each = value(0);
  assert.deepEqual(JSON.parse(JSON.stringify(unpack(encode(each)))), JSON.parse(JSON.stringify(each)));
  assert.deepEqual(decode(pack(each)), each);
}
console.log("20,000 values are the same");
