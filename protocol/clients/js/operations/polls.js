// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "polls.create": [320, "PollView"],
  "polls.vote": [321, "PollVote"],
  "polls.close": [322, "PollView"],
  "polls.reveal": [323, "PollView"],
  "polls.results": [324, "PollView"],
  "polls.list": [325, "PollPage"],
};
export const RECORDS = {
  "ListedPoll": [["id", "text 1..64"], ["poll", "PollView"]],
  "PollPage": [["items", "array of 0..1000 ListedPoll"], ["next", "nil or text 1..256", null]],
  "PollRevealed": [["option", "integer 0..9"], ["salt", "16 bytes"]],
  "PollTerms": [["title", "characters 1..100"], ["options", "array of 0..10 characters 1..40"], ["open_at_ms", "integer 0.."], ["close_at_ms", "nil or integer 0..", null], ["choices", "integer 1..10", 1], ["changeable", "boolean", false], ["hidden", "boolean", false], ["answer_hash", "nil or SHA-256", null]],
  "PollView": [["state", "name of PollState"], ["terms", "PollTerms"], ["voters", "integer 0.."], ["counts", "array of 0..10 integer 0.."], ["per_mille", "array of 0..10 integer 0..", []], ["answer", "nil or PollRevealed", null]],
  "PollVote": [["options", "array of 0..10 integer 0..9"], ["vote_no", "integer 0.."]],
};
export const ENUMS = {
  "PollState": {"1": "scheduled", "2": "open", "3": "closed", "4": "cancelled", "5": "revealed"},
};
