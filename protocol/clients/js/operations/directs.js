// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "directs.send": [80, "SentDirect"],
  "directs.send_many": [81, "SentDirects"],
  "directs.progress": [82, "DirectProgress"],
  "directs.state": [83, "DirectStateView"],
  "directs.list": [84, "DirectsPage"],
  "directs.cancel": [85, "CancelledDirects"],
};
export const RECORDS = {
  "CancelledDirects": [["cancelled", "integer 0.."], ["more", "boolean", false]],
  "DirectProgress": [["batch", "text 1..64"], ["pending", "integer 0.."], ["acked", "integer 0.."], ["expired", "integer 0.."], ["cancelled", "integer 0..", 0]],
  "DirectStateView": [["state", "nil or name of DirectStatus"]],
  "DirectView": [["id", "integer 0.."], ["type", "integer 1..255"], ["state", "name of DirectStatus"], ["at_ms", "integer 0.."], ["expires_at_ms", "integer 0.."], ["batch", "nil or text 1..64", null], ["payload", "any", null]],
  "DirectsPage": [["items", "array of 0..1000 DirectView"], ["next", "nil or text 1..256"]],
  "SentDirect": [["id", "integer 0.."], ["repeated", "boolean", false], ["suppressed", "boolean", false], ["why", "nil or name of SuppressedBy", null]],
  "SentDirects": [["batch", "text 1..64"], ["sent", "integer 0.."], ["repeated", "integer 0.."], ["failed", "integer 0.."], ["next", "nil or text 1..256", null], ["suppressed", "integer 0..", 0]],
};
export const ENUMS = {
  "DirectStatus": {"0": "pending", "1": "acked", "2": "expired", "3": "cancelled"},
  "SuppressedBy": {"1": "opted_out", "2": "frequency", "3": "quiet_hours"},
};
