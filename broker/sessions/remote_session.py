"""The link of a viewer of another node, as the owner of its rooms knows it: a session without a socket.

The node of the viewer has verified the token, holds the socket and writes what a room publishes to all. Requests come
here as frames, and everything that is written for this viewer alone goes back as frames. So whatever holds for a viewer
of the owner's own holds for it: rights, limits, reviews, kicks, mutes, conditions of activities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from broker.auth.grants import Grant
from broker.net.transport import Part, Transport, TransportState
from broker.rooms.room import Room
from broker.sessions.context import SessionContext
from broker.sessions.session import Session
from protocol.codes import CloseCode, Lane, LeaveReason, Tier
from protocol.connection import Connection
from protocol.messages import Side

__all__ = ["RemoteSession", "RemoteTransport"]


class RemoteTransport(Transport):
    """The way back to the node of the viewer. ``send`` takes frames; ``on_close`` code and reason where this node ends
    the link."""

    __slots__ = ("_on_close", "_poller", "_send")

    def __init__(
        self,
        context: SessionContext,
        address: str,
        send: Callable[[bytes], None],
        on_close: Callable[[int, str], None],
    ) -> None:  # no socket: nothing of the base class that needs one is used
        self._poller = context.poller
        self._send = send
        self._on_close = on_close
        self.address = address
        self.sock = None  # type: ignore[assignment]  # so `Members` knows it
        self.queue = None
        self.owner = None
        self.authenticated = True
        self.state = TransportState.OPEN
        self.heard_at = context.poller.now

    @property
    def poller(self) -> Any:  # Any: only `now` is read
        """The poller of this node."""
        return self._poller

    def write(self, data: bytes, lane: Lane = Lane.CONTROL, weight: int = 0, key: int = 0) -> None:
        """Send whole frames to the node of the viewer."""
        if not self.state:
            self._send(data)

    def write_parts(self, parts: tuple[Part, ...]) -> None:
        """As `write`."""
        if parts:
            self.write(b"".join([part.data for part in parts]))

    def finish(self, final: bytes, code: int, reason: str) -> None:
        """End the link on this side."""
        if not self.state:
            self.state = TransportState.CLOSED
            self._on_close(code, reason)

    def abort(self, reason: str, code: int = CloseCode.INTERNAL_ERROR) -> None:
        """End the link on this side, for a defect."""
        self.finish(b"", code, reason)


class RemoteSession(Session):
    """A viewer of another node. ``send``, ``on_close``: see `RemoteTransport`.

    ``on_moved`` gets the name of a room whose JOIN is to be asked of another node, which owns it now.
    """

    __slots__ = ("on_moved",)
    is_remote = True

    def __init__(
        self,
        context: SessionContext,
        grant: Grant,
        address: str,
        is_app: bool,
        send: Callable[[bytes], None],
        on_close: Callable[[int, str], None],
        on_moved: Callable[[str], None],
    ) -> None:
        self.on_moved = on_moved
        super().__init__(RemoteTransport(context, address, send, on_close), context)
        del context.sessions[self]  # its connection is another node's
        self.connection = Connection.opened(Side.SERVER)
        self.grant = grant
        if is_app:
            self.own_parts().is_app = True
        context.users.attach(grant.user_id, self)

    def attach(self, room: Room, tier: Tier, joined_at_ms: int) -> bool:
        """Enter a room that this viewer was in when another node owned it; return whether its token still grants it."""
        assert self.grant is not None
        room_grant = self.grant.room_grant(room.name)
        if room_grant is None:
            return False
        if any(each.room is room for each in self.memberships):
            return True
        member = self.new_member(room, room_grant, tier)
        self.memberships = (*self.memberships, member)
        room.enter(member, self.context.poller.now, resumes=True)
        member.joined_at_ms = joined_at_ms or member.joined_at_ms
        return True

    def regrant(self, grant: Grant) -> None:
        """Take the rights of a newer token, which the node of the viewer has verified."""
        self.grant = grant
        context, now = self.context, self.context.poller.now
        for member in self.memberships:
            room, entry = member.room, grant.room_grant(member.room.name)
            if entry is None:
                self.leave(member, now)
                self.on_left(room, LeaveReason.NOT_GRANTED, "the new token does not grant this room")
            else:
                may_post = context.types.permitted(entry.role, entry.allow)
                name = context.name_in(room.name, grant.name)
                self.guard(room, room.change_rights, member, name, entry.role, may_post, grant.tags, now)
        if self.parts.senders is not None:
            self.parts.senders.regrant(grant)

    def end(self) -> None:
        """Leave everything: the viewer's link has ended, or its node is gone."""
        transport = cast(RemoteTransport, self.transport)
        if transport.state is not TransportState.CLOSED:
            transport.state = TransportState.CLOSED
        if self.grant is not None:
            self.on_closed(CloseCode.CLIENT_DONE, "the link has ended at its node")

    def hold(self, until: float) -> None:
        """Leave what has come unhandled until `go_on`."""
        self.own_parts().is_held = True

    def go_on(self) -> None:
        """Handle what has come while the link was held."""
        self.own_parts().is_held = False
        self._drop_unused_parts()
        self.handle()

    def _throttle(self, frames: int) -> None:
        """Do nothing: the node of the viewer bounds its frames."""

    def close(self, code: int, reason: str, retry_after_ms: int = 0, jitter_ms: int = 0) -> None:
        """End the link: its node ends the connection of the viewer with this code."""
        if not self.transport.state:
            self._flush()
            self.transport.finish(b"", code, reason)
