// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "app.call": [130, "AppAnswer"],
};
export const RECORDS = {
  "AppAnswer": [["body", "any", null]],
};
export const ENUMS = {
};
