// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "users.get": [40, "UserView"],
  "users.disconnect": [41, "DisconnectedUser"],
  "users.kick": [42, "Kicked"],
  "users.set_preferences": [44, "Preferences"],
  "users.set_tags": [45, "UserTags"],
  "users.export": [46, "UserExport"],
  "users.erase": [47, "EraseStarted"],
  "users.erase_state": [48, "ErasureStatus"],
};
export const RECORDS = {
  "DisconnectedUser": [["links", "integer 0.."]],
  "EraseStarted": [["job", "text 1..64"]],
  "ErasureStatus": [["job", "text 1..64"], ["state", "name of ErasureState"], ["asked_at_ms", "integer 0.."], ["entries", "integer 0.."], ["done_at_ms", "integer 0..", 0]],
  "ExportedItem": [["kind", "name of ExportKind"], ["room", "nil or room name", null], ["id", "text 0..128", ""], ["at_ms", "integer 0..", 0], ["about", "map of 0..16 text 1..32 to any", {}], ["type", "nil or integer 1..255", null], ["data", "any", null]],
  "Kicked": [["links", "integer 0.."]],
  "Preferences": [["marketing", "nil or boolean", null], ["recommendation", "nil or boolean", null], ["visibility", "nil or name of Visibility", null]],
  "UserExport": [["items", "array of 0..1000 ExportedItem"], ["next", "nil or text 1..1024", null]],
  "UserLink": [["address", "text 0..64"], ["transport", "text 1..16"], ["rooms", "array of 0..1000 room name"], ["agent", "text 0..128", ""], ["since_ms", "integer 0..", 0], ["id", "text 0..32", ""]],
  "UserSanction": [["kind", "name of SanctionKind"], ["room", "nil or room name"], ["until_ms", "integer 0.."], ["reason", "text 0..256"], ["shadow", "boolean", false]],
  "UserTags": [["tags", "array of 0..32 text 1..64"]],
  "UserView": [["user", "user id"], ["links", "array of 0..100 UserLink"], ["rooms", "array of 0..1000 room name"], ["preferences", "Preferences", [null, null, null]], ["tags", "array of 0..32 text 1..64", []], ["sanctions", "array of 0..1000 UserSanction", []]],
};
export const ENUMS = {
  "ErasureState": {"0": "redacting", "1": "scrubbing", "2": "done"},
  "ExportKind": {"0": "preference", "1": "tags", "2": "revocation", "3": "sanction", "4": "key", "5": "direct", "6": "event", "7": "sanction_action", "8": "held", "9": "report", "10": "message"},
  "SanctionKind": {"1": "mute", "2": "ban"},
  "Visibility": {"0": "visible", "1": "hidden"},
};
