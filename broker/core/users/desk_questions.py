"""Questions that customers of a service desk ask again and again, by topic: what is worth an entry of a FAQ. Pure.

Questions are one where their folded texts are (`broker.core.moderation.word_fold`), in which every digit is the same:
other numbers, punctuation, spaces and letters that look alike make no other question.
"""

from __future__ import annotations

from typing import NamedTuple

from broker.core.moderation.word_fold import FOLD

__all__ = ["MAX_QUESTIONS", "CommonQuestion", "CommonQuestions", "question_key"]

MAX_QUESTIONS = 2000
"""Questions of one desk that are counted: a further one takes the place of one that fewest have asked."""
MAX_CUSTOMERS = 100
"""Customers of one question that are counted one by one."""
MAX_KEY = 120
MIN_KEY = 4
"""Shorter ones, yes and thanks, are no questions."""


class CommonQuestion(NamedTuple):
    """A question. ``text``: as ``user`` has asked it first; ``times``: how often it was asked; ``customers``: by how
    many, counted up to `MAX_CUSTOMERS`."""

    topic: str
    text: str
    user: str
    times: int
    customers: frozenset[str]


def question_key(text: str) -> str:
    """Return by what questions are compared; "" = it is too short to be one."""
    folded = "".join("0" if each.isdigit() else each for each in text.translate(FOLD))[:MAX_KEY]
    return folded if len(folded) >= MIN_KEY else ""


class CommonQuestions:
    """Questions of one desk, as often as they were asked since the start."""

    def __init__(self, limit: int = MAX_QUESTIONS) -> None:
        self._limit = limit
        self._found: dict[tuple[str, str], CommonQuestion] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, topic: str, user: str, text: str) -> None:
        """Count what a customer has written. O(questions) where there is room for no other one."""
        key = topic, question_key(text)
        if not key[1]:
            return
        before = self._found.get(key)
        if before is None:
            if len(self._found) >= self._limit:
                del self._found[min(self._found, key=lambda each: self._found[each].times)]
            before = CommonQuestion(topic, text, user, 0, frozenset())
        customers = before.customers if len(before.customers) >= MAX_CUSTOMERS else before.customers | {user}
        self._found[key] = before._replace(times=before.times + 1, customers=customers)

    def most_asked(self, topic: str | None, limit: int) -> list[CommonQuestion]:
        """Return the questions that the most customers have asked more than once, of one topic or all (None)."""
        asked = [each for each in self._found.values() if each.times > 1 and topic in (None, each.topic)]
        return sorted(asked, key=lambda each: (-len(each.customers), -each.times, each.text))[:limit]

    def forget(self, user: str) -> None:
        """Forget the words of a customer who is being erased, and that it has asked."""
        self._found = {
            key: each._replace(customers=each.customers - {user})
            for key, each in self._found.items()
            if each.user != user
        }
