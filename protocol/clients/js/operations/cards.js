// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "cards.send": [633, "SentCard"],
};
export const RECORDS = {
  "SentCard": [["sent", "boolean"], ["number", "integer 0.."], ["status", "name of CardStatus"], ["version", "integer 0.."]],
};
export const ENUMS = {
  "CardStatus": {"1": "pending", "2": "failed", "3": "paid", "4": "shipped", "5": "in_transit", "6": "delivered", "7": "done", "8": "cancelled", "9": "returned", "10": "refunded"},
};
