// Seats on the mic: who speaks, and one's own way there: ask, wait, accept, leave.
import { t } from "../base/strings.js";
import { actCard } from "./act_card.js";

/** `act.mic(operation, fields)`. */
export function seatsCard(act) {
  const card = actCard("seats", "blue", "mic");
  function update({ data, own }) {
    const status = String(own?.status ?? "none").toLowerCase(), { fence } = own ?? {};
    const names = (data.taken ?? []).map(({ name, user, is_muted: isMuted }) => `${name || user}${isMuted ? ` (${t("mic.muted")})` : ""}`).join(", ");
    const text = status === "queued" ? t("mic.queued", { n: own.place || "?" }) : status === "invited" ? t("mic.invited") : names || t("mic.free", { n: data.seats });
    const button = {
      none: { label: t("mic.request"), run: () => act.mic("mic.request") },
      queued: { label: t("mic.cancel"), run: () => act.mic("mic.cancel") },
      invited: { label: t("mic.accept"), isGold: true, run: () => act.mic("mic.accept", { fence }) },
      accepted: { label: t("mic.go"), isGold: true, run: () => act.mic("mic.on_mic", { fence }) },
      on_mic: { label: t("mic.leave"), run: () => act.mic("mic.leave", { fence }) },
    }[status];
    card.set(t("mic.title", { n: (data.taken ?? []).length, of: data.seats }), text, button);
  }
  return { node: card.node, update };
}
