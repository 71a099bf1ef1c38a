// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "desk.configure": [660, "DeskSettings"],
  "desk.settings": [661, "DeskSettings"],
  "desk.set_agent": [662, "AgentView"],
  "desk.agents": [663, "AgentViews"],
  "desk.set_state": [664, "AgentView"],
  "desk.open": [665, "OpenedDesk"],
  "desk.ask": [666, "SentMessage"],
  "desk.answer": [667, "SentMessage"],
  "desk.list": [668, "DeskViews"],
  "desk.get": [669, "DeskDetails"],
  "desk.transfer": [670, "DeskView"],
  "desk.take_over": [671, "DeskView"],
  "desk.resolve": [672, "DeskView"],
  "desk.rate": [673, "DeskView"],
  "desk.tag": [674, "DeskView"],
  "desk.statistics": [675, "DeskStatistics"],
};
export const RECORDS = {
  "AgentView": [["user", "user id"], ["name", "text 0..64"], ["state", "name of AgentState"], ["linked", "boolean"], ["load", "integer 0.."], ["capacity", "integer 0.."], ["skills", "array of 0..20 text 1..32"], ["supervisor", "boolean"]],
  "AgentViews": [["items", "array of 0..1000 AgentView"], ["next", "nil or text 1..256"]],
  "ConversationMessage": [["offset", "integer 1.."], ["user", "user id or empty"], ["name", "text 0..64"], ["at_ms", "integer 0.."], ["text", "lines 0..2000", ""], ["media", "nil or MediaReference", null], ["reply_to", "integer 0..", 0], ["mentions", "array of 0..20 user id", []], ["card", "any", null], ["recalled", "boolean", false]],
  "DeskDetails": [["desk", "DeskView"], ["messages", "array of 0..50 ConversationMessage"]],
  "DeskSettings": [["topics", "array of 0..50 DeskTopic"], ["hours", "array of 0..50 OfficeWindow"], ["utc_offset_minutes", "integer -840..840"], ["closed_text", "lines 0..500"], ["bot_ms", "integer 1..2592000000"], ["agent_ms", "integer 1..2592000000"], ["lost_ms", "integer 1..2592000000"], ["reopen_ms", "integer 1..2592000000"], ["sticky_ms", "integer 0..2592000000"], ["first_response_ms", "integer 0..2592000000"], ["resolution_ms", "integer 0..2592000000"]],
  "DeskStatistics": [["queued", "integer 0.."], ["assigned", "integer 0.."], ["with_bot", "integer 0.."], ["resolved", "integer 0.."], ["agents_available", "integer 0.."], ["topics", "array of 0..1000 TopicStatistics"]],
  "DeskTopic": [["name", "text 1..32"], ["skills", "array of 0..20 text 1..32", []], ["priority", "integer 0..100", 0], ["bot", "user id or empty", ""]],
  "DeskView": [["id", "text 1..64"], ["topic", "text 1..32"], ["customer", "user id"], ["name", "text 0..64"], ["state", "name of DeskState"], ["agent", "user id or empty"], ["epoch", "integer 0.."], ["revision", "integer 0.."], ["order", "nil or text 1..64"], ["product", "nil or text 1..64"], ["live_room", "nil or text 1..64"], ["verified", "boolean"], ["started_at_ms", "integer 0.."], ["asked_at_ms", "integer 0.."], ["first_answer_ms", "nil or integer 0.."], ["resolved_at_ms", "integer 0.."], ["transfers", "integer 0.."], ["rating", "integer 0..5"], ["tags", "array of 0..16 text 1..32"], ["alarms", "array of 0..2 name of SlaTimer"]],
  "DeskViews": [["items", "array of 0..1000 DeskView"], ["next", "nil or text 1..256"]],
  "MediaReference": [["url", "https URL"], ["kind", "name of MediaKind"], ["size_bytes", "integer 0..1099511627776"], ["sha256", "SHA-256"]],
  "OfficeWindow": [["begin", "integer 0..10080"], ["end", "integer 0..10080"]],
  "OpenedDesk": [["desk", "DeskView"], ["offset", "integer 0.."], ["repeated", "boolean", false]],
  "SentMessage": [["offset", "integer 0.."], ["repeated", "boolean", false]],
  "TopicStatistics": [["topic", "text 1..32"], ["conversations", "integer 0.."], ["queued", "integer 0.."], ["unresolved", "integer 0.."], ["transfers", "integer 0.."], ["late", "integer 0.."], ["rated", "integer 0.."], ["rating_hundredths", "nil or integer 0.."], ["first_response_p50_ms", "nil or integer 0.."], ["first_response_p95_ms", "nil or integer 0.."]],
};
export const ENUMS = {
  "AgentState": {"0": "offline", "1": "away", "2": "online", "3": "busy"},
  "DeskState": {"1": "bot", "2": "queued", "3": "assigned", "4": "resolved", "5": "closed"},
  "SlaTimer": {"1": "first_response", "2": "resolution"},
};
