"""The activities of one room: their times, bounds and what remains of those that have ended."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any

import pytest

from broker.core.commerce.activity import ActivityRefusal, ActivityStep, Fact, Requester, RoomEvent, UserLeft
from broker.core.commerce.room_activities import (
    KEPT_AFTER_END_MS,
    MAX_KEPT_FACTOR,
    MAX_RECALLED,
    ActivityKind,
    AnswerCommand,
    PushCounter,
    RecordBatch,
    RoomActivities,
    Times,
)
from protocol.codes import ErrorCode
from tests.support.activities import viewer
from tests.support.sum_activity import Sum

NOW_MS = 1_790_000_000_000
AHEAD_MS = 40 * 86_400_000
KEY = "sums", "s"


class EndingSum(Sum):
    """A sum that may leave memory some time after it has reached ten."""

    @property
    def removable_at(self) -> int | None:
        return NOW_MS if self.total >= 10 else None


def activities_of(kind: type[Sum] = Sum) -> RoomActivities[int]:
    return RoomActivities({"sums": ActivityKind("sums", kind, 2, 1)})


def at(ms: int) -> Times:
    return Times(NOW_MS + ms, NOW_MS + ms)


def committed(activities: RoomActivities[int], effects: list[Any]) -> list[Any]:
    """Commit what effects make durable, and return all answers."""
    answers: list[Any] = []
    waiting = list(effects)
    while waiting:
        effect = waiting.pop(0)
        if isinstance(effect, RecordBatch):
            waiting += activities.committed(effect.made.key)
        elif isinstance(effect, AnswerCommand):
            answers.append(effect.answer)
    return answers


def test_a_deadline_from_before_the_start_is_not_passed_by_a_clock_that_is_far_ahead() -> None:
    activities = activities_of()
    activities.fold(KEY, [Fact("added", (1,)), Fact("scheduled", (None, NOW_MS + 5000))])
    held = Times(NOW_MS + AHEAD_MS, NOW_MS)
    assert committed(activities, activities.resume(held)) == []
    assert activities.find(*KEY).total == 1
    assert activities.wait_ms == 5000
    new = "sums", "new"
    for amount in (3, -100):
        command = (amount, False)
        assert committed(activities, activities.command(new, command, viewer("ann"), 1, held, creates=True)) == [3]
    later = Times(NOW_MS + AHEAD_MS + 100, NOW_MS + 100)
    committed(activities, activities.due(later))
    assert (activities.find(*KEY).total, activities.find(*new).total) == (1, 4)
    committed(activities, activities.due(Times(NOW_MS + AHEAD_MS + 5000, NOW_MS + 5000)))
    assert activities.find(*KEY).total == 2


def test_a_deadline_that_was_set_while_the_clock_was_held_is_passed_by_that_clock() -> None:
    """Started after a weekend the clock is held for as long; a sale of that morning goes on after another restart."""
    began = activities_of()
    held = Times(NOW_MS + AHEAD_MS, NOW_MS)
    effects = began.command(KEY, (-5000, False), viewer("ann"), 1, held, creates=True)
    assert isinstance(effects[0], RecordBatch)
    activities = activities_of()
    activities.fold(KEY, [Fact("added", (1,)), *effects[0].made.batch.facts], began.times.now_ms)
    activities.fold(("sums", "old"), [Fact("added", (1,)), Fact("scheduled", (None, NOW_MS + 5000))], NOW_MS - 5)
    committed(activities, activities.resume(held))
    committed(activities, activities.due(Times(NOW_MS + AHEAD_MS + 4999, NOW_MS + 4999)))
    assert activities.find(*KEY).total == 1
    committed(activities, activities.due(Times(NOW_MS + AHEAD_MS + 5000, NOW_MS + 4999)))
    assert (activities.find(*KEY).total, activities.find("sums", "old").total) == (2, 1)


def test_ids_of_activities_that_have_ended_are_not_used_again() -> None:
    activities = activities_of(EndingSum)
    assert committed(activities, activities.command(KEY, (10, False), viewer("ann"), 1, at(0), creates=True)) == [10]
    activities.due(at(KEPT_AFTER_END_MS - 1))
    assert activities.keys() == [KEY]
    activities.due(at(KEPT_AFTER_END_MS))
    assert (activities.keys(), activities.wait_ms) == ([], inf)
    assert activities.has_left(KEY)
    for creates, code in ((True, ErrorCode.KEY_REUSED), (False, ErrorCode.UNKNOWN_ACTIVITY)):
        effects = activities.command(KEY, (1, False), viewer("ann"), 2, at(KEPT_AFTER_END_MS + 1), creates=creates)
        (answer,) = committed(activities, effects)
        assert isinstance(answer, ActivityRefusal)
        assert answer.code is code
    folded = activities_of(EndingSum)
    folded.fold(KEY, [Fact("added", (10,))])
    folded.resume(at(KEPT_AFTER_END_MS))
    folded.due(at(KEPT_AFTER_END_MS))
    assert folded.has_left(KEY)
    (answer,) = committed(folded, folded.command(KEY, (1, False), viewer("ann"), 3, at(0), creates=True))
    assert answer.code is ErrorCode.KEY_REUSED


def test_an_ended_activity_is_in_memory_again_for_a_while_where_it_is_asked_for() -> None:
    activities = activities_of(EndingSum)
    names = [f"s{number}" for number in range(MAX_RECALLED + 1)]
    for name in names:
        activities.fold(("sums", name), [Fact("added", (10,))])
    activities.resume(at(KEPT_AFTER_END_MS))
    activities.due(at(KEPT_AFTER_END_MS))
    for name in names:
        key = "sums", name
        assert (activities.has_left(key), activities.read(key, print)) == (True, False)
        recalled = EndingSum(name)
        recalled.apply(Fact("added", (10,)))
        activities.recall(recalled, at(KEPT_AFTER_END_MS + 5))
        assert activities.find(*key) is recalled
        assert committed(activities, activities.command(key, (0, False), viewer("ann"), 1, at(0))) == [10]
    assert activities.has_left(("sums", names[0]))
    assert (activities.views(is_staff=False), activities.own_views("ann")) == (((), 0), ())
    assert activities.keys_of_kind("sums") == []
    effects = activities.command(KEY, (1, False), viewer("ann"), 2, at(0), creates=True)
    assert committed(activities, effects) == [1], "they are not counted among those that a room may have"
    activities.due(at(2 * KEPT_AFTER_END_MS + 4))
    assert len(activities.keys()) == MAX_RECALLED + 1
    activities.due(at(2 * KEPT_AFTER_END_MS + 5))
    assert activities.keys() == [KEY]


def test_what_is_read_is_durable() -> None:
    activities = activities_of()
    found: list[Any] = []

    def read() -> None:
        assert activities.read(KEY, lambda activity: found.append(None if activity is None else activity.total))

    activities.command(KEY, (1, False), viewer("ann"), 1, at(0), creates=True)
    read()
    activities.command(KEY, (5, False), viewer("ann"), 2, at(0))
    assert found == []
    activities.committed(KEY)
    assert found == [1], "the next batch is decided after that"
    read()
    activities.refused(KEY)
    assert found == [1, 1]
    read()
    assert found == [1, 1, 1]
    activities.command(("sums", "new"), (5, False), viewer("ann"), 3, at(0), creates=True)
    assert activities.read(("sums", "new"), found.append)
    activities.refused(("sums", "new"))
    assert found[-1] is None
    assert not activities.read(("sums", "new"), found.append)


@pytest.mark.parametrize("is_seen", [False, True])
def test_nobody_sees_what_the_ledger_has_not_taken(is_seen: bool) -> None:
    activities = activities_of()
    committed(activities, activities.command(KEY, (1, False), viewer("ann"), 1, at(0), creates=True))

    def seen() -> tuple[Any, ...]:
        (view,), _ = activities.views(is_staff=False)
        (own,) = activities.own_views("ann")
        return view.data["total"], own.data["total"], activities.find(*KEY).total

    for outcome, after in ((activities.refused, (1, 1, 1)), (activities.committed, (6, 2, 6))):
        effects = activities.command(KEY, (5, False), viewer("ann"), 2, at(10))
        assert isinstance(effects[0], RecordBatch)
        if is_seen:
            assert seen() == (1, 1, 1)
        outcome(KEY)
        assert seen() == after
    new = "sums", "new"
    activities.command(new, (5, False), viewer("ann"), 3, at(20), creates=True)
    assert (activities.keys(), activities.find(*new)) == ([KEY], None)
    activities.committed(new)
    assert activities.keys() == [KEY, new]


class FollowingSum(Sum):
    """A sum that follows everybody once something was added, and counts who has left."""

    def __init__(self, id: str = "s") -> None:
        super().__init__(id)
        self.left: list[str] = []

    def follows(self, user: str) -> bool:
        return self.total > 0

    def decide(self, command: Any, requester: Requester, ticket: int, now_ms: int) -> ActivityStep[int] | None:
        if isinstance(command, UserLeft):
            self.left.append(requester.user)
            return ActivityStep(answer=self.total)
        return super().decide(command, requester, ticket, now_ms)


def test_an_activity_hears_of_a_user_who_leaves_before_the_ledger_has_answered() -> None:
    activities = RoomActivities[int]({"sums": ActivityKind("sums", FollowingSum, 2, 1, follows_users=True)})
    activities.command(KEY, (5, False), viewer("ann"), 1, at(0), creates=True)
    assert activities.follows("ann")
    activities.user_left("ann", 2, at(1))
    committed(activities, activities.committed(KEY))
    assert activities.find(*KEY).left == ["ann"]


def test_counters_are_pushed_at_most_once_a_second() -> None:
    activities = activities_of()
    pushed: list[int] = []
    for ms in range(0, 5000, 100):
        effects = activities.command(KEY, (1, False), viewer("ann"), ms, at(ms), creates=True)
        waiting = list(effects)
        while waiting:
            effect = waiting.pop(0)
            if isinstance(effect, RecordBatch):
                waiting += activities.committed(effect.made.key)
            elif isinstance(effect, PushCounter):
                pushed.append(ms)
    assert len(pushed) == 5
    assert all(b - a >= 1000 for a, b in pairwise(pushed))


class StrictSum(Sum):
    """A sum whose counters, views and times only one that exists may be asked for."""

    def counter(self) -> RoomEvent | None:
        assert self.exists
        return super().counter()

    def view(self, is_staff: bool) -> Any:
        assert self.exists
        return super().view(is_staff)


def test_what_was_never_created_is_forgotten() -> None:
    activities = activities_of(StrictSum)
    (answer,) = committed(activities, activities.command(KEY, (2000, False), viewer("ann"), 1, at(0), creates=True))
    assert answer.code is ErrorCode.CLOSED
    assert len(activities) == 0


def test_activities_that_have_ended_do_not_count_among_the_open_ones_and_are_bounded_too() -> None:
    activities = activities_of(EndingSum)

    def create(id: str, amount: int) -> Any:
        command = amount, False
        (answer,) = committed(
            activities, activities.command(("sums", id), command, viewer("ann"), 1, at(0), creates=True)
        )
        return answer

    assert [create(id, 1) for id in ("a", "b")] == [1, 1]
    assert create("c", 1).code is ErrorCode.OUT_OF_STATE
    assert [create(id, 9) for id in ("a", "b")] == [10, 10], "they have ended"
    for number in range(2 * MAX_KEPT_FACTOR - 2):
        assert create(f"n{number}", 10) == 10
    assert create("more", 1).code is ErrorCode.OUT_OF_STATE
