"""Operations on polls and quizzes: over HTTP and CALL, with a ledger, webhooks and a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.operations.caller import OperationError
from broker.server import Broker
from protocol.activities.polls import PollVote, answer_hash
from protocol.clients import CallRefused, Client, open_client
from protocol.codes import ErrorCode
from protocol.json_values import as_json
from protocol.operations import BY_NAME
from tests.support.api import API, client_of, ok, refused
from tests.support.durable import durable_broker
from tests.support.receiver import receiver
from tests.support.tenants import backend
from tests.support.tokens import SECRET
from tests.support.until import until
from tests.support.webhooks import events_of, hook_settings

pytestmark = pytest.mark.integration

POLL: dict[str, Any] = {"room": "live-1", "id": "p", "title": "Which colour?", "options": ["red", "blue"]}
QUIZ: dict[str, Any] = {"room": "live-1", "id": "q", "title": "Last one standing", "prize_cents": 1001}
SALT = "00" * 16
LATER_MS = 600_000
END_OF_TIME_MS = 4_102_444_800_000


@asynccontextmanager
async def member(broker: Broker, user: str) -> AsyncIterator[Client]:
    async with open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", f"dev:{user}") as client:
        await client.join("live-1")
        yield client


async def code_of(client: Client, name: str, **fields: Any) -> ErrorCode:
    """Call an operation that must be refused and return the code."""
    with pytest.raises(CallRefused) as caught:
        await client.call(name, room="live-1", **fields)
    return ErrorCode(caught.value.code)


def question(broker: Broker, number: int, option: int) -> dict[str, Any]:
    close_at_ms = broker.clock.now_ms() + LATER_MS
    return {
        "room": "live-1", "id": "q", "number": number, "title": "Which?", "options": ["a", "b"],
        "close_at_ms": close_at_ms, "answer_hash": answer_hash(SALT, option),
    }  # fmt: skip


async def test_a_poll_counts_one_vote_a_user_over_repeats_and_a_restart(directory: Path) -> None:
    async with receiver() as shop:
        hooks = hook_settings(directory, shop.url, "poll.*")
        async with (
            durable_broker(directory, api=API, webhooks=hooks) as broker,
            client_of(broker) as http,
            member(broker, "ann") as ann,
            member(broker, "bob") as bob,
        ):
            created = await ok(http, "polls.create", **POLL, changeable=True)
            assert (created["state"], created["counts"]) == ("open", [0, 0])
            assert await ok(http, "polls.create", **POLL, changeable=True) == created
            assert await refused(http, "polls.create", **POLL) == (409, "KEY_REUSED", "id")
            for client, options, key, vote in (
                (ann, (0,), "a", PollVote((0,), 1)), (ann, (0,), "a", PollVote((0,), 1)),
                (bob, (1,), "b", PollVote((1,), 1)), (bob, (0,), "c", PollVote((0,), 2)),
            ):  # fmt: skip
                assert await client.call("polls.vote", room="live-1", id="p", options=options, key=key) == vote
            assert await code_of(ann, "polls.vote", id="p", options=(1,), key="a") is ErrorCode.KEY_REUSED
        async with (
            durable_broker(directory, api=API, webhooks=hooks) as broker,
            client_of(broker) as http,
            member(broker, "bob") as bob,
        ):
            again = await bob.call("polls.vote", room="live-1", id="p", options=(1,), key="b")
            assert again == PollVote((1,), 1), "the first answer of this key"
            assert (await bob.call("polls.results", room="live-1", id="p")).counts == (2, 0)
            closed = await ok(http, "polls.close", room="live-1", id="p")
            assert (closed["state"], closed["voters"], closed["per_mille"]) == ("closed", 2, [1000, 0])
            assert await ok(http, "polls.close", room="live-1", id="p") == closed
            assert await code_of(bob, "polls.vote", id="p", options=(1,)) is ErrorCode.CLOSED
            listed = await ok(http, "polls.list", room="live-1")
            assert [(each["id"], each["poll"]) for each in listed["items"]] == [("p", closed)]
            await until(lambda: len(events_of(shop)) == 1)
            assert events_of(shop)[0]["data"] == {"poll": "p", "voters": 2, "counts": [2, 0], "per_mille": [1000, 0]}


async def test_refusals_of_polls_name_the_code_and_change_nothing(directory: Path) -> None:
    async with (
        durable_broker(directory, api=API) as broker,
        client_of(broker) as http,
        member(broker, "ann") as ann,
        member(broker, "bob") as bob,  # votes have a rate for each user
        member(broker, "eve:guest") as guest,
    ):
        now_ms = broker.clock.now_ms()
        for fields, field in (
            ({"options": ["one"]}, "options"), ({"options": ["x"] * 11}, "options"), ({"choices": 3}, "choices"),
            ({"choices": 0}, "choices"), ({"close_at_ms": 1}, "close_at_ms"), ({"answer_hash": "x"}, "answer_hash"),
            ({"answer_hash": answer_hash(SALT, 1)}, "close_at_ms"), ({"id": ""}, "id"),
            ({"eligibility": {"keyword": "go"}}, "eligibility.keyword"),
        ):  # fmt: skip
            assert await refused(http, "polls.create", **POLL | fields) == (400, "BAD_FIELD", field), fields
        assert (await ok(http, "polls.list", room="live-1"))["items"] == []
        assert (await refused(http, "polls.close", room="live-1", id="p"))[1] == "UNKNOWN_ACTIVITY"
        assert await refused(http, "polls.vote", room="live-1", id="p", options=[0]) == (
            403, "NOT_ALLOWED", "operation",
        )  # fmt: skip
        assert await code_of(ann, "polls.create", id="p", title="Mine?", options=("a", "b")) is ErrorCode.NOT_ALLOWED
        await ok(http, "polls.create", **POLL)
        for options in ((), (0, 0), (0, 1), (2,)):
            assert await code_of(ann, "polls.vote", id="p", options=options) is ErrorCode.BAD_FIELD, options
        assert await code_of(guest, "polls.vote", id="p", options=(0,)) is ErrorCode.NOT_ALLOWED
        await ann.call("polls.vote", room="live-1", id="p", options=(0,))
        assert await code_of(ann, "polls.vote", id="p", options=(1,)) is ErrorCode.ALREADY_HAVE
        for name, more in (("polls.close", {}), ("polls.reveal", {"option": 0, "salt": SALT})):
            assert await code_of(ann, name, id="p", **more) is ErrorCode.NOT_ALLOWED, name
        reveal: dict[str, Any] = {"room": "live-1", "id": "p", "option": 0, "salt": SALT}
        assert await refused(http, "polls.reveal", **reveal) == (409, "OUT_OF_STATE", "id")
        later = {"id": "later", "open_at_ms": now_ms + LATER_MS}
        await ok(http, "polls.create", **POLL | later)
        assert await code_of(bob, "polls.vote", id="later", options=(0,)) is ErrorCode.NOT_OPEN
        assert (await ok(http, "polls.close", room="live-1", id="later"))["state"] == "cancelled"
        assert await code_of(bob, "polls.vote", id="later", options=(0,)) is ErrorCode.CANCELLED
        quiz = {"id": "quiz", "close_at_ms": END_OF_TIME_MS, "answer_hash": answer_hash(SALT, 1)}
        await ok(http, "polls.create", **POLL | quiz)
        reveal["id"] = "quiz"
        assert await refused(http, "polls.reveal", **reveal | {"option": 1}) == (409, "OUT_OF_STATE", "id")
        await ok(http, "polls.close", room="live-1", id="quiz")
        assert await refused(http, "polls.reveal", **reveal) == (400, "BAD_FIELD", "option")
        revealed = await ok(http, "polls.reveal", **reveal | {"option": 1})
        assert (revealed["state"], revealed["answer"]) == ("revealed", {"option": 1, "salt": SALT})
        assert await ok(http, "polls.reveal", **reveal | {"option": 1}) == revealed
        await ok(http, "rooms.set_phase", room="live-1", phase="paused")
        assert await code_of(bob, "polls.vote", id="p", options=(0,)) is ErrorCode.ROOM_PAUSED
        assert (await ok(http, "polls.results", room="live-1", id="p"))["counts"] == [1, 0]
        await ok(http, "rooms.close", room="live-1")
        assert (await refused(http, "polls.create", **POLL | {"id": "new"}))[1] == "ROOM_ENDED"


async def test_the_last_ones_of_a_quiz_share_its_prize_also_after_a_restart(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        created = await ok(http, "quizzes.create", **QUIZ)
        assert await ok(http, "quizzes.create", **QUIZ) == created
        assert await refused(http, "quizzes.create", **QUIZ | {"prize_cents": 1}) == (409, "KEY_REUSED", "id")
        first = question(broker, 1, 1)
        assert (await refused(http, "quizzes.ask", **first | {"number": 2}))[1] in ("OUT_OF_STATE", "BAD_FIELD")
        asked = await ok(http, "quizzes.ask", **first)
        assert await ok(http, "quizzes.ask", **first) == asked
        async with member(broker, "ann") as ann, member(broker, "bob") as bob, member(broker, "cem") as cem:
            for client, option in ((ann, 1), (bob, 1), (cem, 0)):
                fields: dict[str, Any] = {"room": "live-1", "id": "q", "number": 1, "option": option}
                vote = await client.call("quizzes.answer", key="k", **fields)
                assert await client.call("quizzes.answer", key="k", **fields) == vote == PollVote((option,), 1)
            assert await code_of(cem, "quizzes.answer", id="q", number=1, option=1) is ErrorCode.ALREADY_HAVE
            for name, more in (
                ("quizzes.create", {"id": "mine", "title": "Mine"}), ("quizzes.close", {"id": "q", "number": 1}),
                ("quizzes.finish", {"id": "q"}), ("quizzes.cancel", {"id": "q"}), ("quizzes.survivors", {"id": "q"}),
            ):  # fmt: skip
                assert await code_of(ann, name, **more) is ErrorCode.NOT_ALLOWED, name
    reveal: dict[str, Any] = {"room": "live-1", "id": "q", "number": 1, "option": 1, "salt": SALT}
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        assert (await refused(http, "quizzes.reveal", **reveal))[1] == "OUT_OF_STATE"
        assert (await ok(http, "quizzes.close", room="live-1", id="q", number=1))["counts"] == [1, 2]
        assert await refused(http, "quizzes.reveal", **reveal | {"option": 0}) == (400, "BAD_FIELD", "option")
        await ok(http, "quizzes.reveal", **reveal)
        assert (await ok(http, "quizzes.survivors", room="live-1", id="q"))["items"] == ["ann", "bob"]
        await ok(http, "quizzes.ask", **question(broker, 2, 0))
        async with member(broker, "cem") as cem, member(broker, "ann") as ann:
            assert await code_of(cem, "quizzes.answer", id="q", number=2, option=0) is ErrorCode.NOT_ELIGIBLE
            await ann.call("quizzes.answer", room="live-1", id="q", number=2, option=0)
        assert (await refused(http, "quizzes.finish", room="live-1", id="q"))[1] == "OUT_OF_STATE"
        await ok(http, "quizzes.close", room="live-1", id="q", number=2)
        await ok(http, "quizzes.reveal", **reveal | {"number": 2, "option": 0})
        finished = await ok(http, "quizzes.finish", room="live-1", id="q")
        assert finished["end"] == {"survivors": 1, "each_cents": 1001, "returned_cents": 0}
        assert await ok(http, "quizzes.finish", room="live-1", id="q") == finished
        assert (await refused(http, "quizzes.cancel", room="live-1", id="q"))[1] == "CLOSED"
        assert (await ok(http, "quizzes.results", room="live-1", id="q"))["end"] == finished["end"]
        for fields, field in (
            ({"prize_cents": -1}, "prize_cents"),
            ({"prize_cents": 10**13}, "prize_cents"),
            ({"title": ""}, "title"),
        ):
            assert await refused(http, "quizzes.create", **QUIZ | {"id": "new"} | fields) == (400, "BAD_FIELD", field)
        async with member(broker, "host:host") as host:
            assert await code_of(host, "quizzes.create", id="new", title="Mine", prize_cents=1) is ErrorCode.NOT_ALLOWED


async def test_polls_and_quizzes_of_a_tenant_are_not_those_of_another(directory: Path) -> None:
    tenants = [{"name": "acme"}, {"name": "globex"}]
    async with durable_broker(directory, auth={"secret": SECRET}, tenants=tenants) as broker:

        async def invoke(tenant: str, name: str, **request: Any) -> Any:
            result, _ = await broker.operations.call(backend(tenant), BY_NAME[name], request)
            return result

        await invoke("acme", "polls.create", **POLL)
        await invoke("acme", "quizzes.create", **QUIZ)
        for name, id in (
            ("polls.results", "p"), ("polls.close", "p"), ("quizzes.results", "q"), ("quizzes.finish", "q"),
            ("quizzes.cancel", "q"), ("quizzes.survivors", "q"),
        ):  # fmt: skip
            with pytest.raises(OperationError) as caught:
                await invoke("globex", name, room="live-1", id=id)
            assert caught.value.code is ErrorCode.UNKNOWN_ROOM, name
        assert as_json((await invoke("acme", "polls.results", room="live-1", id="p")).state) == "open"
        assert as_json((await invoke("acme", "quizzes.results", room="live-1", id="q")).state) == "running"
