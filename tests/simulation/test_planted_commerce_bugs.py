"""Bugs of commerce, planted one by one: the simulation must find each within a few seeds."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.commerce import pk
from broker.core.commerce.activity import ActivityStep, Fact
from broker.core.commerce.lottery import EnterCommand, Lottery
from broker.core.commerce.packet import RedPacket
from broker.core.commerce.room_activities import ActivityKey, RoomActivities
from broker.core.commerce.sale_facts import SaleFacts
from broker.core.rooms.audience import Selector
from broker.core.rooms.pk_scores import PkScores
from broker.ledger import Reader
from broker.rooms import room_store
from broker.rooms.activity_records import read_all_activities
from tests.simulation.planted import finds

pytestmark = pytest.mark.integration

Patch = pytest.MonkeyPatch


def forget_after_a_restart(patch: Patch, kind: str, name: str) -> None:
    """Leave out facts of a name when the activities of all rooms are read at the start."""

    def read(reader: Reader, kinds: Any, erasing: Any = ()) -> Any:
        fold = RoomActivities.fold

        def without(self: Any, key: ActivityKey, facts: list[Fact], at_ms: int) -> None:
            fold(self, key, [fact for fact in facts if (key[0], fact.name) != (kind, name)], at_ms)

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(RoomActivities, "fold", without)
            return read_all_activities(reader, kinds, erasing)

    patch.setattr(room_store, "read_all_activities", read)


def test_a_unit_that_is_granted_twice_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(SaleFacts, "available", property(lambda facts: max(0, facts.stock - facts.claims.confirmed)))
    assert "units of" in finds(range(1, 5))


def test_a_share_that_is_lost_on_a_restart_is_found(monkeypatch: Patch) -> None:
    forget_after_a_restart(monkeypatch, RedPacket.kind, "grabbed")
    found = finds(range(1, 9), kills=0.3)
    assert "two shares" in found or "has no share left" in found, found


def test_an_entry_that_is_answered_and_not_written_is_found(monkeypatch: Patch) -> None:
    decide = Lottery.decide

    def unwritten(self: Any, command: Any, *args: Any) -> ActivityStep[Any] | None:
        step = decide(self, command, *args)
        return step._replace(facts=()) if step is not None and isinstance(command, EnterCommand) else step

    monkeypatch.setattr(Lottery, "decide", unwritten)
    assert "is lost" in finds(range(1, 5))


def test_a_prize_that_is_sent_again_after_a_restart_is_found(monkeypatch: Patch) -> None:
    forget_after_a_restart(monkeypatch, Lottery.kind, "prize")
    assert "prizes received" in finds(range(9, 13), kills=0.3)


def test_a_draw_that_is_not_that_of_its_proof_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Lottery, "_draw_key", lambda self, config, signature: bytes(32))
    assert "BAD_WINNERS" in finds(range(13, 17))


def test_a_result_that_differs_in_the_other_room_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(pk, "_REVERSED", {})
    assert " and PkHalf(" in finds(range(1, 5))


def test_a_paid_message_that_counts_twice_is_found(monkeypatch: Patch) -> None:
    add = PkScores.add
    monkeypatch.setattr(PkScores, "add", lambda self, of, cents, *rest: add(self, of, 2 * cents, *rest))
    assert "counts more than" in finds(range(1, 5))


def test_a_message_that_reaches_who_is_not_addressed_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Selector, "selects", lambda self, tags: True)
    assert "not for everybody" in finds(range(1, 5))
