"""Operations on countdowns: their records."""

from __future__ import annotations

from typing import NamedTuple

from ..activities.schedules import label
from ..fields import boolean, integer, record, text

__all__ = ["CountdownState"]


class CountdownState(NamedTuple):
    """A countdown. ``is_over``: it was stopped, or its deadline has passed."""

    id: str
    label: str
    deadline_ms: int
    is_over: bool = False


_id = text(1, 64)
_state = record(CountdownState, (_id, label, integer(0), boolean))
