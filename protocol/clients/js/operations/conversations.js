// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "conversations.open": [620, "ConversationView"],
  "conversations.send": [621, "SentMessage"],
  "conversations.report_position": [622, "OwnPosition"],
  "conversations.recall": [623, "RecalledMessage"],
  "conversations.show_typing": [624, "TypingShown"],
  "conversations.history": [625, "ConversationHistory"],
  "conversations.list": [626, "ConversationViews"],
  "conversations.block": [627, "BlockedUser"],
  "conversations.blocked": [628, "BlockedUsers"],
  "conversations.create": [629, "CreatedConversation"],
  "conversations.set_members": [630, "ChangedMembers"],
  "conversations.members": [631, "MemberPositions"],
  "conversations.get": [632, "ConversationView"],
};
export const RECORDS = {
  "BlockedUser": [["user", "user id"], ["blocked", "boolean"]],
  "BlockedUsers": [["users", "array of 0..1000 user id"]],
  "ChangedMembers": [["id", "text 1..64"], ["members", "integer 0.."]],
  "ConversationHistory": [["items", "array of 0..200 ConversationMessage"], ["more", "boolean"]],
  "ConversationMessage": [["offset", "integer 1.."], ["user", "user id or empty"], ["name", "text 0..64"], ["at_ms", "integer 0.."], ["text", "lines 0..2000", ""], ["media", "nil or MediaReference", null], ["reply_to", "integer 0..", 0], ["mentions", "array of 0..20 user id", []], ["card", "any", null], ["recalled", "boolean", false]],
  "ConversationView": [["id", "text 1..64"], ["title", "text 0..64"], ["other", "user id or empty"], ["members", "integer 0.."], ["last", "integer 0.."], ["joined", "integer 0.."], ["delivered", "integer 0.."], ["read", "integer 0.."], ["unread", "integer 0.."], ["last_at_ms", "integer 0.."], ["last_user", "user id or empty", ""], ["last_text", "text 0..64", ""]],
  "ConversationViews": [["items", "array of 0..1000 ConversationView"], ["next", "nil or text 1..256"]],
  "CreatedConversation": [["id", "text 1..64"], ["created", "boolean"], ["members", "integer 0.."]],
  "MediaReference": [["url", "https URL"], ["kind", "name of MediaKind"], ["size_bytes", "integer 0..1099511627776"], ["sha256", "SHA-256"]],
  "MemberPosition": [["user", "user id"], ["delivered", "integer 0..", 0], ["read", "integer 0..", 0]],
  "MemberPositions": [["items", "array of 0..1000 MemberPosition"], ["next", "nil or text 1..256"]],
  "OwnPosition": [["delivered", "integer 0.."], ["read", "integer 0.."], ["unread", "integer 0.."]],
  "RecalledMessage": [["offset", "integer 1.."]],
  "SentMessage": [["offset", "integer 0.."], ["repeated", "boolean", false]],
  "TypingShown": [["members", "integer 0.."]],
};
export const ENUMS = {
};
