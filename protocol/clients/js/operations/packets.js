// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "packets.create": [260, "CreatedPacket"],
  "packets.grab": [261, "OwnPacketShare"],
  "packets.mine": [262, "MyShare"],
  "packets.cancel": [263, "CancelledPacket"],
  "packets.list": [264, "PacketPage"],
};
export const RECORDS = {
  "CancelledPacket": [["returned_cents", "integer 0..1000000000000"]],
  "CreatedPacket": [["id", "text 1..64"], ["open_at_ms", "integer 0.."], ["expire_at_ms", "integer 0.."], ["seed_hash", "SHA-256"]],
  "MyShare": [["share", "nil or OwnPacketShare"]],
  "OwnPacketShare": [["share", "integer 0..9999"], ["cents", "integer 0..1000000000000"]],
  "PacketInfo": [["id", "text 1..64"], ["order_id", "text 1..64"], ["title", "text 0..64"], ["state", "name of PacketState"], ["mode", "name of SplitMode"], ["total_cents", "integer 1..1000000000000"], ["count", "integer 1..10000"], ["taken", "integer 0..10000"], ["taken_cents", "integer 0..1000000000000"], ["open_at_ms", "integer 0.."], ["expire_at_ms", "integer 0.."], ["seed_hash", "SHA-256"]],
  "PacketPage": [["items", "array of 0..1000 PacketInfo"], ["next", "nil or text 1..256"]],
};
export const ENUMS = {
  "PacketState": {"0": "scheduled", "1": "open", "2": "done", "3": "cancelled", "4": "settled"},
  "SplitMode": {"0": "lucky", "1": "equal", "2": "fixed"},
};
