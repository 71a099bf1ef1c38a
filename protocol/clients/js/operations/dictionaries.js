// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "dictionaries.get": [600, "DictionaryText"],
  "dictionaries.use": [601, "DictionaryInUse"],
};
export const RECORDS = {
  "DictionaryInUse": [["codec", "integer 1..15"]],
  "DictionaryText": [["sha256", "SHA-256"], ["nbytes", "integer 1..65536"], ["data", "text 1..60000"]],
};
export const ENUMS = {
};
