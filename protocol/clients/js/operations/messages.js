// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "messages.publish": [20, "Published"],
  "messages.publish_many": [21, "PublishedMany"],
  "messages.broadcast": [25, "BroadcastStarted"],
  "messages.broadcast_state": [26, "BroadcastProgress"],
  "messages.pin": [22, "PinnedMessages"],
  "messages.unpin": [23, "PinnedMessages"],
  "messages.delete": [24, "DeletedMessages"],
  "messages.trace": [550, "MessageTrace"],
};
export const RECORDS = {
  "BroadcastProgress": [["id", "text 1..64"], ["rooms", "integer 0.."], ["reached", "integer 0.."], ["missed", "integer 0.."], ["done", "boolean"]],
  "BroadcastStarted": [["id", "text 1..64"], ["rooms", "integer 0.."]],
  "DeletedMessages": [["deleted", "integer 0.."], ["offset", "integer 0.."]],
  "MessageTrace": [["user", "user id or empty"], ["client_msg_id", "text 0..64"], ["type", "integer 0.."], ["received_at_ms", "integer 0.."], ["outcome", "nil or name of Outcome", null], ["decided_ms", "nil or number 0..", null], ["offset", "nil or integer 0..", null], ["code", "nil or integer 0..", null], ["retry_after_ms", "nil or integer 0..", null], ["tick", "nil or integer 0..", null], ["merged_into", "nil or user id or empty", null], ["senders", "integer 0..", 0], ["to_sender", "boolean", false], ["published_ms", "nil or number 0..", null], ["written_ms", "nil or number 0..", null], ["members", "integer 0..", 0], ["written", "integer 0..", 0], ["queued", "integer 0..", 0], ["refused", "integer 0..", 0]],
  "PinView": [["id", "text 1..64"], ["type", "integer 1..255"], ["payload", "any"], ["user", "text 0..64"], ["name", "text 0..64"], ["at_ms", "integer 0.."], ["expires_at_ms", "integer 0..", 0], ["offset", "integer 0..", 0]],
  "PinnedMessages": [["pinned", "array of 0..3 PinView"]],
  "Published": [["outcome", "name of Outcome"], ["offset", "nil or integer 0..", null], ["code", "nil or integer 0..", null], ["retry_after_ms", "nil or integer 0..", null], ["repeated", "boolean", false]],
  "PublishedMany": [["items", "array of 0..1000 Published"], ["accepted", "integer 0.."]],
};
export const ENUMS = {
};
