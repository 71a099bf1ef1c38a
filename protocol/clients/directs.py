"""Direct messages: each shown once, each acknowledged only when shown, none skipped.

The broker repeats an unacknowledged DIRECT on the next link, and an acknowledgement covers every earlier one. So a
message that was seen is dropped when it comes again, and after one that could not be taken none of the same link
is: acknowledging a later one would lose it for good.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ..messages import Direct
from .events import ClientEvent
from .inbox import Inbox

__all__ = ["SEEN_DIRECTS", "ClientEvents", "Directs"]

SEEN_DIRECTS = 1024
"""Shown messages remembered to tell a repeated one, besides those in the inbox; a broker repeats far fewer."""


class Directs:
    """Judges the DIRECT messages of one client; ``acknowledge`` sends an ACK, if there is a link."""

    __slots__ = ("_acknowledge", "_inbox", "_is_holed", "_newest", "_seen", "dropped", "has_reader")

    def __init__(self, inbox: Inbox[ClientEvent], acknowledge: Callable[[int], None]) -> None:
        self._inbox = inbox
        self._acknowledge = acknowledge
        # By id and time: a broker that lost its memory counts from 1 again, and those are new messages.
        self._seen: OrderedDict[tuple[int, int], bool] = OrderedDict()
        self._newest = 0
        self._is_holed = False
        self.has_reader = False
        """Whether the application reads; a full inbox then holds the link back instead of refusing."""
        self.dropped = 0

    def on_direct(self, direct: Direct) -> None:
        """Take one message."""
        if not direct.direct_id:
            self._inbox.put_lossy(direct, ambient=1)
            return
        self._newest = direct.direct_id
        key = direct.direct_id, direct.at_ms
        if key in self._seen:
            if self._seen[key]:
                self._acknowledge(direct.direct_id)  # the first acknowledgement was lost with its link
            return
        if self._is_holed or (self._inbox.is_full and not self.has_reader):
            self._is_holed = True
            self.dropped += 1
            return
        self._seen[key] = False
        if len(self._seen) > SEEN_DIRECTS and self._seen[next(iter(self._seen))]:
            self._seen.popitem(last=False)
        self._inbox.put(direct)

    def shown(self, direct: Direct) -> None:
        """The application has dealt with ``direct``."""
        if direct.direct_id:
            key = direct.direct_id, direct.at_ms
            if key in self._seen:
                self._seen[key] = True
            # A lower number has come since: the broker lost its memory, and this acknowledgement would cover
            # messages that were not shown. Or it only repeats itself, and is answered when this one comes again.
            if direct.direct_id <= self._newest:
                self._acknowledge(direct.direct_id)

    def link_over(self) -> None:
        """The next link starts with what is unacknowledged."""
        self._is_holed = False


class ClientEvents:
    """What happens outside the rooms; made by `Client.events`. Iteration ends when the client does.

    A DIRECT message counts as shown, and is acknowledged, when the application asks for the event after it; until
    then the broker sends it again on the next link.
    """

    def __init__(self, inbox: Inbox[ClientEvent], directs: Directs) -> None:
        self._inbox = inbox
        self._directs = directs
        self._showing: Direct | None = None

    def stop(self) -> None:
        """Nobody reads any more: what the inbox cannot take is dropped, and the broker keeps its DIRECT messages."""
        self._directs.has_reader = False

    def __aiter__(self) -> ClientEvents:
        return self

    async def __anext__(self) -> ClientEvent:
        if self._showing is not None:
            shown, self._showing = self._showing, None
            self._directs.shown(shown)
        event = await self._inbox.take()
        if event is None:
            raise StopAsyncIteration
        if isinstance(event, Direct):
            self._showing = event
        return event
