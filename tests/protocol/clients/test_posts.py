"""Posts of a client against a scripted broker: each has one result, within its timeout."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from protocol.clients import Fault, PostDecided, PostResult
from protocol.clients.posts import LIMITED_RETRIES
from protocol.clients.room_posts import RoomPosts
from protocol.codes import ErrorCode, LeaveReason, MessageType, Opcode, Outcome, RoomPhase
from protocol.errors import LocalProtocolError
from protocol.messages import Ack, AckReason, AckResult, ErrorReply, Left, Post, Resumed
from protocol.payloads import GiftPayload
from tests.support.peer import Posting, Running, join, joined, linked, quiet, take_until

RESULTS = [
    (Outcome.ACCEPTED, 0, {}),
    (Outcome.MERGED, 0, {}),
    (Outcome.SAMPLED_OUT, 0, {}),
    (Outcome.LIMITED, 800, {"retry_after_ms": 800}),
    (Outcome.UNAVAILABLE, 800, {"retry_after_ms": 800}),
    (Outcome.HELD, 0, {}),
    (Outcome.REJECTED, int(ErrorCode.DUPLICATE_TEXT), {"error_code": 204}),
    (Outcome.EXPIRED, 0, {}),
]


@pytest.mark.parametrize(("outcome", "detail", "fields"), RESULTS)
async def test_every_outcome_is_reported(
    outcome: Outcome, detail: int, fields: dict[str, int], autojump_clock: Any
) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        posting = Posting(nursery, room, "好看", style=(0, 0xFF0000, 1))
        post = await peer.expect(Opcode.POST)
        assert isinstance(post.message, Post)
        key = post.message.client_msg_id
        assert post.room == 3
        assert post.message == Post(1, key, ("好看", (0, 0xFF0000, 1)))
        await peer.ack(post, outcome, detail)
        assert await posting.wait_result() == PostResult(outcome, key, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "fields"),
    [(Outcome.ACCEPTED, {"offset": 7}), (Outcome.REJECTED, {"error_code": 207, "message": "rude"})],
)
async def test_the_decision_about_a_held_message_is_an_event(
    outcome: Outcome, fields: dict[str, Any], autojump_clock: Any
) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        events = client.events()
        posting = Posting(nursery, room, "好看")
        post = await peer.expect(Opcode.POST)
        await peer.ack(post, Outcome.HELD)
        held = await posting.wait_result()
        assert held is not None
        assert held.outcome is Outcome.HELD
        detail = 7 if outcome is Outcome.ACCEPTED else 207
        reasons = () if outcome is Outcome.ACCEPTED else (AckReason(post.sequence, "rude"),)
        for _ in range(2):  # the second one is not expected
            await peer.send(Ack((AckResult(post.sequence, outcome, detail),), (), reasons), post.room)
        decided = await take_until(events, PostDecided)
        assert decided.result == PostResult(outcome, held.client_msg_id, **fields)
        await trio.testing.wait_all_tasks_blocked()
        assert client.unexpected_frames == 1


async def test_an_accepted_event_reports_its_offset(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        results: list[PostResult] = []

        async def announce() -> None:
            results.append(await room.post_announcement("welcome"))

        nursery.start_soon(announce)
        await peer.ack(await peer.expect(Opcode.POST), Outcome.ACCEPTED, 42)
        await trio.testing.wait_all_tasks_blocked()
        assert results[0].offset == 42


async def test_acks_find_their_posts_in_any_order(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        postings, frames = [], []
        for index in range(5):
            postings.append(Posting(nursery, room, f"text {index}"))
            frames.append(await peer.expect(Opcode.POST))
        details = [500, 400, 300, 200, 100]
        results = [AckResult(f.sequence, Outcome.LIMITED, d) for f, d in zip(frames, details, strict=True)]
        await peer.send(Ack(tuple(results[3:])), 3)
        await peer.send(Ack(tuple(reversed(results[:3]))), 3)
        assert [(await posting.wait_result()).retry_after_ms for posting in postings] == details


async def test_an_error_answers_a_post_too(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        for code, outcome in ((ErrorCode.BAD_FIELD, Outcome.REJECTED), (ErrorCode.RATE_LIMITED, Outcome.LIMITED)):
            posting = Posting(nursery, room)
            post = await peer.expect(Opcode.POST)
            await peer.send(ErrorReply(code, "no", "payload.text", 90), 3, post.sequence)
            result = await posting.wait_result()
            assert (result.outcome, result.error_code, result.field) == (outcome, code, "payload.text")
            assert (result.message, result.retry_after_ms) == ("no", 90)


async def test_an_error_without_a_request_is_an_event(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        await peer.send(ErrorReply(999, "future"), 0, 4242)
        assert await take_until(client.events(), Fault) == Fault(999, "future", "", 0)


@pytest.mark.parametrize(
    ("text", "style", "words"),
    [
        ("", None, r"POST\.payload\.text: .*1 to 100"),
        ("x" * 101, None, r"POST\.payload\.text"),
        ("bell\x07", None, "control characters"),
        ("ok", (9, 0, 0), r"POST\.payload\.style"),
    ],
)
async def test_a_bad_post_is_refused_here(text: str, style: Any, words: str, autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        with pytest.raises(LocalProtocolError, match=words):
            await room.post_danmaku(text, style)
        await quiet(peer)


async def test_a_post_that_is_never_answered_ends_with_its_deadline(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        posting = Posting(nursery, room, timeout_s=4)
        post = await peer.expect(Opcode.POST)
        result = await posting.wait_result()
        assert result.is_lost
        assert result.sent
        await peer.ack(post, Outcome.ACCEPTED)
        await trio.testing.wait_all_tasks_blocked()
        assert client.unexpected_frames == 1


async def test_a_post_to_a_crashed_room_is_posted_again_after_the_rejoin(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        posting = Posting(nursery, room, retry=True)
        post = await peer.expect(Opcode.POST)
        refusal = ErrorReply(ErrorCode.NOT_JOINED, "join the room first", "room", 0)
        crash = peer.connection.send(Left(LeaveReason.ROOM_CRASHED), 3)
        await peer.send_bytes(crash + peer.connection.send(refusal, 3, post.sequence))
        frame, _ = await peer.expect_resume()
        await peer.send(Resumed(True, 1, joined()), 4, frame.sequence)
        again = await peer.expect(Opcode.POST)
        assert again.message == post.message
        await peer.ack(again, Outcome.ACCEPTED)
        assert (await posting.wait_result()).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("link_ends", [False, True])
async def test_a_post_before_a_leave_is_still_answered_after_it(link_ends: bool, autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        posting = Posting(nursery, room)
        post = await peer.expect(Opcode.POST)
        nursery.start_soon(room.leave)
        leave = await peer.expect(Opcode.LEAVE)
        await peer.send(Left(LeaveReason.REQUESTED), 3, leave.sequence)
        await trio.sleep(1)
        assert client.rooms == {}
        if link_ends:
            await peer.vanish()
            assert (await posting.wait_result()).is_lost
            return
        await peer.ack(post, Outcome.SAMPLED_OUT)
        assert (await posting.wait_result()).outcome is Outcome.SAMPLED_OUT


async def test_message_ids_differ(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        ids = set()
        for _ in range(3):
            Posting(nursery, room, timeout_s=1)
            post = (await peer.expect(Opcode.POST)).message
            assert isinstance(post, Post)
            ids.add(post.client_msg_id)
        assert len(ids) == 3


# ---- LIMITED


GIFT = GiftPayload("o-1", "u2", "Bo", "rose", 3, 100)


def keyed_posts() -> dict[str, Callable[[RoomPosts], Awaitable[PostResult]]]:
    """Every post with a key: of the application, or the order id of a gift."""
    return {
        "danmaku": lambda room: room.post_danmaku("hi", client_msg_id="m1"),
        "announcement": lambda room: room.post_announcement("hi", client_msg_id="m1"),
        "phase": lambda room: room.set_phase(RoomPhase.PAUSED, client_msg_id="m1"),
        "custom": lambda room: room.post(200, {"sku": 5}, client_msg_id="m1"),
        "gift": lambda room: room.post_gift("o-1", "u2", "rose", count=3, price_cents=100, name="Bo"),
        "highlight": lambda room: room.post_highlight("o-1", "u2", "hello", cents=500, name="Bo"),
        "gift as a payload": lambda room: room.post(MessageType.GIFT, GIFT),
    }


@pytest.mark.parametrize("outcome", [Outcome.LIMITED, Outcome.UNAVAILABLE])
@pytest.mark.parametrize("name", keyed_posts())
async def test_a_post_with_a_key_is_posted_again_after_the_wait(
    name: str, outcome: Outcome, autojump_clock: Any
) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        posting = Running(nursery, room, keyed_posts()[name])
        first = await peer.expect(Opcode.POST)
        await peer.ack(first, outcome, 700)
        limited_at = trio.current_time()
        second = await peer.expect(Opcode.POST)
        assert 0.7 <= trio.current_time() - limited_at < 0.8
        await peer.send(ErrorReply(ErrorCode.RATE_LIMITED, "no", "", 2500), 3, second.sequence)
        limited_at = trio.current_time()
        third = await peer.expect(Opcode.POST)
        assert 2.5 <= trio.current_time() - limited_at < 2.8
        await peer.ack(third, Outcome.ACCEPTED, 9)
        result = await posting.wait_result()
        assert (result.outcome, result.offset) == (Outcome.ACCEPTED, 9)
        assert first.message == second.message == third.message, "the same key and content each time"


async def test_a_limited_post_is_repeated_a_bounded_number_of_times(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        posting = Running(nursery, room, lambda room: room.post(MessageType.GIFT, GIFT, timeout_s=1000))
        for _ in range(LIMITED_RETRIES + 1):
            await peer.ack(await peer.expect(Opcode.POST), Outcome.LIMITED, 100)
        result = await posting.wait_result()
        assert (result.outcome, result.retry_after_ms) == (Outcome.LIMITED, 100)
        await quiet(peer)


@pytest.mark.parametrize("wait_ms", [5000, 86_400_000])
async def test_a_wait_beyond_the_timeout_is_not_waited(wait_ms: int, autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        start = trio.current_time()
        posting = Running(nursery, room, lambda room: room.post(MessageType.GIFT, GIFT, timeout_s=4))
        await peer.ack(await peer.expect(Opcode.POST), Outcome.LIMITED, wait_ms)
        result = await posting.wait_result()
        assert (result.outcome, result.retry_after_ms) == (Outcome.LIMITED, wait_ms)
        assert trio.current_time() == start


async def test_a_link_lost_during_the_wait_gives_an_unknown_result_or_a_repetition(autojump_clock: Any) -> None:
    async with linked() as (client, peer, network), trio.open_nursery() as nursery:
        room = await join(client, peer)
        once = Running(nursery, room, lambda room: room.post(MessageType.GIFT, GIFT))
        await peer.ack(await peer.expect(Opcode.POST), Outcome.LIMITED, 900)
        again = Running(nursery, room, lambda room: room.post(MessageType.GIFT, GIFT, retry=True))
        await peer.ack(await peer.expect(Opcode.POST), Outcome.LIMITED, 900)
        await peer.vanish()
        assert await once.wait_result() == PostResult(None, (await once.wait_result()).client_msg_id, sent=False), (
            "LIMITED was a refusal"
        )
        peer = await network.accept()
        await peer.welcome()
        frame, _ = await peer.expect_resume()
        await peer.send(Resumed(True, 1, joined()), 4, frame.sequence)
        await peer.ack(await peer.expect(Opcode.POST), Outcome.ACCEPTED, 1)
        assert (await again.wait_result()).outcome is Outcome.ACCEPTED


# ---- typed posts


async def test_a_gift_and_a_phase_have_calls_of_their_own(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = await join(client, peer)
        gift = keyed_posts()["gift"]
        for call, payload in ((gift, GIFT), (lambda room: room.set_phase(RoomPhase.PAUSED), (RoomPhase.PAUSED,))):
            posting = Running(nursery, room, call)
            post = await peer.expect(Opcode.POST)
            assert isinstance(post.message, Post)
            assert post.message.payload == payload
            await peer.ack(post, Outcome.ACCEPTED, 1)
            assert (await posting.wait_result()).offset == 1


@pytest.mark.parametrize("bad", [{"order_id": ""}, {"price_cents": -1}, {"count": 0}, {"target": "x" * 65}])
async def test_a_bad_gift_is_refused_here(bad: dict[str, Any], autojump_clock: Any) -> None:
    async with linked() as (client, peer, _):
        room = await join(client, peer)
        good: dict[str, Any] = {"order_id": "o-1", "user_id": "u2", "gift_id": "rose", "price_cents": 100}
        with pytest.raises(LocalProtocolError, match=rf"payload\.{next(iter(bad))}"):
            await room.post_gift(**(good | bad))
        await quiet(peer)


# ---- without joining


async def test_a_room_can_be_posted_to_without_joining_it(autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        room = client.room("lobby")
        posting = Running(nursery, room, lambda room: room.post_gift("o-1", "u2", "rose", price_cents=100))
        post = await peer.expect(Opcode.POST)
        assert isinstance(post.message, Post)
        assert (post.room, post.message.room_name) == (0, "lobby")
        await peer.ack(post, Outcome.LIMITED, 400)
        again = await peer.expect(Opcode.POST)
        assert (again.room, again.message) == (0, post.message)
        await peer.ack(again, Outcome.ACCEPTED, 7)
        assert (await posting.wait_result()).offset == 7
        assert client.rooms == {}


@pytest.mark.parametrize("retry", [False, True])
async def test_a_post_without_joining_over_a_lost_link(retry: bool, autojump_clock: Any) -> None:
    async with linked() as (client, peer, network), trio.open_nursery() as nursery:
        posting = Running(nursery, client.room("lobby"), lambda room: room.post(MessageType.GIFT, GIFT, retry=retry))
        post = await peer.expect(Opcode.POST)
        await peer.vanish()
        if not retry:
            assert (await posting.wait_result()).is_lost
            return
        peer = await network.accept()
        await peer.welcome()
        again = await peer.expect(Opcode.POST)
        assert again.message == post.message
        await peer.ack(again, Outcome.ACCEPTED, 1)
        assert (await posting.wait_result()).offset == 1


@pytest.mark.parametrize("code", [ErrorCode.NOT_JOINED, ErrorCode.ROOM_NOT_GRANTED])
async def test_a_refusal_without_joining_is_final(code: ErrorCode, autojump_clock: Any) -> None:
    async with linked() as (client, peer, _), trio.open_nursery() as nursery:
        posting = Running(nursery, client.room("lobby"), lambda room: room.post(MessageType.GIFT, GIFT, retry=True))
        post = await peer.expect(Opcode.POST)
        await peer.send(ErrorReply(code, "no", "room"), 0, post.sequence)
        result = await posting.wait_result()
        assert (result.outcome, result.error_code) == (Outcome.REJECTED, code)
        with pytest.raises(LocalProtocolError, match="room_name"):
            client.room("no spaces")
