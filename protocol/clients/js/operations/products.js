// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "products.put": [200, "ProductVersion"],
  "products.arrange": [202, "Arrangement"],
  "products.explain": [203, "Explaining"],
  "products.stop_explaining": [204, "Explaining"],
  "products.report_clicks": [205, "ClicksReported"],
  "products.list": [206, "ProductPage"],
  "products.log": [207, "ExplainingLog"],
  "products.remove": [201, "ProductVersion"],
};
export const RECORDS = {
  "Arrangement": [["version", "integer 1.."]],
  "ClicksReported": [["report", "integer 0.."], ["counted", "boolean"]],
  "Explaining": [["product", "nil or text 1..64"], ["number", "integer 0.."], ["at_ms", "integer 0.."]],
  "ExplainingLog": [["items", "array of 0..1000 ExplainingPeriod"], ["next", "nil or text 1..256", null]],
  "ExplainingPeriod": [["product", "text 1..64"], ["from_ms", "integer 0.."], ["to_ms", "nil or integer 0..", null]],
  "ListedProduct": [["product", "Product"], ["arranged", "nil or integer 0..", null], ["clicks", "nil or integer 0..", null]],
  "Product": [["id", "text 1..64"], ["version", "integer 1.."], ["title", "characters 1..100"], ["price_cents", "integer 0..1000000000000"], ["position", "integer 0..", 0], ["url", "nil or https URL", null], ["image", "nil or https URL", null], ["stock", "nil or integer 0..", null], ["note", "text 0..32", ""]],
  "ProductPage": [["items", "array of 0..1000 ListedProduct"], ["next", "nil or text 1..256", null]],
  "ProductVersion": [["id", "text 1..64"], ["version", "integer 1.."], ["listed", "boolean"]],
};
export const ENUMS = {
};
