// Web Crypto: the browser's, or that of Node 18, which has no global one.

/** The object `crypto`; in a page that is neither https nor localhost it has no `subtle`. */
export const webCrypto = globalThis.crypto ?? (await import("node:crypto")).webcrypto;
