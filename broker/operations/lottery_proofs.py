"""Proofs of lotteries, read from the ledger: it knows them when they have left the memory of their room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

from broker.core.commerce.activity import Fact
from broker.core.commerce.lottery import Lottery
from broker.ledger import ACTIVITY_FACTS, Ledger, Reader, StoredEntry
from broker.ledger.reader import stored_entries
from broker.ledger.replay import event_of
from broker.operations.kept import ask
from protocol.codes import MessageType
from protocol.errors import RemoteProtocolError
from protocol.frames import unpack_body

__all__ = ["LotteryProofs", "StoredLottery"]

MAX_KNOWN = 4
"""Lotteries that are kept, for the next pages of their proofs."""


class StoredLottery(NamedTuple):
    """A lottery as its facts have made it. Offsets of the events that announced and closed it; 0: not closed."""

    lottery: Lottery[Any]
    committed_offset: int
    closed_offset: int


class LotteryProofs:
    """Drawn lotteries by room (qualified name), its epoch, and id."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int | None, str], StoredLottery] = OrderedDict()

    async def find(self, ledger: Ledger, room: str, epoch: int | None, id: str) -> StoredLottery | None:
        """Return the newest lottery of a room with this id that the ledger has as a whole; None: it has none.
        OperationError OVERLOADED where it cannot be read.

        ``epoch``: of the present stream of the room, which may use an id again; None = it has none.
        """
        known = self._known.get((room, epoch, id))
        if known is not None:
            self._known.move_to_end((room, epoch, id))
            return known
        found = await ask(ledger, _read_lottery, room, id)
        if found is not None and found.lottery.is_drawn:
            self._known[room, epoch, id] = found
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return found


def _read_lottery(reader: Reader, room: str, id: str) -> StoredLottery | None:
    """Return the newest lottery of a room with this id. Runs in the ledger's reading thread, 10 us an entry."""
    lottery: Lottery[Any] | None = None
    its_epoch = 0
    offsets: dict[tuple[int, str], int] = {}
    kinds = f"({ACTIVITY_FACTS}, {int(MessageType.ACTIVITY)})"
    for entry in stored_entries(reader, f"s.room = ? AND e.kind IN {kinds} ORDER BY e.stream, e.seq", (room,)):
        event = event_of(entry)
        if event is not None:
            name, its_id, _ = event.payload
            if its_id == id:
                offsets[entry.epoch, name] = entry.offset
            continue
        for name, data in _facts(entry, id):
            if name == "created":
                lottery, its_epoch = Lottery(id, bytes), entry.epoch
            if lottery is not None and its_epoch == entry.epoch:
                lottery.apply(Fact(name, data))
    announced, closed = (offsets.get((its_epoch, f"lotteries.{name}"), 0) for name in ("announced", "closed"))
    # Retention has removed the beginning where there is no announcement: nothing can be proved then.
    return StoredLottery(lottery, announced, closed) if lottery is not None and announced else None


def _facts(entry: StoredEntry, id: str) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """Return the facts of a lottery that an entry holds; none where it is of another activity or cannot be read."""
    if entry.kind != ACTIVITY_FACTS:
        return ()
    try:
        kind, its_id, facts = unpack_body(entry.body)
    except (RemoteProtocolError, TypeError, ValueError):
        return ()
    return facts if (kind, its_id) == (Lottery.kind, id) else ()
