// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "rains.create": [265, "CreatedRain"],
  "rains.cancel": [266, "CancelledPacket"],
};
export const RECORDS = {
  "CancelledPacket": [["returned_cents", "integer 0..1000000000000"]],
  "CreatedRain": [["id", "text 1..64"], ["start_at_ms", "integer 0.."], ["seed_hash", "SHA-256"]],
};
export const ENUMS = {
};
