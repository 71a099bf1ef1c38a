"""What operations ask of the other nodes: that a change holds on them too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker.operations.caller import OperationError
from broker.rooms.broker_log import BrokerLog
from protocol.codes import ErrorCode

__all__ = ["OtherNodes"]

RETRY_MS = 1000


class OtherNodes:
    """The other nodes of this broker. ``log`` None: there are none."""

    def __init__(self) -> None:
        self.log: BrokerLog | None = None
        self.alive: Callable[[], Sequence[str]] = lambda: ()

    async def follow(self) -> int:
        """Wait until the last change of this node holds on all others; return the links of theirs that it concerned.

        OperationError names the nodes on which it does not hold yet; there it will.
        """
        if self.log is None:
            return 0
        missing, links = await self.log.wait_followed(self.alive)
        if missing:
            rule = f"holds, but not yet on the nodes {', '.join(missing)}: ask again"
            raise OperationError(ErrorCode.OVERLOADED, rule, "", RETRY_MS)
        return links
