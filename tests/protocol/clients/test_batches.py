"""Must-deliver batches of a client: checked first, split into calls, each sent until it is answered."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from protocol.clients import BatchState, CallRefused, ClientClosed
from protocol.clients.client import core_of
from protocol.codes import ErrorCode, Feature, Opcode
from protocol.connection import Frame
from protocol.errors import LocalProtocolError
from protocol.messages import Call, ErrorReply, Result
from protocol.operations import BY_NUMBER
from protocol.operations.directs import DirectProgress, ProgressRequest, SendManyDirects, SentDirects
from tests.support.peer import Peer, linked, server_hello

KNOWS = server_hello(features=int(Feature.CALL))
CARD = 200
USERS = {f"u{number}": {"code": f"C-{number}"} for number in range(500)}


async def asked(peer: Peer) -> tuple[Frame, SendManyDirects | ProgressRequest]:
    frame = await peer.expect(Opcode.CALL)
    assert isinstance(frame.message, Call)
    assert isinstance(frame.message.operation, int)
    request: SendManyDirects | ProgressRequest = BY_NUMBER[frame.message.operation].read(frame.message.arguments)
    return frame, request


async def part(peer: Peer) -> tuple[Frame, SendManyDirects]:
    frame, request = await asked(peer)
    assert isinstance(request, SendManyDirects)
    return frame, request


def users(request: SendManyDirects) -> set[str]:
    assert request.values is not None
    return set(request.values)


async def answer(peer: Peer, frame: Frame, sent: int = 0, repeated: int = 0, failed: int = 0) -> None:
    await peer.send(Result(81, SentDirects("may", sent, repeated, failed)), 0, frame.sequence)


async def progress(peer: Peer, pending: int) -> None:
    frame, request = await asked(peer)
    assert request == ProgressRequest("may")
    await peer.send(Result(82, DirectProgress("may", pending, 0, 0)), 0, frame.sequence)


async def serve(peer: Peer, known: set[str]) -> None:
    """Answer every part as a broker does, until the question for the state."""
    while True:
        frame, request = await asked(peer)
        if isinstance(request, ProgressRequest):
            await peer.send(Result(82, DirectProgress("may", len(known), 0, 0)), 0, frame.sequence)
            return
        new = users(request) - known
        known |= new
        await answer(peer, frame, len(new), len(users(request)) - len(new))


async def test_a_batch_goes_in_as_many_calls_as_it_needs_and_counts_as_one(autojump_clock: Any) -> None:
    async with linked(hello=KNOWS) as (client, peer, _), trio.open_nursery() as nursery:
        known = {"u3", "u7"}
        nursery.start_soon(serve, peer, known)
        state = await client.send_direct({"text": "{code}"}, USERS, batch="may", type=CARD, expires_s=60)
        assert state == BatchState("may", 498, 2, 500, 0, 0)
        assert known == set(USERS)


async def test_a_part_without_an_answer_is_sent_again_on_the_next_link(autojump_clock: Any) -> None:
    async with linked(hello=KNOWS) as (client, peer, network), trio.open_nursery() as nursery:
        found: list[BatchState] = []
        done = trio.Event()

        async def send() -> None:
            found.append(await client.send_direct("{code}", USERS, batch="may", type=CARD))
            done.set()

        nursery.start_soon(send)
        known: set[str] = set()
        frame, first = await part(peer)
        known |= users(first)
        await answer(peer, frame, len(known))
        _, second = await part(peer)
        known |= users(second)  # committed, and then the broker is killed
        await peer.vanish()
        peer = await network.accept()
        await peer.welcome(KNOWS)
        frame, again = await part(peer)
        assert again == second, "no part that was answered is sent again"
        await answer(peer, frame, 0, len(users(again)))
        await serve(peer, known)
        await done.wait()
        assert found[0].sent + found[0].repeated == 500
        assert found[0].pending == 500
        assert known == set(USERS)


async def test_what_the_ledger_could_not_take_is_sent_again_later(autojump_clock: Any) -> None:
    async with linked(hello=KNOWS) as (client, peer, _), trio.open_nursery() as nursery:

        async def broker() -> None:
            frame, _ = await part(peer)
            await peer.send(ErrorReply(ErrorCode.OVERLOADED, "full", "", 5000), 0, frame.sequence)
            refused_at = trio.current_time()
            frame, _ = await part(peer)
            assert trio.current_time() >= refused_at + 5
            await answer(peer, frame, 1, 0, 1)
            failed_at = trio.current_time()
            frame, _ = await part(peer)
            assert trio.current_time() >= failed_at + 0.5
            await answer(peer, frame, 1, 1, 0)
            await progress(peer, pending=2)

        nursery.start_soon(broker)
        state = await client.send_direct("{code}", {"a": {"code": "1"}, "b": {"code": "2"}}, batch="may", type=CARD)
        assert state == BatchState("may", 2, 0, 2, 0, 0)


@pytest.mark.parametrize(
    ("template", "values", "options", "words"),
    [
        (("{code}",), {"ann": {"code": "1"}, "bob": {}}, {}, "'bob': {code} has no value"),
        (("{code}",), {"ann": {"code": ""}}, {}, "'ann'.*1 to 500 characters"),
        ("{code}", {}, {}, "'u0'.*array"),
        (("x",), {"": {}}, {}, r"directs.send_many.values\[\d+\]"),
        (("x",), {"ann": {"n": "1" * 5000}}, {}, "'ann'"),
        (("x",), {"ann": {}}, {"batch": ""}, r"directs\.send_many\.batch"),
        (("x",), {"ann": {}}, {"expires_s": 0}, r"directs\.send_many\.expires_s"),
    ],
)
async def test_a_fault_anywhere_in_a_batch_sends_nothing_of_it(
    template: Any, values: Any, options: Any, words: str, autojump_clock: Any
) -> None:
    async with linked(hello=KNOWS) as (client, peer, _):
        good = {user: {"code": "x"} for user in USERS}
        with pytest.raises(LocalProtocolError, match=words):
            await client.send_direct(template, good | values, **({"batch": "may"} | options))
        await peer.stream.send_all(b"")
        core_of(client).close(None, "done")
    assert all(frame.opcode is not Opcode.CALL for frame in await peer.rest())


async def test_a_refusal_names_its_reason_and_is_final(autojump_clock: Any) -> None:
    async with linked(hello=KNOWS) as (client, peer, _), trio.open_nursery() as nursery:

        async def refuse() -> None:
            frame, _ = await part(peer)
            await peer.send(ErrorReply(ErrorCode.NOT_ALLOWED, "for the role app"), 0, frame.sequence)

        nursery.start_soon(refuse)
        with pytest.raises(CallRefused, match="role app") as raised:
            await client.send_direct(("x",), {"ann": {}}, batch="may")
        assert raised.value.code == ErrorCode.NOT_ALLOWED


async def test_a_broker_that_does_not_know_batches_is_not_shown_one(autojump_clock: Any) -> None:
    async with linked() as (client, _, _):
        with pytest.raises(LocalProtocolError, match="CALL"):
            await client.batch_state("may")


async def test_every_request_has_a_timeout(autojump_clock: Any) -> None:
    async with linked(hello=KNOWS) as (client, peer, _), trio.open_nursery() as nursery:
        begun = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await client.send_direct(("x",), {"ann": {}}, batch="may", timeout_s=7)
        assert trio.current_time() == pytest.approx(begun + 7)
        assert core_of(client).calls.open_calls == 0
        frame, _ = await part(peer)
        await answer(peer, frame, 1)  # too late: the request has timed out

        async def ask() -> None:
            with pytest.raises(ClientClosed):
                await client.batch_state("may")

        nursery.start_soon(ask)
        await asked(peer)
        await peer.goaway(4410)
    assert client.unexpected_frames == 1
