// The page of the shop that holds the widget's frame. Both sides name and check the origin of the other one exactly.

/** `origins`: of shops that may hold it; `onMessage({what, fields})`: "begin" {topic, order, product}, "shown" {shown}. */
export function shopPage(origins, onMessage) {
  const isFramed = window.parent !== window;
  const around = !isFramed ? "" : location.ancestorOrigins?.[0] ?? (document.referrer && new URL(document.referrer).origin), origin = origins.includes(around) ? around : "";
  const waiting = [];
  const post = (what, fields = {}) => { if (origin) window.parent.postMessage({ roomcast: what, ...fields }, origin); };
  if (origin) {
    addEventListener("message", ({ origin: from, source, data }) => {
      if (from !== origin || source !== window.parent || typeof data?.roomcast !== "string") return;
      const { roomcast: what, ...fields } = data;
      if (what === "token") { for (const give of waiting.splice(0)) give(String(fields.token ?? "")); return; }
      onMessage({ what, fields: Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, typeof value === "boolean" ? value : value === null || value === undefined ? null : String(value).slice(0, 64)])) });
    });
    post("ready");
  }
  return {
    isFramed,
    /** Asks the shop's page for a token of its user; it may answer with "", and then development mode gives one. */
    token: () => new Promise((resolve) => { waiting.push(resolve); post("token"); }),
    close: () => post("close"),
    unread: (count) => post("unread", { count }),
  };
}
