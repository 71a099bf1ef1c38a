// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "rooms.open": [1, "RoomView"],
  "rooms.set_rules": [9, "RulesSet"],
  "rooms.get": [2, "RoomView"],
  "rooms.list": [3, "RoomPage"],
  "rooms.set_phase": [4, "RoomView"],
  "rooms.close": [5, "RoomView"],
  "rooms.members": [6, "MembersPage"],
  "rooms.history": [7, "HistoryPage"],
  "rooms.stats": [8, "RoomStats"],
  "rooms.report": [560, "RoomReport"],
  "rooms.export": [561, "RoomExport"],
  "rooms.export_all": [562, "RoomsExport"],
};
export const RECORDS = {
  "Audience": [["any", "array of 0..16 text 1..64", []], ["all", "array of 0..16 text 1..64", []], ["none", "array of 0..16 text 1..64", []]],
  "EventView": [["offset", "integer 0.."], ["lane", "integer 0..2"], ["type", "integer 1..255"], ["at_ms", "integer 0.."], ["user", "user id or empty"], ["name", "display name"], ["payload", "any"], ["audience", "nil or Audience", null]],
  "HistoryPage": [["items", "array of 0..1000 EventView"], ["epoch", "integer 0.."], ["last_offset", "integer 0.."], ["gap", "boolean"], ["next", "nil or integer 0..", null]],
  "MemberView": [["user", "user id"], ["name", "display name"], ["role", "name of Role"], ["links", "integer 0.."], ["joined_at_ms", "integer 0..", 0]],
  "MembersPage": [["items", "array of 0..1000 MemberView"], ["next", "nil or text 1..256"], ["online", "integer 0.."], ["users", "integer 0.."]],
  "PinView": [["id", "text 1..64"], ["type", "integer 1..255"], ["payload", "any"], ["user", "text 0..64"], ["name", "text 0..64"], ["at_ms", "integer 0.."], ["expires_at_ms", "integer 0..", 0], ["offset", "integer 0..", 0]],
  "RoomExport": [["schema", "text 1..32"], ["version", "integer 0.."], ["epoch", "integer 0.."], ["lines", "array of 0..1000 any"], ["last", "integer 0.."], ["more", "boolean"]],
  "RoomPage": [["items", "array of 0..1000 RoomSummary"], ["next", "nil or text 1..256"]],
  "RoomRatesView": [["window_ms", "integer 0.."], ["messages_per_s", "number 0.."], ["danmaku_per_s", "number 0.."], ["gifts_per_s", "number 0.."], ["joins_per_s", "number 0.."], ["likes_per_s", "number 0.."]],
  "RoomReport": [["room", "room name"], ["epoch", "integer 0.."], ["report", "any"]],
  "RoomSeries": [["until_ms", "integer 0.."], ["online", "array of 0..900 integer 0.."], ["messages", "array of 0..900 integer 0.."], ["danmaku", "array of 0..900 integer 0.."], ["gifts", "array of 0..900 integer 0.."], ["joins", "array of 0..900 integer 0.."], ["likes", "array of 0..900 integer 0.."], ["shown", "array of 0..900 integer 0.."], ["merged", "array of 0..900 integer 0.."], ["left_out", "array of 0..900 integer 0.."]],
  "RoomStats": [["room", "room name"], ["online", "integer 0.."], ["users", "integer 0.."], ["uniques", "integer 0.."], ["peak", "integer 0.."], ["likes", "integer 0.."], ["lanes", "map of 0..5 text 1..16 to map of 0..8 text 1..16 to integer 0.."], ["stage", "integer 0..4"], ["tick_ms", "integer 0.."], ["rates", "nil or RoomRatesView", null], ["series", "nil or RoomSeries", null]],
  "RoomSummary": [["room", "room name"], ["phase", "name of RoomPhase"], ["online", "integer 0.."], ["peak", "integer 0.."], ["likes", "integer 0.."], ["title", "text 0..128", ""], ["tags", "array of 0..16 text 1..32", []]],
  "RoomView": [["room", "room name"], ["phase", "name of RoomPhase"], ["epoch", "integer 0.."], ["last_offset", "integer 0.."], ["opened_at_ms", "integer 0.."], ["online", "integer 0.."], ["users", "integer 0.."], ["uniques", "integer 0.."], ["peak", "integer 0.."], ["likes", "integer 0.."], ["tick_ms", "integer 0.."], ["pinned", "array of 0..3 PinView", []], ["rules", "nil or map of 0..32 text 1..32 to number or boolean or nil", null], ["title", "text 0..128", ""], ["tags", "array of 0..16 text 1..32", []]],
  "RoomsExport": [["schema", "text 1..32"], ["version", "integer 0.."], ["lines", "array of 0..1000 any"], ["last", "integer 0.."], ["more", "boolean"]],
  "RulesSet": [["rules", "map of 0..32 text 1..32 to number or boolean or nil"], ["applied_at_ms", "integer 0.."]],
};
export const ENUMS = {
};
