// Dictionaries of compressed frames: those of the deployment are fetched once over the link and kept over links.
import { NoAnswerError, ProtocolError, RequestError } from "./errors.js";
import { webCrypto } from "./web_crypto.js";

const MAX_KEPT = 4;
const MAX_BYTES = 65_536;
const FIRST_MS = 2_000;
const SPREAD_MS = 28_000;

/** Dictionaries by their SHA-256, at most four; an application may keep what it iterates, and add it in its next run. */
export class DictionaryCache {
  constructor() {
    this._byName = new Map();
  }

  *[Symbol.iterator]() {
    yield* [...this._byName];
  }

  /** Names of the dictionaries, for HELLO. */
  get names() {
    return [...this._byName.keys()];
  }

  /** Return the bytes of a dictionary, or undefined. */
  get(name) {
    return this._byName.get(name);
  }

  /** Keep a dictionary whose bytes have this SHA-256; the one that was added first makes room. */
  add(name, bytes) {
    this._byName.delete(name);
    this._byName.set(name, bytes);
    if (this._byName.size > MAX_KEPT) this._byName.delete(this._byName.keys().next().value);
  }
}

/**
 * Get the best dictionary that HELLO has offered and this client lacks, and ask for frames that use it.
 * Where anything fails the link goes on with the codec that it has.
 */
export async function useOffered(client, link, cache, random, waitMs = FIRST_MS + random() * SPREAD_MS) {
  const [best] = link.hello.dictionaries;
  if (!best || !link.hasCalls || link.hasDictionary(best.codec) || !webCrypto.subtle) return;
  await new Promise((resolve) => link.after(waitMs, resolve));
  const { sha256, codec } = best;
  try {
    const { data } = await client.call("dictionaries.get", { sha256 });
    const bytes = await inflated(Uint8Array.from(atob(data), (each) => each.charCodeAt(0)));
    if (bytes === null || (await nameOf(bytes)) !== sha256) return;
    cache.add(sha256, bytes);
    if (link.isEnded) return;
    link.addDictionary(codec, bytes);
    await use(client, link, { sha256, codec });
  } catch (error) {
    if (![RequestError, NoAnswerError, ProtocolError].some((kind) => error instanceof kind)) throw error;
  }
}

async function use(client, link, args) {
  try {
    await client.call("dictionaries.use", args);
  } catch (error) {
    if (!(error instanceof RequestError) || !error.retryAfterMs) throw error;
    await new Promise((resolve) => link.after(error.retryAfterMs, resolve));
    await client.call("dictionaries.use", args);
  }
}

/** Return what zlib's format holds, or null if it is corrupt or larger than a dictionary may be. */
async function inflated(data) {
  const parts = [];
  let size = 0;
  try {
    for await (const part of new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"))) {
      size += part.length;
      if (size > MAX_BYTES) return null;
      parts.push(part);
    }
  } catch {
    return null;
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Return the SHA-256 of bytes in hexadecimal. */
export async function nameOf(bytes) {
  const digest = new Uint8Array(await webCrypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((each) => each.toString(16).padStart(2, "0")).join("");
}
