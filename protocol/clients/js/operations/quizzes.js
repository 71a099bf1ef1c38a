// Made by `python .ci/javascript.py` from the tables of the wire; not edited.
/** Operations that a link may call, by role: [number, record of the result]. */
export const OPERATIONS = {
  "quizzes.create": [330, "QuizView"],
  "quizzes.ask": [331, "PollView"],
  "quizzes.answer": [332, "PollVote"],
  "quizzes.close": [333, "PollView"],
  "quizzes.reveal": [334, "PollView"],
  "quizzes.finish": [335, "QuizView"],
  "quizzes.cancel": [336, "QuizView"],
  "quizzes.results": [337, "QuizView"],
  "quizzes.survivors": [338, "SurvivorPage"],
};
export const RECORDS = {
  "PollRevealed": [["option", "integer 0..9"], ["salt", "16 bytes"]],
  "PollTerms": [["title", "characters 1..100"], ["options", "array of 0..10 characters 1..40"], ["open_at_ms", "integer 0.."], ["close_at_ms", "nil or integer 0..", null], ["choices", "integer 1..10", 1], ["changeable", "boolean", false], ["hidden", "boolean", false], ["answer_hash", "nil or SHA-256", null]],
  "PollView": [["state", "name of PollState"], ["terms", "PollTerms"], ["voters", "integer 0.."], ["counts", "array of 0..10 integer 0.."], ["per_mille", "array of 0..10 integer 0..", []], ["answer", "nil or PollRevealed", null]],
  "PollVote": [["options", "array of 0..10 integer 0..9"], ["vote_no", "integer 0.."]],
  "QuizEnd": [["survivors", "integer 0.."], ["each_cents", "integer 0..1000000000000"], ["returned_cents", "integer 0..1000000000000"]],
  "QuizView": [["state", "name of QuizState"], ["title", "characters 1..100"], ["prize_cents", "integer 0..1000000000000"], ["number", "integer 0..100"], ["question", "nil or PollView"], ["survivors", "nil or integer 0.."], ["end", "nil or QuizEnd", null]],
  "SurvivorPage": [["items", "array of 0..1000 user id"], ["next", "nil or text 1..256", null]],
};
export const ENUMS = {
  "PollState": {"1": "scheduled", "2": "open", "3": "closed", "4": "cancelled", "5": "revealed"},
  "QuizState": {"1": "running", "2": "finished", "3": "cancelled"},
};
