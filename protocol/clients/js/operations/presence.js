// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "presence.watch": [640, "PresenceStates"],
  "presence.set_visible": [641, "VisibleSet"],
};
export const RECORDS = {
  "PresenceStates": [["items", "array of 0..100 UserPresence"]],
  "UserPresence": [["user", "user id"], ["online", "boolean"]],
  "VisibleSet": [["visible", "boolean"]],
};
export const ENUMS = {
};
