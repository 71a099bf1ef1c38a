// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "coupons.create": [280, "CreatedPool"],
  "coupons.upload": [281, "UploadedCodes"],
  "coupons.claim": [282, "CouponCode"],
  "coupons.issue": [283, "CouponCode"],
  "coupons.issue_many": [284, "IssuedCoupons"],
  "coupons.check": [285, "CheckedCoupon"],
  "coupons.mine": [286, "MyCouponCode"],
  "coupons.close": [287, "ClosedPool"],
};
export const RECORDS = {
  "CheckedCoupon": [["code", "text 1..64"], ["user", "nil or user id"], ["issued_at_ms", "integer 0.."], ["expired", "boolean"]],
  "ClosedPool": [["issued", "integer 0..1000000"], ["left", "integer 0..1000000"]],
  "CouponCode": [["code", "text 1..64"], ["expire_at_ms", "integer 0.."], ["expired", "boolean", false]],
  "CreatedPool": [["id", "text 1..64"]],
  "IssuedCoupons": [["items", "array of 0..500 UserCoupon"], ["left_out", "array of 0..500 user id", []], ["next", "nil or text 1..256", null]],
  "MyCouponCode": [["coupon", "nil or CouponCode"]],
  "UploadedCodes": [["uploaded", "integer 0..1000000"]],
  "UserCoupon": [["user", "user id"], ["code", "text 1..64"]],
};
export const ENUMS = {
};
