"""Direct messages: each is delivered once and acknowledged only after the application has processed it.

The broker repeats an unacknowledged DIRECT on the next link, and an acknowledgement covers every earlier one. So a
repeated message is dropped; and after one message that did not fit the inbox, no later one of the same link is taken,
because its acknowledgement would cover the missing one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ..activities import received_payload
from ..messages import Direct
from .events import ClientEvent
from .inbox import Inbox

__all__ = ["SEEN_DIRECTS", "ClientEvents", "Directs"]

SEEN_DIRECTS = 1024
"""Processed messages kept to recognize repeated ones, besides those in the inbox; a broker repeats far fewer."""


class Directs:
    """Receiver of the DIRECT messages of one client; ``acknowledge`` sends an ACK, if there is a link."""

    __slots__ = ("_acknowledge", "_has_gap", "_inbox", "_newest", "_seen", "dropped", "has_reader")

    def __init__(self, inbox: Inbox[ClientEvent], acknowledge: Callable[[int], None]) -> None:
        self._inbox = inbox
        self._acknowledge = acknowledge
        # By id and time: a broker without a ledger counts from 1 again after a restart, and those are new messages.
        self._seen: OrderedDict[tuple[int, int], bool] = OrderedDict()
        self._newest = 0
        self._has_gap = False
        self.has_reader = False
        """Whether the application reads; a full inbox then stops the reading of the link, and nothing is dropped."""
        self.dropped = 0

    def on_direct(self, direct: Direct) -> None:
        """Process one message."""
        direct = direct._replace(payload=received_payload(direct.type, direct.payload))
        if not direct.direct_id:
            self._inbox.put_lossy(direct, ambient=1)
            return
        self._newest = direct.direct_id
        key = direct.direct_id, direct.at_ms
        if key in self._seen:
            if self._seen[key]:
                self._acknowledge(direct.direct_id)  # the earlier acknowledgement was lost with its link
            return
        if self._has_gap or (self._inbox.is_full and not self.has_reader):
            self._has_gap = True
            self.dropped += 1
            return
        self._seen[key] = False
        if len(self._seen) > SEEN_DIRECTS and self._seen[next(iter(self._seen))]:
            self._seen.popitem(last=False)
        self._inbox.put(direct)

    def mark_processed(self, direct: Direct) -> None:
        """Acknowledge ``direct``: the application has processed it."""
        if direct.direct_id:
            key = direct.direct_id, direct.at_ms
            if key in self._seen:
                self._seen[key] = True
            # After a lower id no ACK is sent: either the broker has restarted its ids, and the ACK would cover
            # messages that were not processed, or it repeats messages, and this one is acknowledged when it comes.
            if direct.direct_id <= self._newest:
                self._acknowledge(direct.direct_id)

    def link_closed(self) -> None:
        """Accept messages again: the next link starts with the unacknowledged ones."""
        self._has_gap = False


class ClientEvents:
    """Events outside the rooms, returned by `Client.events`. The iteration ends with the client.

    A DIRECT message counts as processed, and is acknowledged, when the application requests the next event; until
    then the broker sends it again on the next link.
    """

    def __init__(self, inbox: Inbox[ClientEvent], directs: Directs) -> None:
        self._inbox = inbox
        self._directs = directs
        self._current: Direct | None = None

    def stop(self) -> None:
        """End the reading: events that do not fit the inbox are dropped, and the broker keeps its DIRECT messages."""
        self._directs.has_reader = False

    def __aiter__(self) -> ClientEvents:
        return self

    async def __anext__(self) -> ClientEvent:
        if self._current is not None:
            processed, self._current = self._current, None
            self._directs.mark_processed(processed)
        event = await self._inbox.take()
        if event is None:
            raise StopAsyncIteration
        if isinstance(event, Direct):
            self._current = event
        return event
