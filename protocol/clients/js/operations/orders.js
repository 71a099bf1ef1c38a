// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "orders.event": [210, "CountedOrder"],
};
export const RECORDS = {
  "CountedOrder": [["order", "text 1..64"], ["status_version", "integer 1.."], ["status", "name of OrderStatus"], ["total", "integer 0.."]],
};
export const ENUMS = {
  "OrderStatus": {"1": "bought", "2": "cancelled"},
};
