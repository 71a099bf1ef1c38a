// Entry of the live room: what the first danmaku needs and nothing else. The rest of the page is `room/page.js`, which is loaded
// behind it and takes what the room has said until then.
import { $, $$, localise, setText } from "./base/dom.js";
import { t, use } from "./base/strings.js";
import { kept } from "./base/settings.js";
import { openSession, roomOfPage } from "./base/session.js";
import { base } from "../strings/base.js";
import { room as words } from "../strings/room.js";
import { tierFor } from "./danmaku/lanes.js";
import { Stage } from "./danmaku/stage.js";
import { chatList, lineOf } from "./parts/chat_list.js";

// First of all: the token and the link are on their way while the page is built.
export const { client, given } = openSession({ role: "viewer", user: new URLSearchParams(location.search).get("user") ?? "", agent: "roomcast-room/1" });
use(base, words);
localise();

const MOST_EARLY = 1000, SAID = ["joined", "tick", "event", "counter", "state", "gap", "decided", "left", "ended"], isWide = innerWidth >= 720;
const early = [];
let page = null;

export const name = roomOfPage();
export const stage = new Stage($("#fly"), { ...(isWide ? { density: 0.33, size: 22 } : { density: 0.99, size: 18 }), ...kept("fly", {}) });
export const chat = chatList($("#chat"), $("#newer"), { pace: isWide ? 7 : 2, open: (line) => page?.openLine(line) });

/** Gives the page what was said, or keeps it until there is one; a page that does not come is loaded again. */
function say(event, what) {
  if (page) page.listeners[event](what);
  else if (early.push([event, what]) > MOST_EARLY) location.reload();
}

/** Joins the room, and shows what was said last. */
export async function join() {
  const room = await client.join(name, { tier: tierFor(stage.capacity) }), { snapshot } = room;
  for (const event of SAID) room.on(event, (what) => say(event, what));
  for (const line of snapshot.recent.map(lineOf)) if (line) chat.add(line);
  return { room, snapshot };
}

client.on("direct", (what) => say("direct", what));
const first = join();
first.catch(() => {}).then(() => {                            // the page says what became of it
  for (const link of $$("link[data-later]")) link.rel = "modulepreload";
  return import("./room/page.js");
}).then(async (loaded) => {
  await loaded.enter(first);
  page = loaded;
  for (const [event, what] of early.splice(0)) say(event, what);
}).catch(() => {
  $("#veil").hidden = $("#veil-try").hidden = false;
  setText($("#veil-title"), t("error.title"));
  $("#veil-try").addEventListener("click", () => location.reload());
});
