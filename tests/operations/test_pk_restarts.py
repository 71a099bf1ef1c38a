"""PKs over kill -9: between the facts of both rooms, and while gifts come in; and PKs of other tenants."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.core.commerce.pk_half import PkMessage
from broker.core.tenants.names import qualify
from broker.ledger import Reader
from broker.operations.caller import OperationError
from broker.rooms.room_history import stored_events
from broker.server import Broker
from protocol.activities.pk import PkOutcome, PkPhase
from protocol.codes import ErrorCode, MessageType
from protocol.operations import BY_NAME
from protocol.payloads import GiftPayload, payload_record
from tests.support.api import API, client_of, ok
from tests.support.durable import durable_broker
from tests.support.faulty_disk import crashed_copy
from tests.support.pk import (
    LASTS_MS,
    A,
    B,
    accepted,
    give,
    hosts,
    invited,
    is_in,
    over,
    refuse,
    result,
    running,
    shorten,
    state_of,
)
from tests.support.receiver import receiver
from tests.support.tenants import backend
from tests.support.until import until
from tests.support.webhooks import events_of, hook_settings

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


@pytest.mark.parametrize("history_s", [120.0, 0.0])
@pytest.mark.parametrize("kind", ["accept", "final", "result"])
async def test_a_kill_between_the_facts_of_both_rooms_changes_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, history_s: float
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    tries: Counter[str] = Counter()
    room: dict[str, Any] = {"history_s": history_s}

    def is_refused(message: PkMessage) -> bool:
        tries[message.kind] += 1
        return message.kind == kind

    with monkeypatch.context() as patch:
        refuse(patch, is_refused)
        async with durable_broker(first, room=room) as broker, hosts(broker) as pair:
            await invited(broker, pair[0])
            await accepted(broker, pair[1])
            await give(broker, A, 3)
            await give(broker, B, 2)
            if kind != "accept":
                await over(broker)
            await until(lambda: tries[kind] > 0)
            crashed_copy(first, second)
    async with durable_broker(second, room=room) as broker:
        if kind == "accept":
            await until(lambda: is_in(broker, A, PkPhase.RUNNING))
            await over(broker)
        assert await result(broker, A) == (PkOutcome.WON, 300, 200, False)
        assert await result(broker, B) == (PkOutcome.LOST, 200, 300, False)


def cents_in(reader: Reader, room: str, epoch: int, window: tuple[int, int]) -> int:
    """Return the cents of the gifts of a stream in a time."""
    sum_cents = 0
    for stored in stored_events(reader.latest(room, epoch, 0, 1000)):
        if stored.event.type == MessageType.GIFT and window[0] <= stored.event.at_ms < window[1]:
            gift = payload_record(stored.event.type, stored.event.payload)
            assert isinstance(gift, GiftPayload)
            sum_cents += gift.count * gift.price_cents
    return sum_cents


async def test_after_kills_while_gifts_come_in_the_scores_are_the_sums_of_the_gifts(tmp_path: Path) -> None:
    directory = tmp_path / "0"
    directory.mkdir()
    given: Counter[str] = Counter()
    for number in range(3):
        async with durable_broker(directory) as broker, hosts(broker) as pair, trio.open_nursery() as nursery:
            if not number:
                await running(broker, *pair)

            async def give_all(broker: Broker, room: str) -> None:
                for amount in range(1, 1000):
                    await give(broker, room, amount)
                    given[room] += 1

            for room in (A, B):
                nursery.start_soon(give_all, broker, room)
            given.clear()
            await until(lambda: min(given[A], given[B]) >= 10)
            directory = crashed_copy(directory, tmp_path / str(number + 1))
            nursery.cancel_scope.cancel()
    async with durable_broker(directory) as broker:
        await over(broker)
        scores = {room: (await result(broker, room))[1:3] for room in (A, B)}
        assert scores[A] == scores[B][::-1]
        assert broker.ledger is not None
        for name, (score, _) in scores.items():
            found, state = broker.hub.find(name), state_of(broker, name)
            assert found is not None
            assert state is not None
            assert state.starts_at_ms is not None
            assert state.ends_at_ms is not None
            window = state.starts_at_ms, state.ends_at_ms
            assert await broker.ledger.ask(cents_in, name, found.state.epoch, window) == score > 0


async def test_each_room_reports_the_start_and_the_end(directory: Path) -> None:
    async with receiver() as platform:
        hooks = hook_settings(directory, platform.url, "pk.*")
        async with (
            durable_broker(directory, api=API, webhooks=hooks) as broker,
            client_of(broker) as http,
            hosts(broker),
        ):
            await ok(http, "pk.invite", room=A, id="p", other_room=B, duration_ms=LASTS_MS)
            await until(lambda: is_in(broker, B, PkPhase.INVITED))
            assert (await ok(http, "pk.answer", room=B, id="p", accepts=True))["phase"] == "running"
            await until(lambda: is_in(broker, A, PkPhase.RUNNING))
            assert (await ok(http, "pk.cancel", room=A, id="p"))["outcome"] == "lost"
            await until(lambda: len(events_of(platform)) == 4)
            seen = [(each["type"], each["room"], each["data"].get("outcome")) for each in events_of(platform)]
            assert sorted(seen, key=repr) == [
                ("pk.ended", A, "lost"), ("pk.ended", B, "won"), ("pk.started", A, None), ("pk.started", B, None),
            ]  # fmt: skip


async def test_an_invitation_reaches_no_room_of_another_tenant(directory: Path) -> None:
    async with durable_broker(directory, tenants=[{"name": "acme"}, {"name": "globex"}]) as broker:

        async def invoke(tenant: str, name: str, *request: Any) -> Any:
            result, _ = await broker.operations.call(backend(tenant), BY_NAME[name], request)
            return result

        for tenant, rooms in (("acme", (A, B)), ("globex", (A, B)), ("", (A, B))):
            for room in rooms:
                await invoke(tenant, "rooms.open", room)
        await invoke("acme", "pk.invite", A, "p", B)
        await until(lambda: is_in(broker, qualify("acme", B), PkPhase.INVITED))
        assert [state_of(broker, qualify("globex", room)) or state_of(broker, room) for room in (A, B)] == [None, None]
        with pytest.raises(OperationError) as caught:
            await invoke("globex", "pk.answer", B, "p", True)
        assert caught.value.code == ErrorCode.UNKNOWN_ACTIVITY
        answered = await invoke("acme", "pk.answer", B, "p", True)
        assert (answered.phase, answered.other_room) == (PkPhase.RUNNING, A)
        await until(lambda: is_in(broker, qualify("acme", A), PkPhase.RUNNING))
