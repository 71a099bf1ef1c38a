// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "rtc.ring": [645, "RingingRtc"],
  "rtc.accept": [646, "AcceptedRtc"],
  "rtc.reject": [647, "EndedRtc"],
  "rtc.hang_up": [648, "EndedRtc"],
  "rtc.mine": [649, "OwnRtc"],
};
export const RECORDS = {
  "AcceptedRtc": [["token", "text 1..64"]],
  "EndedRtc": [["call", "text 1..64"]],
  "OwnRtc": [["call", "nil or RtcView"]],
  "RingingRtc": [["call", "text 1..64"], ["ends_in_ms", "integer 0.."]],
  "RtcView": [["call", "text 1..64"], ["conversation", "text 1..64"], ["user", "user id or empty"], ["incoming", "boolean"], ["answered", "boolean"]],
};
export const ENUMS = {
};
