// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "marketing.put_rule": [650, "MarketingRule"],
  "marketing.remove_rule": [651, "MarketingRuleRemoved"],
  "marketing.rules": [652, "MarketingRuleList"],
  "marketing.report": [653, "TriggeredOffers"],
};
export const RECORDS = {
  "MarketingRule": [["id", "text 1..32"], ["trigger", "text 1..32"], ["title", "text 1..100"], ["text", "lines 0..500", ""], ["url", "nil or https URL", null], ["delay_s", "integer 0..2592000", 0], ["cancelled_by", "text 0..32", ""], ["cooldown_s", "integer 1..604800", 86400], ["expires_s", "integer 1..2592000", 86400]],
  "MarketingRuleList": [["items", "array of 0..200 MarketingRule"]],
  "MarketingRuleRemoved": [["removed", "boolean"]],
  "TriggeredOffers": [["sent", "integer 0.."], ["waiting", "integer 0.."], ["cancelled", "integer 0.."], ["suppressed", "integer 0.."], ["repeated", "integer 0.."], ["refused", "integer 0.."]],
};
export const ENUMS = {
};
