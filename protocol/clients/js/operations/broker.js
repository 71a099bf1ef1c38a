// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "broker.status": [60, "BrokerStatus"],
};
export const RECORDS = {
  "BrokerStatus": [["ready", "boolean"], ["status", "text 1..32"], ["version", "text 1..64"], ["edition", "integer 0.."], ["uptime_ms", "integer 0.."], ["connections", "integer 0.."], ["rooms", "integer 0.."], ["reason", "text 0..512", ""]],
};
export const ENUMS = {
};
