"""Worlds from seeds: a few in each run, many in the slow run, and planted bugs that the checks must find."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.core.chat.coalesce import Coalescer
from broker.core.clock import TrustedClock
from broker.core.rooms.effects import Record
from broker.core.rooms.history import History
from broker.core.rooms.idempotency import IdempotencyTable, OperationKey, StoredResult
from broker.ledger import Committed, LedgerResult, Reader, Repeated, SubmitResult
from broker.ledger.inbox_rows import InboxRows
from broker.ledger.maintenance import Maintenance
from broker.net.transport import TransportSettings
from broker.rooms.room import Room
from broker.rooms.room_store import RoomStore
from broker.users.inbox import Inboxes
from protocol.clients.core import ClientCore
from protocol.clients.directs import Directs
from protocol.codes import MessageType
from tests.simulation.disk import SimLedger
from tests.simulation.faults import PROBES
from tests.simulation.scenario import simulate

pytestmark = pytest.mark.integration

FIXED = (
    31,  # an inbox whose last message had expired was never removed
    53,  # one failed read made a RESUME skip events that the ledger had
)
"""Seeds that found a bug when they were added. The worlds have changed since; each bug has a unit test, too."""


@pytest.mark.parametrize("seed", FIXED)
def test_promises_are_kept_under_faults(seed: int) -> None:
    simulate(seed)


def test_the_same_seed_gives_the_same_world() -> None:
    first, second = simulate(42), simulate(42)
    assert first.log == second.log
    assert first.digest == second.digest


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_worlds() -> None:
    """Run three processes with a third of the seeds each; their output names the seeds to repeat.

    `.ci/run` runs three hundred and sixty more after the tests.
    """
    with ExitStack() as processes:
        runs = [
            processes.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.simulation", seeds],
                    cwd=Path(__file__).parents[2],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for seeds in ("1030-1059", "1180-1209", "1520-1549")
        ]
        outputs = [run.communicate()[0] for run in runs]
    output = "".join(outputs)
    print(output)
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert [what for what in EXPECTED_EVENTS if what not in output] == [], "events that occurred in no world"


@pytest.mark.slow
def test_small_queues_bring_a_broker_to_overload() -> None:
    """A higher stage occurs in one of a hundred worlds, which are too few for `EXPECTED_EVENTS`."""
    worlds = (simulate(seed, burst=12, total_bytes=2048, link_bytes=1024) for seed in (44, 10, 21, *range(30, 60)))
    assert any("overload stage" in what for world in worlds for what in world.happened)


@pytest.mark.slow
def test_a_disk_keeps_data_of_a_commit_that_failed() -> None:
    """One of fifty worlds has it, which are too few for `EXPECTED_EVENTS`."""
    worlds = (simulate(seed, disk_failures=0.1, leftovers=1.0) for seed in (23, 25, *range(26, 60)))
    assert any("data of a failed commit present" in what for world in worlds for what in world.happened)


EXPECTED_EVENTS = (
    "killed after a commit", "killed before a commit", "killed while starting", "disk recovers",
    "a read fails", "slow commit", "cut", "stall", "drained", "clock leaps", "message expired",
    "recovered", "gap", "room ended ROOM_IDLE", "rooms restored", "SLOW_VIEWER", "HEARTBEAT_MISSED", "GOING_AWAY",
    "repeated", "reused key refused", "not up", "phase PAUSED", "phase ENDED", "room crashed",
    "links: native", "links: websocket", "batch sent", "restored", "restored keys compared",
    "sale and packet ended", "claim confirmed", "confirmation refused", "lottery drawn", "entered by call",
    "entered by message", "prize received", "keys compared", "keys.set acknowledged", "keys.delete acknowledged",
    "stale version refused", "pins compared",
    *(f"probe {name}" for name in PROBES),
)  # fmt: skip
"""Events that must occur in these ninety worlds: otherwise the conditions have become too mild."""


# ---- planted bugs


def fails(seeds: Sequence[int], **conditions: Any) -> bool:
    """Return whether one of these worlds fails.

    The first seeds are those that found the bug quickly when the test was written; the others are for a broker that
    has changed since.
    """
    for seed in seeds:
        try:
            simulate(seed, **conditions)
        except (Exception, BaseExceptionGroup):
            return True
    return False


def test_a_broker_that_reports_before_the_commit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    record = RoomStore.record

    def deliver_early(
        self: RoomStore,
        room: str,
        epoch: int,
        what: Record[Any],
        checkpoint: bytes,
        on_result: Callable[[LedgerResult], None],
    ) -> SubmitResult:
        result = record(self, room, epoch, what, checkpoint, lambda result: None)
        state = on_result.func.__self__.state  # type: ignore[attr-defined]
        on_result(Committed((state.last_offset + 1,)))
        return result

    monkeypatch.setattr(RoomStore, "record", deliver_early)
    assert fails(range(1, 4))


def test_a_ledger_without_keys_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    record = SimLedger.record
    monkeypatch.setattr(SimLedger, "record", lambda self, items, on_done, keys=(): record(self, items, on_done))
    assert fails(range(1, 11))


def test_a_clock_that_follows_every_leap_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrustedClock, "now_ms", lambda self: self._wall_ms())
    monkeypatch.setattr(TrustedClock, "distrust", lambda self: "")
    assert fails(range(8, 18), leaps=0.3)


def test_a_ledger_that_compares_no_content_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RoomStore, "first_results", _first_results_without_content(RoomStore.first_results))
    assert fails(range(1, 3), probes=("keys",))


def _first_results_without_content(first_results: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, room, record, repeated: first_results(self, room, record, Repeated(repeated.first))


def test_a_table_that_compares_no_content_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    result = IdempotencyTable.result

    def same(self: Any, key: OperationKey, now: float) -> StoredResult | None:
        found = self._young.get(key.parts)
        return result(self, key if found is None else key._replace(fingerprint=found[0]), now)

    monkeypatch.setattr(IdempotencyTable, "result", same)
    assert fails(range(1, 11))


def test_a_ledger_without_a_bound_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimLedger, "waiting", property(lambda self: self._waiting_items * 10_000))
    assert fails(range(1, 4), slow_commits=0.5)


def test_an_in_memory_history_with_a_gap_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    since = History.since
    monkeypatch.setattr(History, "since", lambda self, *args: (since(self, *args) or [])[1:])
    assert fails(range(1, 6))


def test_a_history_that_is_not_queried_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "history", lambda *args: None)
    assert fails(range(1, 11))


def test_a_room_with_a_new_epoch_after_a_restart_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RoomStore, "take", lambda self, room: None)
    assert fails(range(1, 6), kills=0.3)


def test_an_inbox_that_sends_nothing_pending_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inboxes, "_pump", lambda *args: None)
    assert fails(range(1, 4))


def test_an_inbox_that_is_not_queried_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inboxes, "_look_up", lambda *args: None)
    assert fails(range(1, 6), inbox_users=1)


def test_a_client_that_shows_messages_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    on_direct = Directs.on_direct

    def without_memory(self: Directs, direct: Any) -> None:
        self._seen.clear()
        on_direct(self, direct)

    monkeypatch.setattr(Directs, "on_direct", without_memory)
    assert fails(range(1, 21), cuts=5.0)


def test_messages_that_never_expire_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Maintenance, "_expire", lambda *args: False)
    assert fails(range(1, 3), leaps=0.0, probes=("expiry",))


def test_an_acknowledgement_that_is_not_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InboxRows, "acknowledge", lambda *args: None)
    assert fails(range(1, 4))


def test_likes_that_are_sent_again_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    post = ClientCore.post

    async def again(self: Any, room: Any, type: int, payload: Any, name: Any, retry: bool, timeout_s: float) -> Any:
        return await post(self, room, type, payload, name, retry or type == MessageType.LIKE, timeout_s)

    monkeypatch.setattr(ClientCore, "post", again)
    assert fails((26, 104, 146, *range(152, 160)), cuts=5.0)


def test_a_room_that_does_not_count_what_it_merges_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    close = Coalescer.close

    def uncounted(self: Any, *args: Any) -> Any:
        window = close(self, *args)
        cuts = {tier: replace(cut, account=cut.account._replace(shown=0)) for tier, cut in window.per_tier.items()}
        return replace(window, per_tier=cuts)

    monkeypatch.setattr(Coalescer, "close", uncounted)
    assert fails(range(1, 4))


def test_queued_bytes_that_are_not_subtracted_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    account = TransportSettings.account
    monkeypatch.setattr(TransportSettings, "account", lambda self, delta_bytes: account(self, max(0, delta_bytes)))
    assert fails(range(1, 11))


def test_viewers_who_are_counted_after_they_left_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Room, "leave", lambda self, member, now: self.members.remove(member))
    assert fails(range(1, 4))
