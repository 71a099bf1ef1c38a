"""Figures of a service desk by topic, of the conversations that it keeps. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from broker.core.users.desk_records import DeskState, SlaAlarm
from broker.core.users.service_desk import ServiceDesk

__all__ = ["TopicFigures", "topic_figures"]


class TopicFigures(NamedTuple):
    """Figures of a topic. ``late``: conversations that have exceeded a time; ``ratings``: those given; ``first_ms``:
    office hours until a human has answered first, ordered."""

    topic: str
    conversations: int
    queued: int
    unresolved: int
    transfers: int
    late: int
    ratings: tuple[int, ...]
    first_ms: tuple[int, ...]

    def first_response_ms(self, percent: int) -> int | None:
        """Return what that share of the first answers has taken at most (nearest rank); None = there are none."""
        if not self.first_ms:
            return None
        return self.first_ms[max(0, -(-len(self.first_ms) * percent // 100) - 1)]

    @property
    def rating_hundredths(self) -> int | None:
        """The average rating in hundredths, rounded down; None = there is none."""
        return 100 * sum(self.ratings) // len(self.ratings) if self.ratings else None


def topic_figures(desk: ServiceDesk, topics: Iterable[str]) -> list[TopicFigures]:
    """Return the figures of these topics and of others that conversations have, ordered. O(conversations)."""
    found: dict[str, list[list[int]]] = {topic: [[], [], [], [], [], [], []] for topic in topics}
    for row in desk:
        lists = found.setdefault(row.topic, [[], [], [], [], [], [], []])
        first_ms = desk.first_response_ms(row)
        for values, value in zip(
            lists,
            (
                1, row.state is DeskState.QUEUED, row.state is not DeskState.RESOLVED, row.transfers,
                row.alarms is not SlaAlarm.NONE, row.rating or None, first_ms,
            ),
            strict=True,
        ):  # fmt: skip
            if value is not None:
                values.append(value)
    return [_figures(topic, found[topic]) for topic in sorted(found)]


def _figures(topic: str, lists: Sequence[Sequence[int]]) -> TopicFigures:
    *counts, ratings, first_ms = lists
    conversations, queued, unresolved, transfers, late = map(sum, counts)
    return TopicFigures(
        topic, conversations, queued, unresolved, transfers, late, tuple(ratings), tuple(sorted(first_ms))
    )
