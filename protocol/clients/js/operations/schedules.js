// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "schedules.create": [380, "JobView"],
  "schedules.change": [381, "JobView"],
  "schedules.cancel": [382, "JobView"],
  "schedules.list": [383, "SchedulePage"],
};
export const RECORDS = {
  "JobView": [["id", "text 1..64"], ["state", "name of JobState"], ["version", "integer 1.."], ["at_ms", "integer 0.."], ["operation", "text 1..64"], ["request", "any"], ["late", "name of LatePolicy"], ["late_ms", "integer 0.."], ["fired_at_ms", "nil or integer 0..", null], ["has_run", "boolean", false], ["refusal", "nil or text 1..64", null]],
  "SchedulePage": [["items", "array of 0..1000 JobView"], ["next", "nil or text 1..256", null]],
};
export const ENUMS = {
  "JobState": {"0": "pending", "1": "fired", "2": "missed", "3": "cancelled"},
  "LatePolicy": {"0": "late", "1": "skip"},
};
