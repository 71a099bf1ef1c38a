// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "lotteries.create": [300, "LotteryCreated"],
  "lotteries.enter": [301, "LotteryEntry"],
  "lotteries.my_entry": [302, "MyLotteryEntry"],
  "lotteries.draw": [303, "LotteryDrawn"],
  "lotteries.void": [304, "LotteryVoided"],
  "lotteries.proof": [305, "LotteryProofPage"],
};
export const RECORDS = {
  "LotteryBeacon": [["signature", "text 0..512"], ["value", "SHA-256"]],
  "LotteryClosed": [["root", "SHA-256"], ["entries", "integer 0.."], ["weight", "integer 0.."], ["offset", "integer 0.."], ["at_ms", "integer 0.."]],
  "LotteryCommitted": [["commitment", "SHA-256"], ["offset", "integer 0.."], ["at_ms", "integer 0.."]],
  "LotteryCreated": [["id", "text 1..64"], ["commitment", "SHA-256"]],
  "LotteryDrawn": [["seed", "SHA-256"], ["signature", "text 0..512"], ["value", "text 0..64"], ["winners", "array of 0..20 array of 0..100 text 1..64"], ["winner_count", "integer 0.."], ["at_ms", "integer 0.."]],
  "LotteryEntry": [["entry", "text 1..64"], ["salt", "text 0..32"], ["weight", "integer 1..1000000"], ["prize", "text 0..64", ""]],
  "LotteryGrade": [["name", "text 1..64"], ["count", "integer 1..10000"]],
  "LotteryProofPage": [["format", "text 1..64"], ["terms", "LotteryTerms"], ["committed", "LotteryCommitted"], ["closed", "LotteryClosed"], ["seed", "SHA-256"], ["beacon", "nil or LotteryBeacon"], ["entries", "array of 0..1000 array of an id and a weight"], ["winners", "array of 0..20 array of 0..1000 text 1..64"], ["next", "nil or text 1..256", null]],
  "LotteryTerms": [["lottery_id", "text 1..64"], ["room", "room name"], ["open_at_ms", "integer 0.."], ["close_at_ms", "integer 0.."], ["grades", "array of 0..20 LotteryGrade"], ["max_weight", "integer 1..1000000", 1], ["rule", "text 0..1000", ""], ["beacon_chain", "text 0..64", ""], ["beacon_round", "integer 0..", 0]],
  "LotteryVoided": [["reason", "text 0..200"], ["at_ms", "integer 0.."]],
  "MyLotteryEntry": [["entry", "text 1..64"], ["salt", "text 0..32"], ["weight", "integer 1..1000000"], ["prize", "text 0..64", ""], ["root", "text 0..64", ""], ["entries", "integer 0..", 0], ["index", "nil or integer 0..1000000", null], ["path", "array of 0..20 SHA-256", []]],
};
export const ENUMS = {
};
