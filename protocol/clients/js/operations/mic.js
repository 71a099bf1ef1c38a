// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "mic.set_seats": [340, "MicSeats"],
  "mic.get": [341, "MicSeats"],
  "mic.request": [342, "MicState"],
  "mic.cancel": [343, "MicState"],
  "mic.invite": [344, "MicState"],
  "mic.reject": [345, "MicState"],
  "mic.accept": [346, "MicAccess"],
  "mic.on_mic": [347, "MicState"],
  "mic.leave": [348, "MicState"],
  "mic.remove": [349, "MicState"],
  "mic.mute": [350, "MicState"],
};
export const RECORDS = {
  "MicAccess": [["state", "MicState"], ["rtc_token", "nil or text 1..2048", null]],
  "MicSeat": [["seat", "integer 1..20"], ["user", "user id"], ["name", "display name"], ["is_muted", "boolean", false]],
  "MicSeats": [["seats", "integer 0..20"], ["taken", "array of 0..20 MicSeat"], ["waiting", "integer 0.."], ["queue", "array of 0..100 MicWaiting", []]],
  "MicState": [["user", "user id"], ["status", "name of MicStatus"], ["place", "integer 0..", 0], ["seat", "integer 0..20", 0], ["fence", "integer 0..", 0], ["expires_at_ms", "nil or integer 0..", null], ["is_muted", "boolean", false]],
  "MicWaiting": [["number", "integer 1.."], ["user", "user id"], ["name", "display name"]],
};
export const ENUMS = {
  "MicStatus": {"0": "none", "1": "queued", "2": "invited", "3": "accepted", "4": "on_mic"},
};
