"""Common questions: alike texts are one, the bound holds, and the most frequent are kept."""

from __future__ import annotations

from broker.core.users.desk_questions import CommonQuestions, question_key


def test_alike_texts_are_one_question_and_short_ones_are_none() -> None:
    assert question_key("Where is parcel 17?") == question_key("WHERE  is parcel 20 !!")
    assert question_key("Where is my refund?") != question_key("Where is my parcel?")
    assert question_key("ok") == ""


def test_the_bound_holds_and_what_many_ask_stays() -> None:
    questions = CommonQuestions(limit=3)
    for user in ("ann", "bob"):
        questions.add("orders", user, "Where is my parcel?")
    letters = "abcdefghij"
    for letter in letters:
        questions.add("orders", "cem", letter * 6 + " question")
    assert len(questions) == 3
    (found,) = questions.most_asked(None, 10)
    assert (found.text, found.times, found.customers) == ("Where is my parcel?", 2, {"ann", "bob"})
    assert questions.most_asked("other", 10) == []
    questions.forget("ann")
    assert questions.most_asked(None, 10) == []
