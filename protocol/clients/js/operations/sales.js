// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "sales.create": [240, "SaleView"],
  "sales.claim": [241, "ClaimAnswer"],
  "sales.release": [242, "ClaimOutcome"],
  "sales.mine": [243, "ClaimPage"],
  "sales.confirm": [244, "ClaimOutcome"],
  "sales.cancel": [245, "ClaimOutcome"],
  "sales.restock": [246, "SaleStock"],
  "sales.set_price": [247, "SalePrice"],
  "sales.close": [248, "SaleEnd"],
  "sales.cancel_sale": [249, "SaleEnd"],
  "sales.list": [250, "SalePage"],
  "sales.claims": [251, "ClaimPage"],
};
export const RECORDS = {
  "ClaimAnswer": [["number", "integer 1.."], ["state", "name of ClaimState"], ["quantity", "integer 1..100"], ["price_cents", "nil or integer 0..1000000000000", null], ["expires_at_ms", "nil or integer 0..", null], ["place", "nil or integer 1..", null]],
  "ClaimOutcome": [["number", "integer 1.."], ["state", "name of ClaimState"]],
  "ClaimPage": [["items", "array of 0..1000 ClaimView"], ["next", "nil or text 1..256", null]],
  "ClaimView": [["number", "integer 1.."], ["user", "user id"], ["state", "name of ClaimState"], ["quantity", "integer 1..100"], ["price_cents", "integer 0..1000000000000"], ["expires_at_ms", "nil or integer 0..", null], ["place", "nil or integer 1..", null], ["order", "nil or text 1..64", null]],
  "SaleEnd": [["at_ms", "integer 0.."]],
  "SalePage": [["items", "array of 0..1000 SaleView"], ["next", "nil or text 1..256", null]],
  "SalePrice": [["price_version", "integer 1.."], ["price_cents", "integer 0..1000000000000"]],
  "SaleStock": [["stock", "integer 0.."]],
  "SaleView": [["id", "text 1..64"], ["sku", "text 1..64"], ["state", "name of SaleState"], ["stock", "integer 0.."], ["available", "integer 0.."], ["reserved", "integer 0.."], ["confirmed", "integer 0.."], ["waiting", "integer 0.."], ["price_cents", "integer 0..1000000000000"], ["price_version", "integer 1.."], ["per_user", "integer 1..100"], ["open_at_ms", "integer 0.."], ["close_at_ms", "integer 0.."], ["reserve_ms", "integer 0.."], ["first_window_ms", "integer 0.."], ["window_ms", "integer 0.."], ["seed_hash", "SHA-256"], ["seed", "nil or SHA-256", null]],
};
export const ENUMS = {
  "ClaimState": {"1": "waiting", "2": "reserved", "3": "confirmed", "4": "expired", "5": "cancelled", "6": "released", "7": "lost", "8": "void", "9": "dismissed"},
  "SaleState": {"1": "scheduled", "2": "open", "3": "closed", "4": "settled", "5": "cancelled"},
};
