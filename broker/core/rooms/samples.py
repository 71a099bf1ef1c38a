"""Samples of a room's counters: small facts of the ledger, from which a report of the room is made.

What a room counts in memory is lost with its process, and no report could be made again. So a room in which something
happens writes its counters every `SAMPLE_EVERY_S`, beside its checkpoint, and once more when its task ends. All but the
likes and the peak begin at 0 with each *run* of the room's task; a fold adds the runs up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from broker.core.rooms.counters import EVENT_COUNTERS
from broker.core.rooms.state import RoomState
from protocol.codes import RoomPhase
from protocol.frames import pack_body, unpack_body
from protocol.messages import Account

__all__ = ["SAMPLE_EVERY_S", "RoomSample", "read_sample", "sample_of"]

SAMPLE_EVERY_S = 10.0
"""How often a room whose counters change is sampled, and so what of them a kill can cost."""
_VERSION = 1


class RoomSample(NamedTuple):
    """Counters of a room at one moment.

    ``run_ms``: when its task began, Unix milliseconds; ``is_last``: the task has ended; ``users`` and ``online``: users
    and connections now; ``uniques``: users so far, an estimate; ``accounts``: of the lanes, lane 0 first; ``counts``:
    by name, the `EVENT_COUNTERS` that are not 0, posts refused by reason, and findings by what became of them.
    """

    run_ms: int
    is_last: bool
    phase: RoomPhase
    stage: int
    tick_ms: int
    online: int
    users: int
    uniques: int
    peak: int
    likes: int
    accounts: tuple[Account, ...]
    counts: tuple[tuple[str, int], ...] = ()
    title: str = ""

    def pack(self) -> bytes:
        """Return the body of the fact."""
        return pack_body((_VERSION, *self))


def sample_of(state: RoomState[Any], run_ms: int, *, is_last: bool) -> RoomSample:
    """Return the sample of a room as it stands. About 10 us. Any: the reply addresses are the room's own business."""
    now = state.counters.state(0)
    counters = state.counters
    counts = (*zip(EVENT_COUNTERS, counters.events(), strict=True), *counters.moderated())
    return RoomSample(
        run_ms, is_last, now.phase, now.stage, now.interval_ms, now.online, now.users, now.uniques, now.peak, now.likes,
        now.accounts, tuple((name, count) for name, count in counts if count), state.title,
    )  # fmt: skip


def read_sample(body: bytes) -> RoomSample:
    """Return the sample that a fact holds. RemoteProtocolError, TypeError or ValueError for what this version cannot
    read."""
    version, run_ms, is_last, phase, stage, tick_ms, online, users, uniques, peak, likes, *more = unpack_body(body)
    if version != _VERSION:
        raise ValueError("a sample of a later version")
    accounts, counts, title = more
    return RoomSample(
        run_ms, is_last, RoomPhase(phase), stage, tick_ms, online, users, uniques, peak, likes,
        tuple(Account(*account) for account in accounts), tuple((name, count) for name, count in counts), title,
    )  # fmt: skip
