// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "activities.list": [580, "ActivityList"],
};
export const RECORDS = {
  "ActivityList": [["items", "array of 0..100 ActivityView"], ["more", "integer 0..", 0]],
};
export const ENUMS = {
};
