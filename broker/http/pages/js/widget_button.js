// A classic script for the shop's page: <script src="https://LIVE/widget.js" data-topic="presale" async></script>. It puts
// a button and, once it is pressed, a frame into the page. Attributes: data-topic, data-order, data-product, data-label,
// data-lang, data-theme. The page gives the token of its user by `roomcastToken = async () => "..."`.
(function () {
  "use strict";
  const script = document.currentScript, { origin } = new URL(script.src), data = script.dataset, label = data.label || "Chat";
  let frame = null, isOpen = false, isReady = false;
  const style = (node, rules) => { for (const [name, value] of Object.entries(rules)) node.style.setProperty(name, value); };
  const corner = { position: "fixed", right: "max(16px, env(safe-area-inset-right))", "z-index": "2147483000", border: "0" };
  const button = document.createElement("button"), badge = document.createElement("span");
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.setAttribute("aria-expanded", "false");
  const svg = (tag, attributes) => { const node = document.createElementNS("http://www.w3.org/2000/svg", tag); for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value); return node; };
  const mark = svg("svg", { viewBox: "0 0 24 24", width: "28", height: "28", "aria-hidden": "true" });   // no font has to know it
  mark.append(svg("path", { fill: "currentColor", d: "M4 4h16a2 2 0 0 1 2 2v10a2 2 0 0 1-2 2h-8l-5 4v-4H4a2 2 0 0 1-2-2V6a2 2 0 0 1 2-2z" }));
  style(mark, { display: "block", margin: "auto" });
  style(button, { ...corner, bottom: "max(16px, env(safe-area-inset-bottom))", width: "56px", height: "56px", "border-radius": "50%", background: "#dd1c50", color: "#fff", padding: "0", cursor: "pointer" });
  style(badge, { position: "absolute", right: "-4px", top: "-4px", "min-width": "20px", padding: "0 4px", "border-radius": "10px", background: "#14171e", color: "#fff", font: "600 12px/20px system-ui", display: "none" });
  button.append(mark, badge);
  const post = (what, fields) => isReady && frame.contentWindow?.postMessage({ roomcast: what, ...fields }, origin);

  function layout() {
    // Before the page in it is there, the frame leaves the button free: a page that does not come can be closed.
    const isSmall = innerWidth < 480, isWhole = isSmall && isReady;
    style(frame, { ...corner, display: isOpen ? "block" : "none", right: isSmall ? "0" : corner.right, bottom: isWhole ? "0" : "88px", width: isSmall ? "100%" : "380px", height: isWhole ? "100%" : isSmall ? "calc(100% - 88px)" : "min(600px, calc(100vh - 104px))", "border-radius": isSmall ? "0" : "16px", "box-shadow": "0 12px 32px rgb(0 0 0 / .35)" });
  }
  function toggle(open) {
    isOpen = open;
    if (!frame) {
      const query = new URLSearchParams();
      for (const name of ["lang", "theme", "topic", "order", "product"]) if (data[name]) query.set(name, data[name]);
      frame = document.createElement("iframe");
      frame.title = label;
      frame.src = `${origin}/widget?${query}`;
      document.body.append(frame);
    }
    layout();
    button.setAttribute("aria-expanded", String(isOpen));
    post("shown", { shown: isOpen });
    if (!isOpen) button.focus();
  }
  addEventListener("message", async ({ origin: from, source, data: message }) => {
    if (from !== origin || !frame || source !== frame.contentWindow) return;
    if (message?.roomcast === "ready") { isReady = true; layout(); post("shown", { shown: isOpen }); }
    else if (message?.roomcast === "close") toggle(false);
    else if (message?.roomcast === "token") post("token", { token: (await globalThis.roomcastToken?.()) ?? "" });
    else if (message?.roomcast === "unread") { badge.textContent = String(message.count); style(badge, { display: message.count ? "block" : "none" }); }
  });
  addEventListener("resize", () => frame && layout());
  addEventListener("keydown", (event) => { if (event.key === "Escape" && isOpen) toggle(false); });
  button.addEventListener("click", () => toggle(!isOpen));
  document.body.append(button);
})();
