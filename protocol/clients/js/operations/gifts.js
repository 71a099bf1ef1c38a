// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "gifts.refund": [220, "RefundedGift"],
};
export const RECORDS = {
  "RefundedGift": [["order_id", "text 1..64"], ["user", "user id"], ["cents", "integer 0.."]],
};
export const ENUMS = {
};
