"""Bugs of room modes and sanctions, planted one by one: the simulation must find each within a few seeds."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.moderation.sanctions import SanctionAction, SanctionTable
from broker.core.rooms.modes import ModeChanges
from broker.users import sanctions
from broker.users.sanctions import Sanctions
from tests.simulation.planted import finds

pytestmark = pytest.mark.integration

Patch = pytest.MonkeyPatch
MODES, SANCTIONS = "acknowledged were {'slow_s'", "sanctions are"


def test_modes_that_are_lost_on_a_restart_are_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(ModeChanges, "restore", lambda self, stored: None)
    assert MODES in finds(range(1, 9), kills=0.3)


def test_modes_that_are_acknowledged_and_not_followed_are_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(ModeChanges, "follow", lambda self, event: None)
    assert MODES in finds(range(1, 5))


def test_sanctions_that_are_not_read_again_are_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(sanctions, "read_sanctions", lambda reader: ([], []))
    assert SANCTIONS in finds(range(1, 9), kills=0.3)


def test_sanctions_that_are_acknowledged_and_not_written_are_found(monkeypatch: Patch) -> None:
    async def keep(self: Any, action: SanctionAction) -> None:
        return None

    monkeypatch.setattr(Sanctions, "_keep", keep)
    assert SANCTIONS in finds(range(1, 9), kills=0.3)


def test_a_sanction_that_is_lifted_and_holds_is_found(monkeypatch: Patch) -> None:
    apply = SanctionTable.apply

    def without_liftings(self: Any, action: SanctionAction) -> tuple[SanctionAction, ...]:
        return () if action.after is None else apply(self, action)

    monkeypatch.setattr(SanctionTable, "apply", without_liftings)
    assert SANCTIONS in finds(range(1, 5))
