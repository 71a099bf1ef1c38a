"""Viewers of other nodes in rooms of this one: a session for each of their links, by node and link."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from broker.rooms.node_messages import (
    Attach,
    Attached,
    JoinMoved,
    LinkAnswers,
    LinkBytes,
    LinkClosed,
    LinkEnded,
    LinkGranted,
    LinkOpened,
    Moved,
    NodeMessage,
    read_grant,
)
from broker.rooms.room import Room
from broker.sessions.context import SessionContext
from broker.sessions.remote_session import RemoteSession
from protocol.codes import CloseCode, Tier

__all__ = ["OwnersOfRooms", "RemoteSessions"]


class OwnersOfRooms(Protocol):
    """What is to be known of the owners of rooms."""

    node: str

    def owner_of(self, name: str) -> str | None:
        """Return the node that owns a room, None: that is not known now."""

    def find(self, name: str, on_found: Callable[[bool], None]) -> None:
        """Find out who owns a room, then call back."""


class RemoteSessions:
    """The sessions. ``send``: sends a record to a node."""

    def __init__(
        self, context: SessionContext, owners: OwnersOfRooms, send: Callable[[str, NodeMessage], None]
    ) -> None:
        self._context = context
        self._owners = owners
        self._send = send
        self._sessions: dict[tuple[str, int], RemoteSession] = {}

    def take(self, node: str, record: LinkOpened | LinkBytes | LinkGranted | LinkClosed | Attach) -> None:
        """Take a record of a node about one of its links."""
        key = node, record.link
        match record:
            case LinkBytes(link, data):
                session = self._sessions.get(key)
                if session is not None:
                    self._context.poller.refresh_clock()
                    session.on_data(data)
                else:
                    self._send(node, LinkEnded(link, 0, "the link is not known here"))
            case LinkOpened(link, grant, address, is_app):
                self._sessions[key] = RemoteSession(
                    self._context, read_grant(grant), address, is_app,
                    lambda data: self._send(node, LinkAnswers(link, data)), partial(self._on_closed, node, link),
                    lambda name: self._send(node, JoinMoved(link, name)),
                )  # fmt: skip
            case LinkGranted(_, grant):
                session = self._sessions.get(key)
                if session is not None:
                    session.regrant(read_grant(grant))
            case LinkClosed():
                session = self._sessions.pop(key, None)
                if session is not None:
                    session.end()
            case Attach():
                self._attach(node, record)

    def drop(self, node: str) -> None:
        """End the sessions of the viewers of a node."""
        for key in [key for key in self._sessions if key[0] == node]:
            self._sessions.pop(key).end()

    def leave(self, room: Room) -> None:
        """Let all leave a room that this node owns no more, and notify their nodes."""
        nodes = set()
        for key, session in list(self._sessions.items()):
            if any(each.room is room for each in session.memberships):
                session.memberships = tuple(each for each in session.memberships if each.room is not room)
                nodes.add(key[0])
        for node in sorted(nodes):
            self._send(node, Moved(room.name))

    def _on_closed(self, node: str, link: int, code: int, reason: str) -> None:
        session = self._sessions.pop((node, link), None)
        if session is not None:
            session.end()
        self._send(node, LinkEnded(link, 0 if code == CloseCode.GOING_AWAY else code, reason))

    def _attach(self, node: str, record: Attach) -> None:
        """Let a viewer of another node go on in a room that this node owns now."""
        link, name, tier, joined_at_ms = record
        session, owners = self._sessions.get((node, link)), self._owners
        if session is None:
            return
        if owners.owner_of(name) is None:
            owners.find(name, lambda found: self._attach(node, record) if found else self._send(node, Moved(name)))
            return
        if owners.owner_of(name) != owners.node:
            self._send(node, Moved(name))
            return
        room = self._context.hub.open(name, goes_on=True)
        if not isinstance(room, Room) or not session.attach(room, Tier(tier), joined_at_ms):
            self._send(node, LinkEnded(link, CloseCode.OVERLOADED, "the room cannot be entered again"))
            return
        self._send(node, Attached(link, name, room.number, room.state.epoch, room.state.last_offset))
