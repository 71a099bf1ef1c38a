// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "pk.invite": [360, "PkState"],
  "pk.answer": [361, "PkState"],
  "pk.cancel": [362, "PkState"],
};
export const RECORDS = {
  "PkState": [["id", "text 1..64"], ["phase", "name of PkPhase"], ["other_room", "text 1..64"], ["is_inviting", "boolean"], ["measure", "name of PkMeasure"], ["duration_ms", "integer 0.."], ["expires_at_ms", "nil or integer 0..", null], ["starts_at_ms", "nil or integer 0..", null], ["ends_at_ms", "nil or integer 0..", null], ["score", "integer 0..", 0], ["other_score", "nil or integer 0..", null], ["outcome", "nil or name of PkOutcome", null], ["is_forfeit", "boolean", false]],
};
export const ENUMS = {
  "PkMeasure": {"0": "gifts", "1": "likes"},
  "PkOutcome": {"1": "won", "2": "lost", "3": "draw", "4": "void", "5": "declined", "6": "cancelled", "7": "expired"},
  "PkPhase": {"0": "idle", "1": "inviting", "2": "invited", "3": "running", "4": "scoring", "5": "result"},
};
