// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "countdowns.start": [390, "CountdownState"],
  "countdowns.stop": [391, "CountdownState"],
  "countdowns.move": [392, "CountdownState"],
};
export const RECORDS = {
  "CountdownState": [["id", "text 1..64"], ["label", "characters 1..64"], ["deadline_ms", "integer 0.."], ["is_over", "boolean", false]],
};
export const ENUMS = {
};
