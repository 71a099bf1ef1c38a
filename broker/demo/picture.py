"""What there is to see of the show at one moment, as plain numbers and words; `view` makes a screen or a line of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from protocol.clients.events import Danmaku, Event
from protocol.codes import Lane
from protocol.messages import Account

__all__ = ["Picture", "Stalled"]


class Stalled(NamedTuple):
    """The viewer who stops reading."""

    state: str = "watches like everybody"
    queued_frames: int = 0
    queued_bytes: int = 0
    keyframe: bool = False
    """Keyframe mode was on, at any time."""
    was_cut: bool = False
    is_back: bool = False
    recovered: bool = False
    events: int = 0
    """Events of lanes 0-2 that came after all."""


class Picture(NamedTuple):
    """One moment. Counts are totals since the beginning unless they say ``_per_s``."""

    phase: str
    act: int
    """Number of the act, 1 on; 0 before the first, above ``acts`` after the last."""
    acts: int
    elapsed_s: float
    seconds: float
    port: int
    viewers: int
    tcp: int
    websocket: int
    online: int
    offered_per_s: float
    deliveries_per_s: float
    p50_ms: int | None
    p99_ms: int | None
    """Of the last seconds: from the making of a tick or event to its arrival."""
    interval_ms: int
    stage: int
    likes: int
    cut: int
    back: int
    recovered: int
    stalled: Stalled
    accounts: tuple[Account, ...] = (Account(),) * len(Lane)
    senders: Mapping[str, Mapping[str, int]] = {}
    """Fates by group and outcome, likes left out."""
    screen: tuple[Danmaku | Event, ...] = ()
    """The latest last."""
