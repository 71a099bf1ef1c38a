"""Gifts on their way into the score of a PK: in order, each once, and again where the ledger refuses them."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import booleans, integers, lists, tuples

from broker.core.commerce.activity import ActivityRefusal
from broker.core.commerce.pk import COLLECT_MS, START_MS, Pk
from broker.core.commerce.pk_half import AnswerInvitation, PkHandled, PkMessage, ReceiveMessage, Scored
from broker.core.rooms.pk_scores import RETRY_S, PkScores
from protocol.activities.pk import PkMeasure
from protocol.codes import ErrorCode, Role
from tests.support.activities import ActivityDriver, platform, viewer

LASTS_MS = 60_000
LATER = ActivityRefusal(ErrorCode.OVERLOADED, "the ledger cannot take it now")


def invited(measure: PkMeasure = PkMeasure.GIFTS) -> ActivityDriver:
    driver = ActivityDriver(lambda: Pk("", "b"))
    message = PkMessage("invite", "p", (int(measure), LASTS_MS, driver.now_ms + 30_000))
    driver.ask(ReceiveMessage("a", message), platform)
    return driver


def running(measure: PkMeasure = PkMeasure.GIFTS) -> tuple[ActivityDriver, int]:
    """Return a driver of a PK that runs, and when it has started."""
    driver = invited(measure)
    driver.ask(AnswerInvitation("p", True), viewer("host", Role.HOST))
    driver.pass_time(START_MS)
    return driver, driver.now_ms


def test_gifts_that_come_while_a_command_is_under_way_are_one_command() -> None:
    driver, start = running()
    pk, scores = driver.activity, PkScores()
    for offset, cents in ((1, 10), (2, 20), (3, 40)):
        scores.add(pk, cents, start + offset, offset)
        if offset == 1:
            assert scores.next(pk, 0.0) == Scored(10, start + 1, 1)
        else:
            assert scores.next(pk, 0.0) is None
    scores.answered(PkHandled(), 0.0)
    assert scores.next(pk, 0.0) == Scored(60, start + 3, 3)
    scores.answered(PkHandled(), 0.0)
    assert scores.next(pk, 0.0) is None


def test_what_the_ledger_refuses_is_given_again_before_later_gifts() -> None:
    driver, start = running()
    pk, scores = driver.activity, PkScores()
    scores.add(pk, 10, start, 1)
    assert scores.next(pk, 5.0) is not None
    scores.add(pk, 20, start + 1, 2)
    scores.answered(LATER, 5.0)
    assert scores.retry_at == 5.0 + RETRY_S
    assert scores.next(pk, 5.0 + RETRY_S / 2) is None
    assert scores.next(pk, 5.0 + RETRY_S) == Scored(30, start + 1, 2)


def test_only_gifts_of_its_time_and_that_are_not_counted_yet_are_given() -> None:
    driver, start = running()
    driver.ask(Scored(1000, start, 7), platform)
    pk, scores = driver.activity, PkScores()
    for offset, at_ms in ((6, start), (7, start), (8, start - 1), (9, start + LASTS_MS), (10, start + LASTS_MS - 1)):
        scores.add(pk, 1 << offset, at_ms, offset)
    assert scores.next(pk, 0.0) == Scored(1 << 10, start + LASTS_MS - 1, 10)
    driver.pass_time(LASTS_MS + COLLECT_MS)
    scores.add(pk, 1, start, 11)
    assert not scores.has_waiting


def test_gifts_of_an_invitation_wait_for_its_acceptance() -> None:
    driver = invited()
    pk, scores = driver.activity, PkScores()
    scores.add(pk, 1, driver.now_ms, 1)
    scores.add(pk, 10, driver.now_ms + START_MS, 2)
    assert scores.next(pk, 0.0) is None
    driver.ask(AnswerInvitation("p", True), viewer("host", Role.HOST))
    assert scores.next(pk, 0.0) == Scored(10, driver.now_ms + START_MS, 2)


def test_without_a_pk_of_gifts_nothing_waits() -> None:
    scores = PkScores()
    driver = invited(PkMeasure.LIKES)
    scores.add(None, 1, driver.now_ms, 1)
    scores.add(driver.activity, 1, driver.now_ms, 1)
    assert not scores.has_waiting
    gifts = invited()
    scores.add(gifts.activity, 1, gifts.now_ms, 1)
    assert scores.has_waiting
    assert scores.next(None, 0.0) is None
    assert not scores.has_waiting


@given(
    steps=lists(tuples(integers(1, 2 * LASTS_MS), integers(0, 5)), max_size=20),
    refusals=lists(booleans(), max_size=20),
)
def test_the_score_is_what_the_room_was_liked_between_the_start_and_the_end(
    steps: list[tuple[int, int]], refusals: list[bool]
) -> None:
    """Whenever likes come and the ledger refuses: the timers of the room ask at the times that are returned."""
    driver = invited(PkMeasure.LIKES)
    driver.ask(AnswerInvitation("p", True), viewer("host", Role.HOST))
    pk, scores = driver.activity, PkScores()
    start, end = pk.window
    likes = inside = given_likes = 0
    now, due = driver.now_ms, scores.add_likes(pk, 0, driver.now_ms)

    def ask(at_ms: int) -> None:
        nonlocal due, given_likes
        due = scores.add_likes(pk, likes, at_ms)
        while (command := scores.next(pk, at_ms / 1000)) is not None:
            assert start <= command.at_ms < end
            is_refused = bool(refusals) and refusals.pop()
            scores.answered(LATER if is_refused else PkHandled(), at_ms / 1000)
            given_likes += 0 if is_refused else command.amount

    for ms, count in steps:
        now += ms
        while due is not None and due <= now:
            ask(due)
        likes += count
        inside += count if start <= now < end else 0
    while due is not None:
        ask(due)
    while scores.has_waiting:
        ask(max(now, end) + 1)
        now += round(RETRY_S * 1000)
    assert given_likes == inside
    assert scores.add_likes(pk, likes + 1, end + 1) is None
    assert not scores.has_waiting
