// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "rankings.get": [221, "RankingPage"],
};
export const RECORDS = {
  "RankedScore": [["user", "user id"], ["score", "integer 1.."], ["rank", "integer 1.."]],
  "RankingPage": [["ranking", "RankingTop"], ["user", "nil or RankedScore", null], ["around", "array of 0..101 RankedScore", []]],
  "RankingTop": [["kind", "text 1..16"], ["top", "array of 0..100 RankedScore"], ["total", "integer 0.."], ["ranked", "integer 0.."], ["partial", "boolean", false], ["complete", "boolean", true]],
};
export const ENUMS = {
};
