// What an application in TypeScript writes: `tsc` checks it against roomcast.d.ts.
import { connect, RequestError, type Room } from "../../protocol/clients/js/roomcast.js";

const client = connect("ws://127.0.0.1:7400", { token: async () => "token" });
const room: Room = await client.join("lobby", { tier: "low" });
room.on("tick", ({ entries, account }) => console.log(entries.length, account.admitted));
const result = await room.say("hi");
if (result.outcome === "limited") console.log(result.retryAfterMs + 1);
client.on("missed", ({ payload }) => console.log(payload.chat + payload.ambient));
// @ts-expect-error: there is no such event
room.on("nothing", () => 1);
// @ts-expect-error: there is no such tier
await client.join("lobby", { tier: "huge" });
try {
  await room.call("sales.claim", { room: "lobby", id: "sale-1" });
} catch (error) {
  if (error instanceof RequestError) console.log(error.error, error.field);
}
