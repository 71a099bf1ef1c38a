// A customer's call: it rings, is answered here or on another device, refused, and ends. Sound and picture are the
// platform's: who has answered here shows the token for its RTC service, and the window gets it as "roomcast-call".
import { announce } from "../base/announce.js";
import { textOf } from "../base/errors.js";
import { setText } from "../base/dom.js";
import { t } from "../base/strings.js";
import { toast } from "../parts/toast.js";

/** `parts`: the strip, its text and its buttons; `show(conversation)`: opens the conversation of an answered call. */
export function agentCall(client, { node, text, answer, refuse, end }, show) {
  let call = null;                                           // {id, conversation, name, state: "ringing", "answering" or "answered", token}
  function draw() {
    node.hidden = !call;
    const isAnswered = call?.state === "answered";
    answer.hidden = refuse.hidden = isAnswered;
    end.hidden = !isAnswered;
    answer.disabled = refuse.disabled = call?.state === "answering";
    if (call) setText(text, t(isAnswered ? (call.token ? "call.token" : "call.answered") : call.video ? "call.rings-video" : "call.rings", call));
  }
  function over(word) { if (call) { call = null; toast(t(word)); } draw(); }
  async function refresh() {
    try {
      const { call: found } = await client.call("rtc.mine");
      if (!found?.incoming) call = null;
      else if (found.call !== call?.id) call = { id: found.call, conversation: found.conversation, name: found.user, state: found.answered ? "answered" : "ringing", token: "" };
    } catch { /* a broker without calls */ }
    draw();
  }
  async function run(operation, after) {
    const { id } = call;
    try { const done = await client.call(operation, { call: id }); if (call?.id === id) after(done); } catch (error) { toast(textOf(error), null, 8); await refresh(); }
    draw();
  }
  answer.addEventListener("click", () => {
    call.state = "answering";
    draw();
    run("rtc.accept", ({ token }) => {
      call = { ...call, state: "answered", token };
      dispatchEvent(new CustomEvent("roomcast-call", { detail: { call: call.id, token } }));
      show(call.conversation);
    });
  });
  refuse.addEventListener("click", () => run("rtc.reject", () => { call = null; }));
  end.addEventListener("click", () => run("rtc.hang_up", () => { call = null; }));
  client.on("state", ({ state }) => { if (state === "open") refresh(); });
  draw();
  return {
    onEvent({ event, id, data }) {
      if (event === "rtc.ringing") { call = { id, conversation: data.conversation, name: data.name || data.user, video: data.video, state: "ringing", token: "" }; announce(t("call.rings", call)); draw(); }
      else if (id !== call?.id) return;
      else if (event === "rtc.answered" && call.state === "ringing") over("call.elsewhere");
      else if (event === "rtc.ended") over("call.over");
    },
  };
}
