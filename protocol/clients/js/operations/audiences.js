// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "audiences.define": [400, "RoomTags"],
  "audiences.get": [401, "RoomTags"],
  "audiences.set_tags": [402, "TaggedUsers"],
  "audiences.count": [403, "AudienceCount"],
  "audiences.follow": [404, "OwnReach"],
  "audiences.share": [405, "OwnReach"],
  "audiences.accept_invite": [406, "OwnReach"],
  "audiences.top": [407, "ReachRanks"],
};
export const RECORDS = {
  "AudienceCount": [["addressed", "integer 0.."], ["online", "integer 0.."]],
  "AudienceGrown": [["followers", "integer 0.."], ["shares", "integer 0.."], ["invites", "integer 0.."]],
  "OwnReach": [["follows", "boolean"], ["shares", "integer 0.."], ["invites", "integer 0.."]],
  "ReachRank": [["user", "text 1..64"], ["score", "integer 0.."]],
  "ReachRanks": [["top", "array of 0..100 ReachRank"], ["totals", "AudienceGrown"]],
  "RoomTags": [["tags", "array of 0..16 TagRule"]],
  "TagRule": [["name", "text 1..64"], ["follow", "boolean", false], ["shares", "integer 0..", 0], ["invites", "integer 0..", 0]],
  "TaggedUsers": [["changed", "integer 0.."], ["tagged", "integer 0.."]],
};
export const ENUMS = {
};
