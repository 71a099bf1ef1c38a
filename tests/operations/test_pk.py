"""PKs over CALL: two rooms of a real broker with a real ledger, their gifts, restarts and ends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.core.commerce import pk
from broker.core.commerce.pk_half import PkMessage
from broker.core.rooms.pk_scores import PkScores
from broker.server import Broker
from protocol.activities import ActivityEvent
from protocol.activities.pk import PkEnded, PkMeasure, PkOutcome, PkPhase, PkStarted
from protocol.clients import StreamEvent, open_client
from protocol.clients.events import CallRefused
from protocol.codes import ErrorCode, MessageType, Outcome
from protocol.messages import Ack
from protocol.payloads import HighlightPayload
from tests.support.api import API, client_of, ok, refused
from tests.support.broker import joined_link
from tests.support.durable import durable_broker
from tests.support.pk import (
    LASTS_MS,
    A,
    B,
    give,
    hosts,
    invited,
    is_in,
    member,
    over,
    refuse,
    result,
    running,
    shorten,
    state_of,
)
from tests.support.until import until

pytestmark = pytest.mark.integration
OTHER = {A: B, B: A}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def scores_in(broker: Broker, room: str) -> tuple[int, int | None]:
    """Return the scores that a room shows: its own and the other one."""
    state = state_of(broker, room)
    return (0, None) if state is None else (state.score, state.other_score)


async def test_two_rooms_compare_the_gifts_of_their_viewers(directory: Path) -> None:
    async with (
        durable_broker(directory) as broker,
        hosts(broker) as (first, second),
        open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", "dev:ann") as ann,
    ):
        room = await ann.join(B)
        await running(broker, first, second)
        for name, amount in ((A, 2), (B, 4), (A, 3)):
            await give(broker, name, amount)
        await until(lambda: scores_in(broker, A)[0] == 500)  # a gift is durable before its score
        async with open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", "dev:bob") as bob:
            snapshot = (await bob.join(A)).snapshot
            assert snapshot is not None
            (view,) = [view.data for view in snapshot.activities if view.kind == "pk"]
            assert (view.id, view.phase, view.score) == ("p", PkPhase.RUNNING, 500)
        await until(lambda: scores_in(broker, A) == (500, 400) and scores_in(broker, B) == (400, 500))
        assert is_in(broker, A, PkPhase.RUNNING), "both scores are shown before the end"
        await over(broker)
        assert await result(broker, A) == (PkOutcome.WON, 500, 400, False)
        assert await result(broker, B) == (PkOutcome.LOST, 400, 500, False)
        seen: list[Any] = []
        with trio.fail_after(10):
            async for event in room:
                if isinstance(event, StreamEvent) and isinstance(event.payload, ActivityEvent):
                    seen.append(event.payload.data)
                    if isinstance(seen[-1], PkEnded):
                        break
        assert [type(each) for each in seen] == [PkStarted, PkEnded]
        assert seen[-1] == PkEnded("p", A, PkOutcome.LOST, 400, 500)


async def test_paid_messages_count_as_gifts(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as http,
        hosts(broker) as (first, second),
    ):
        await running(broker, first, second)
        await give(broker, A, 2)
        paid = HighlightPayload("paid-1", "ann", "Ann", "hello", 700)
        await ok(http, "messages.publish", room=B, type=int(MessageType.HIGHLIGHT), payload=list(paid[:5]))
        await over(broker)
        assert await result(broker, A) == (PkOutcome.LOST, 200, 700, False)
        assert await result(broker, B) == (PkOutcome.WON, 700, 200, False)


async def test_a_pk_of_likes_counts_those_of_its_time_also_over_a_restart(directory: Path) -> None:
    async def like(room: str, count: int) -> None:
        async with joined_link(broker, "dev:ann", room) as (link, number):
            await link.post(number, 1, MessageType.LIKE, (count,))
            while not (results := (await link.expect(Ack))[1].results):
                pass
            assert results[0].outcome is Outcome.ACCEPTED

    async with durable_broker(directory) as broker, hosts(broker) as (first, second):
        await like(A, 15)
        await running(broker, first, second, PkMeasure.LIKES)
        await give(broker, B, 9)
        await like(A, 3)
        await like(B, 4)
        await until(lambda: scores_in(broker, A) == (3, 4))
    async with durable_broker(directory) as broker:
        await like(A, 5)
        await over(broker)
        assert await result(broker, A) == (PkOutcome.WON, 8, 4, False)
        assert await result(broker, B) == (PkOutcome.LOST, 4, 8, False)


async def test_what_is_given_before_and_after_does_not_count_and_equal_scores_are_a_draw(directory: Path) -> None:
    async with durable_broker(directory) as broker, hosts(broker) as (first, second):
        await give(broker, A, 50)
        await running(broker, first, second)
        await give(broker, A, 3)
        await give(broker, B, 3)
        await over(broker)
        await give(broker, B, 50)
        assert await result(broker, A) == (PkOutcome.DRAW, 300, 300, False)
        assert await result(broker, B) == (PkOutcome.DRAW, 300, 300, False)


async def test_without_the_other_score_in_time_it_is_void(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, lambda message: message.kind == "final")
    monkeypatch.setattr(pk, "OTHER_SCORE_MS", 300)
    async with durable_broker(directory) as broker, hosts(broker) as (first, second):
        await running(broker, first, second)
        await give(broker, A, 5)
        await over(broker)
        assert await result(broker, A) == (PkOutcome.VOID, 500, None, False)
        assert (await result(broker, B))[0] is PkOutcome.VOID


async def test_a_restart_in_the_middle_changes_no_score(directory: Path) -> None:
    async with durable_broker(directory) as broker, hosts(broker) as (first, second):
        await running(broker, first, second)
        await give(broker, A, 2)
        await give(broker, B, 1)
    async with durable_broker(directory) as broker:
        await give(broker, B, 4)
        await over(broker)
        assert await result(broker, A) == (PkOutcome.LOST, 200, 500, False)
        assert await result(broker, B) == (PkOutcome.WON, 500, 200, False)


@pytest.mark.parametrize("history_s", [120.0, 0.0])
async def test_gifts_that_were_not_counted_before_the_restart_are_counted_after_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch, history_s: float
) -> None:
    with monkeypatch.context() as patch:
        async with durable_broker(directory, room={"history_s": history_s}) as broker, hosts(broker) as (first, second):
            await running(broker, first, second)
            await give(broker, A, 2)
            await until(lambda: (state := state_of(broker, A)) is not None and state.score == 200)
            patch.setattr(PkScores, "next", lambda self, pk, now: None)
            await give(broker, A, 5)
            await give(broker, B, 6)
    async with durable_broker(directory, room={"history_s": history_s}) as broker:
        await over(broker)
        assert await result(broker, A) == (PkOutcome.WON, 700, 600, False)
        assert await result(broker, B) == (PkOutcome.LOST, 600, 700, False)


@pytest.mark.parametrize("loser", [A, B])
async def test_a_room_that_ends_loses_by_forfeit(directory: Path, loser: str) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http, hosts(broker) as pair:
        await running(broker, *pair)
        await give(broker, loser, 5)
        await ok(http, "rooms.close", room=loser)
        outcome, _, _, is_forfeit = await result(broker, OTHER[loser])
        assert (outcome, is_forfeit) == (PkOutcome.WON, True)


@pytest.mark.parametrize("loser", [A, B])
async def test_a_room_that_gives_up_loses_by_forfeit(directory: Path, loser: str) -> None:
    async with durable_broker(directory) as broker, hosts(broker) as pair:
        await running(broker, *pair)
        await pair[(A, B).index(loser)].call("pk.cancel", room=loser, id="p")
        for room, expected in ((loser, PkOutcome.LOST), (OTHER[loser], PkOutcome.WON)):
            outcome, _, _, is_forfeit = await result(broker, room)
            assert (outcome, is_forfeit) == (expected, True)


@pytest.mark.parametrize("loser", [A, B])
async def test_a_message_that_cannot_be_taken_now_is_sent_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch, loser: str
) -> None:
    tries: Counter[PkMessage] = Counter()

    def before_the_third_time(message: PkMessage) -> bool:
        tries[message] += 1
        return tries[message] < 3

    refuse(monkeypatch, before_the_third_time)
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http, hosts(broker) as pair:
        await running(broker, *pair)
        await ok(http, "rooms.close", room=loser)
        # Its name is used again: its last messages are still sent.
        await ok(http, "rooms.open", room=loser)
        outcome, _, _, is_forfeit = await result(broker, OTHER[loser])
        assert (outcome, is_forfeit) == (PkOutcome.WON, True)
        assert {"invite", "accept"} <= {message.kind for message in tries}
        assert state_of(broker, loser) is None


async def test_an_invitation_is_declined_taken_back_or_to_no_room(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as http,
        hosts(broker) as (first, second),
        member(broker, "ann", A) as ann,
    ):
        await invited(broker, first)
        assert await refused(http, "pk.invite", room=A, id="q", other_room=B) == (409, "OUT_OF_STATE", "room")
        assert await refused(http, "pk.invite", room=A, id="p", other_room=B) == (409, "KEY_REUSED", "id")
        assert await refused(http, "pk.invite", room=A, id="r", other_room=A) == (400, "BAD_FIELD", "other_room")
        assert (await refused(http, "pk.answer", room=B, id="x", accepts=True))[1] == "UNKNOWN_ACTIVITY"
        for name, fields in (
            ("pk.invite", {"id": "q", "other_room": B}),
            ("pk.answer", {"id": "p", "accepts": True}),
            ("pk.cancel", {"id": "p"}),
        ):
            with pytest.raises(CallRefused) as caught:
                await ann.call(name, room=A, **fields)
            assert caught.value.code == ErrorCode.NOT_ALLOWED, name
        assert (await second.call("pk.answer", room=B, id="p", accepts=False)).outcome is PkOutcome.DECLINED
        await until(lambda: state_of(broker, A) is None)
        again = await ok(http, "pk.invite", room=A, id="p", other_room=B, duration_ms=LASTS_MS)
        assert (again["phase"], again["outcome"]) == ("idle", "declined")
        await ok(http, "pk.invite", room=A, id="q", other_room=B)
        await until(lambda: is_in(broker, B, PkPhase.INVITED))
        assert (await ok(http, "pk.cancel", room=A, id="q"))["outcome"] == "cancelled"
        await until(lambda: state_of(broker, B) is None)
        assert (await refused(http, "pk.answer", room=B, id="q", accepts=True))[1] == "CANCELLED"
        await ok(http, "pk.invite", room=A, id="r", other_room="no-room")
        await until(lambda: state_of(broker, A) is None)
        assert (await ok(http, "pk.cancel", room=A, id="r"))["outcome"] == "declined"
