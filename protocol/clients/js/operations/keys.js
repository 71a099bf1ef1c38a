// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "keys.get": [100, "KeyPage"],
  "keys.set": [101, "KeyVersion"],
  "keys.set_many": [102, "KeyVersion"],
  "keys.delete": [103, "DeletedKey"],
};
export const RECORDS = {
  "DeletedKey": [["deleted", "boolean"]],
  "KeyPage": [["items", "array of 0..100 RoomKey"], ["next", "nil or text 1..256"]],
  "KeyVersion": [["version", "integer 0.."]],
};
export const ENUMS = {
};
