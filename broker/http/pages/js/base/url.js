// Addresses that people have written: https of known hosts only, or nothing.
import { SafeUrl } from "./dom.js";

const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;

/** Returns a SafeUrl, or null. `hosts`: names, with their subdomains; `development`: http of this machine is allowed. */
export function safeUrl(text, hosts, development = false) {
  const found = judgeUrl(text, hosts, development);
  return found === null ? null : new SafeUrl(found);
}

/** The same as a text; pure. */
export function judgeUrl(text, hosts, development = false) {
  let url;
  try { url = new URL(text); } catch { return null; }
  const isLocal = development && LOOPBACK.test(url.hostname);
  if (url.protocol !== "https:" && !(isLocal && url.protocol === "http:")) return null;
  if (url.username || url.password) return null;
  const isKnown = hosts.some((host) => url.host === host || url.host.endsWith(`.${host}`));
  return isKnown || isLocal ? url.href : null;
}
