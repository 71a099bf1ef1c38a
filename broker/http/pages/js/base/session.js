// A link to the room with a token: from the address's fragment, which is taken off at once, or of development mode.
import { ClosedError, NoAnswerError, RequestError, connect } from "../../client/roomcast.js";
import { brokerSettings } from "./settings.js";

export { ClosedError, NoAnswerError, RequestError };

/** The room that the address names. */
export const roomOfPage = () => decodeURIComponent(location.pathname.split("/")[2] ?? "");

function tokenOfAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("t") ?? "";
  if (token) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

/** Returns {client, given}: `given` says whether a token came with the address; without one development mode gives one.
 * `ask`: asks the page around this one for a token, "" = it has none. */
export function openSession({ role, user = "", agent, ask = null }) {
  const given = tokenOfAddress(), { development } = brokerSettings();
  let name = user;
  const token = given || (!development && !ask) ? given || undefined : async () => {
    const asked = ask ? await ask() : "";
    if (asked || !development) return asked;
    const query = new URLSearchParams(name ? { role, user: name } : { role });
    const answer = await fetch(`/pages/token?${query}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(`no token: ${answer.status}`);
    const made = await answer.json();
    name = made.user;
    return made.token;
  };
  const origin = location.origin.replace(/^http/, "ws");
  return { client: connect(`${origin}/`, { token, agent }), given: Boolean(given) };
}
