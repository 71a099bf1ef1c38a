// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
export const LIMITS = {"maxBodyBytes": 65520, "maxFrameBytes": 65536, "maxCalls": 32, "maxLikesPerPost": 1000};
export const OPCODES = {"HELLO": 1, "AUTH": 2, "JOIN": 3, "LEAVE": 4, "POST": 5, "ACK": 6, "EVENT": 7, "TICK": 8, "STATE": 9, "DIRECT": 10, "PING": 11, "PONG": 12, "ERROR": 13, "GOAWAY": 14, "RESUME": 15, "CALL": 17, "RESULT": 18};
export const FEATURES = {"LZ4": 1, "LZ4_DICT_1": 2, "TICKET": 4, "CALL": 16};
/** Members of the enumerations of the wire: name in lower case by number. */
export const ENUMS = {
  "Lane": {"0": "control", "1": "commerce", "2": "paid", "3": "chat", "4": "ambient"},
  "Codec": {"0": "plain", "1": "lz4", "2": "lz4_dict_1", "3": "lz4_dict_2", "4": "lz4_dict_3"},
  "Tier": {"20": "full", "10": "medium", "5": "low"},
  "Role": {"0": "guest", "1": "viewer", "2": "vip", "3": "moderator", "4": "assistant", "5": "host", "6": "app"},
  "RoomPhase": {"1": "live", "2": "paused", "3": "ended"},
  "Outcome": {"0": "accepted", "1": "merged", "2": "sampled_out", "3": "limited", "4": "held", "5": "rejected", "6": "expired", "7": "unavailable", "8": "masked"},
  "LeaveReason": {"0": "requested", "1": "room_ended", "2": "room_idle", "3": "kicked", "4": "room_crashed", "5": "replaced", "6": "not_granted", "7": "banned"},
  "MessageType": {"1": "danmaku", "2": "emote", "3": "like", "4": "announcement", "5": "gift", "6": "room_phase", "7": "joined", "8": "missed", "9": "media", "10": "pins_changed", "11": "messages_deleted", "12": "activity", "13": "activity_counter", "14": "highlight", "15": "not_addressed", "16": "keys_changed"},
  "MediaKind": {"1": "image", "2": "audio", "3": "video", "4": "file"},
  "KeyCause": {"0": "set", "1": "deleted", "2": "expired", "3": "owner_left"},
  "ErrorCode": {"101": "bad_field", "102": "unknown_type", "103": "payload_too_large", "104": "not_joined", "105": "already_joined", "106": "out_of_state", "107": "unknown_room", "108": "key_reused", "109": "stale", "110": "unknown_operation", "111": "unknown_activity", "112": "unknown_claim", "113": "order_used", "114": "below_taken", "115": "bad_code", "116": "unknown_action", "117": "unknown_conversation", "118": "unknown_call", "119": "unknown_desk", "201": "not_allowed", "202": "room_not_granted", "203": "too_many_rooms", "204": "duplicate_text", "205": "room_paused", "206": "room_ended", "207": "not_kept", "208": "too_many_keys", "209": "blocked", "210": "closed", "211": "sold_out", "212": "already_have", "213": "already_confirmed", "214": "expired", "215": "cancelled", "216": "released", "217": "sale_cancelled", "218": "empty", "219": "exhausted", "220": "not_eligible", "221": "not_invited", "222": "banned", "223": "muted", "224": "followers_only", "225": "vip_only", "226": "emote_only", "227": "all_muted", "228": "links_off", "229": "not_unique", "230": "too_many_members", "301": "rate_limited", "302": "room_full", "303": "overloaded", "304": "too_many_rooms_open", "305": "locked", "306": "not_open", "307": "all_reserved", "308": "not_reserved", "309": "price_changed", "310": "seat_taken", "311": "slow_mode", "312": "busy", "401": "internal_error"},
  "CloseCode": {"4000": "going_away", "4001": "slow_viewer", "4002": "heartbeat_missed", "4003": "closed_by_peer", "4200": "overloaded", "4201": "too_many_connections", "4202": "too_many_from_address", "4203": "too_many_for_user", "4204": "handshake_timeout", "4205": "internal_error", "4206": "too_many_errors", "4207": "flooding", "4400": "bad_frame", "4401": "frame_too_large", "4402": "bad_body", "4403": "bad_compression", "4404": "unsupported_version", "4405": "unknown_opcode", "4406": "out_of_state", "4407": "bad_transport", "4408": "auth_failed", "4409": "token_expired", "4410": "kicked", "4411": "client_done", "4412": "replaced", "4413": "token_revoked", "4414": "banned"},
};
/** Record of the body of each message of the server, by opcode. */
export const MESSAGES = {"1": "ServerHello", "2": "Authenticated", "3": "Joined", "4": "Left", "6": "Ack", "7": "Event", "8": "Tick", "9": "State", "10": "Direct", "12": "Pong", "13": "ErrorReply", "14": "GoAway", "15": "Resumed", "18": "Result"};
/** Record of the payload of each message type. */
export const PAYLOADS = {"1": "DanmakuPayload", "2": "EmotePayload", "3": "LikePayload", "4": "AnnouncementPayload", "5": "GiftPayload", "14": "HighlightPayload", "6": "PhasePayload", "9": "MediaPayload", "10": "PinsPayload", "11": "DeletedPayload", "16": "KeysPayload", "12": "ActivityPayload", "13": "ActivityPayload", "15": "NotAddressedPayload"};
/** Fields of each record in the order of the wire: [name, type as SPEC.md writes it, default if any]. */
export const RECORDS = {
  "Account": [["admitted", "integer 0..", 0], ["shown", "integer 0..", 0], ["merged", "integer 0..", 0], ["sampled", "integer 0..", 0], ["expired", "integer 0..", 0], ["held", "integer 0..", 0]],
  "Ack": [["results", "array of 0..1024 AckResult"], ["firsts", "array of 0..64 FirstResult", []], ["reasons", "array of 0..64 AckReason", []]],
  "AckReason": [["sequence", "integer 0..4294967295"], ["text", "text 0..256"], ["retry_after_ms", "integer 0..", 0]],
  "AckResult": [["sequence", "integer 0..4294967295"], ["outcome", "Outcome"], ["detail", "integer 0..", 0]],
  "ActivityPayload": [["event", "text 0..64"], ["id", "text 0..64"], ["data", "any"]],
  "ActivityView": [["kind", "text 1..32"], ["id", "text 0..64"], ["data", "any"]],
  "AnnouncementPayload": [["text", "character lines 0..500"]],
  "Authenticated": [["user_id", "text 1..64"], ["name", "text 0..64"], ["expires_at_ms", "integer 0..", 0], ["ticket", "text 0..4000", ""], ["ticket_ms", "integer 0..", 0], ["rooms", "array of 0..1024 RoomRole", []]],
  "CustomType": [["type", "integer 128..255"], ["name", "text 1..64"], ["lane", "Lane"]],
  "DanmakuPayload": [["text", "characters 0..100"], ["style", "nil or style", null]],
  "DeletedPayload": [["offsets", "array of 0..100 integer 0..", []], ["user_id", "user id or empty", ""], ["after_ms", "integer 0..", 0], ["reason", "text 0..256", ""]],
  "Direct": [["direct_id", "integer 0.."], ["type", "integer 1..255"], ["at_ms", "integer 0.."], ["payload", "any"]],
  "EmotePayload": [["emote_id", "text 0..64"]],
  "ErrorReply": [["code", "integer 100..999"], ["message", "text 0..256"], ["field", "text 0..64", ""], ["retry_after_ms", "integer 0..", 0]],
  "Event": [["type", "integer 1..255"], ["at_ms", "integer 0.."], ["user_id", "text 0..64"], ["name", "text 0..64"], ["payload", "any"]],
  "FirstResult": [["sequence", "integer 0..4294967295"], ["room_name", "room name"], ["epoch", "integer 0.."], ["offset", "integer 0.."]],
  "GiftPayload": [["order_id", "text 0..64"], ["user_id", "user id or empty"], ["name", "display name"], ["gift_id", "text 0..64"], ["count", "integer 0.."], ["price_cents", "integer 0.."], ["target", "user id or empty", ""], ["combo", "combo", true], ["seq", "integer 0..", 0], ["added", "integer 0..", 0], ["total", "integer 0..", 0], ["flags", "integer 0..", 0]],
  "GoAway": [["code", "integer 1000..4999"], ["reason", "text 0..256", ""], ["retry_after_ms", "integer 0..", 0], ["jitter_ms", "integer 0..", 0], ["hosts", "array of 0..64 text 1..255", []]],
  "HighlightPayload": [["order_id", "text 0..64"], ["user_id", "user id or empty"], ["name", "display name"], ["text", "characters 0..200"], ["cents", "integer 0.."], ["tier", "integer 0..", 0], ["until_ms", "integer 0..", 0], ["displaced", "integer 0..", 0]],
  "Joined": [["room_name", "room name"], ["epoch", "integer 0.."], ["offset", "integer 0.."], ["role", "Role"], ["phase", "RoomPhase"], ["tier", "Tier"], ["interval_ms", "integer 0.."], ["online", "integer 0.."], ["users", "integer 0.."], ["uniques", "integer 0.."], ["peak", "integer 0.."], ["likes", "integer 0.."], ["recent", "array of 0..64 TickEntry", []], ["is_recent_cut", "boolean", false], ["announcement", "nil or Event", null], ["keys", "array of 0..100 RoomKey", []], ["keys_more", "integer 0..", 0], ["pinned", "array of 0..3 PinnedMessage", []], ["activities", "array of 0..100 ActivityView", []], ["own_activities", "array of 0..100 ActivityView", []], ["activities_more", "integer 0..", 0]],
  "KeyChange": [["name", "text 1..128"], ["version", "integer 0.."], ["value", "any"], ["cause", "KeyCause"], ["expires_at_ms", "nil or integer 0..", null], ["owner", "nil or user id", null], ["delete_on_leave", "boolean", false]],
  "KeysPayload": [["changes", "array of 0..100 KeyChange"]],
  "Left": [["reason", "LeaveReason"], ["message", "text 0..256", ""]],
  "LikePayload": [["count", "integer 0.."]],
  "MediaPayload": [["url", "https URL"], ["kind", "MediaKind"], ["size_bytes", "integer 0.."], ["sha256", "SHA-256"], ["caption", "lines 0..200", ""]],
  "NotAddressedPayload": [],
  "OfferedDictionary": [["codec", "integer 1..15"], ["sha256", "SHA-256"], ["nbytes", "integer 1..65536"]],
  "PhasePayload": [["phase", "RoomPhase"]],
  "PinnedMessage": [["id", "text 1..64"], ["type", "integer 1..255"], ["payload", "any"], ["user_id", "text 0..64"], ["name", "text 0..64"], ["at_ms", "integer 0.."], ["expires_at_ms", "integer 0..", 0], ["offset", "integer 0..", 0]],
  "PinsPayload": [["pinned", "array of 0..3 PinnedMessage"]],
  "Pong": [["client_ms", "integer 0.."], ["server_ms", "integer 0.."], ["rooms", "array of 0..1024 RoomPulse", []], ["missed_chat", "integer 0..", 0], ["ticket", "text 0..4000", ""], ["expires_at_ms", "integer 0..", 0]],
  "Result": [["operation", "operation"], ["result", "any"]],
  "Resumed": [["recovered", "boolean"], ["gap_from", "integer 0.."], ["snapshot", "Joined"]],
  "RoomKey": [["name", "text 1..128"], ["value", "any"], ["version", "integer 0.."], ["expires_at_ms", "nil or integer 0..", null], ["owner", "nil or user id", null]],
  "RoomPulse": [["room", "integer 0..4294967295"], ["online", "integer 0.."], ["interval_ms", "integer 0.."]],
  "RoomRole": [["room", "integer 0..4294967295"], ["role", "Role"]],
  "ServerHello": [["version", "integer 1..255"], ["features", "integer 0..4294967295"], ["server_ms", "integer 0.."], ["heartbeat_ms", "integer 0.."], ["cut_ms", "integer 0.."], ["max_rooms", "integer 1.."], ["types", "array of 0..128 CustomType", []], ["server", "text 0..64", ""], ["dictionaries", "array of 0..4 OfferedDictionary", []]],
  "State": [["at_ms", "integer 0.."], ["phase", "RoomPhase"], ["stage", "integer 0..4"], ["interval_ms", "integer 0.."], ["online", "integer 0.."], ["users", "integer 0.."], ["uniques", "integer 0.."], ["peak", "integer 0.."], ["likes", "integer 0.."], ["top_likers", "array of 0..64 pair of text 1..64 and integer 0..", []], ["joins", "array of 0..64 pair of text 1..64 and text 0..64", []], ["joins_more", "integer 0..", 0], ["accounts", "array of 0..5 Account", []]],
  "Tick": [["at_ms", "integer 0.."], ["interval_ms", "integer 0.."], ["stage", "integer 0..4"], ["entries", "array of 0..1024 TickEntry"], ["account", "nil or Account", null]],
  "TickEntry": [["type", "integer 1..255"], ["user_id", "text 1..64"], ["name", "text 0..64"], ["payload", "any"], ["count", "integer 1..", 1], ["senders", "array of 0..3 text 1..64", []], ["role", "Role", 1]],
};
/** Subjects of operations; each has a module in `operations/`. */
export const SUBJECTS = ["activities", "app", "audiences", "broker", "cards", "conversations", "countdowns", "coupons", "desk", "dictionaries", "directs", "gifts", "keys", "locks", "lotteries", "marketing", "messages", "mic", "moderation", "orders", "packets", "pk", "polls", "presence", "products", "quizzes", "rains", "rankings", "rooms", "rtc", "sales", "schedules", "users"];
