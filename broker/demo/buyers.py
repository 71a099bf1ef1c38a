"""Users of the demo who take part in activities: real clients that call operations and keep what they see of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import trio

from protocol.activities import ActivityEvent
from protocol.clients import CallRefused, Client, Direct, JoinedRoom, PostResult, StreamEvent, open_client
from protocol.codes import ErrorCode, Tier
from protocol.payloads import AnnouncementPayload, GiftPayload, HighlightPayload

__all__ = ["Buyer"]

JOIN_S = 60.0
CALL_S = 30.0
"""Deadlines of the steps; only a defect or an overloaded machine reaches them."""
T = TypeVar("T")


class Buyer:
    """One user in one room. ``user``: USER or USER:ROLE, as a broker in development mode accepts them."""

    def __init__(self, url: str, user: str, rng: Random) -> None:
        self.id = user.partition(":")[0]
        self.events: list[ActivityEvent] = []
        """Activity events of the room, in their order."""
        self.messages: list[ActivityEvent] = []
        """Must-deliver messages to this user, in their order."""
        self.paid: list[GiftPayload | HighlightPayload] = []
        """Gift events and paid messages of the room, in their order."""
        self.announcements: list[str] = []
        """Texts of the announcements of the room, in their order."""
        self._url = url
        self._user = user
        self._rng = rng
        self._client: Client | None = None
        self._room: JoinedRoom | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self._left = trio.Event()

    async def run(self, room_name: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, join, report as started, and receive until `leave`."""
        async with open_client(self._url, f"dev:{self._user}", rng=self._rng, open_timeout_s=JOIN_S) as client:
            self._client = client
            room = self._room = await client.join(room_name, Tier.LOW, timeout_s=JOIN_S)
            task_status.started()
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._receive_events, room)
                    nursery.start_soon(self._receive_messages, client)
        self._left.set()

    async def leave(self) -> None:
        """Leave the room and close the connection."""
        self._scope.cancel()
        await self._left.wait()

    async def _receive_events(self, room: JoinedRoom) -> None:
        async for event in room:
            if not isinstance(event, StreamEvent):
                continue
            if isinstance(event.payload, ActivityEvent):
                self.events.append(event.payload)
                self._changed.unpark_all()
            elif isinstance(event.payload, GiftPayload | HighlightPayload):
                self.paid.append(event.payload)
                self._changed.unpark_all()
            elif isinstance(event.payload, AnnouncementPayload):
                self.announcements.append(event.payload.text)
                self._changed.unpark_all()

    async def _receive_messages(self, client: Client) -> None:
        async for event in client.events():
            if isinstance(event, Direct) and isinstance(event.payload, ActivityEvent):
                self.messages.append(event.payload)
                self._changed.unpark_all()

    # Any: each operation has records of its own.
    async def call(self, request: Any, key: str | None = None) -> Any:
        """Call an operation and return its result; None: it was refused for good."""
        return (await self.try_call(request, key))[0]

    async def try_call(self, request: Any, key: str | None = None) -> tuple[Any, ErrorCode | None]:
        """Call an operation and return its result, or why it was refused for good; call again while it is for now."""
        assert self._client is not None
        while True:
            try:
                return await self._client.call(request, key=key, timeout_s=CALL_S), None
            except CallRefused as refused:
                if not 300 <= refused.code < 400 or not refused.retry_after_ms:
                    return None, ErrorCode(refused.code)
                await trio.sleep(refused.retry_after_ms / 1000 * self._rng.uniform(1.0, 1.2))

    async def post(self, type: int, payload: Any) -> PostResult:
        """Post a message whose payload has a key, and return its result."""
        assert self._room is not None
        return await self._room.post(type, payload, retry=True, timeout_s=CALL_S)

    async def wait_until(self, found: Callable[[], T | None]) -> T:
        """Wait until something is found in what has arrived."""
        while (value := found()) is None:
            await self._changed.park()
        return value

    def event(self, name: str, id: str) -> Any:
        """Return the data of the last event of an activity, None where there is none. Any: its record."""
        return next((each.data for each in reversed(self.events) if (each.name, each.id) == (name, id)), None)

    def data_of(self, name: str, id: str) -> list[Any]:
        """Return the data of the must-deliver messages of one name. Any: their records."""
        return [each.data for each in self.messages if (each.name, each.id) == (name, id)]
