"""Handlers of the operations on users."""

from __future__ import annotations

import ipaddress
from typing import Any

from broker.operations.caller import Caller
from broker.operations.parts import Handler, Parts
from protocol.codes import CloseCode, LeaveReason
from protocol.operations.users import DisconnectedUser, DisconnectUser, GetUser, Kicked, KickUser, UserLink, UserView

__all__ = ["HANDLERS", "masked_address"]


def masked_address(address: str) -> str:
    """Return an address without what names one machine: the last byte of IPv4, the last 80 bits of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if parsed.version == 4:
        return address.rpartition(".")[0] + ".*"
    network = ipaddress.ip_network((parsed, 48), strict=False)
    return f"{network.network_address}/48"


def _rooms_of(session: Any) -> tuple[str, ...]:
    return tuple(sorted(room.name for room, _ in session.memberships))


def _get(parts: Parts, caller: Caller, request: GetUser) -> UserView:
    sessions: tuple[Any, ...] = parts.users.sessions(request.user)
    links = tuple(
        UserLink(masked_address(session.transport.address), session.transport.framing.name.lower(), _rooms_of(session))
        for session in sessions
    )
    return UserView(request.user, links, tuple(sorted({room for link in links for room in link.rooms})))


def _disconnect(parts: Parts, caller: Caller, request: DisconnectUser) -> DisconnectedUser:
    sessions: tuple[Any, ...] = parts.users.sessions(request.user)
    code = CloseCode.GOING_AWAY if request.reconnect else CloseCode.KICKED
    for session in sessions:
        session.close(code, request.reason or "disconnected by the platform")
    return DisconnectedUser(len(sessions))


def _kick(parts: Parts, caller: Caller, request: KickUser) -> Kicked:
    room = parts.room(request.room)
    sessions: tuple[Any, ...] = parts.users.sessions(request.user)
    members = [member for session in sessions for joined, member in session.memberships if joined is room]
    for member in members:
        room.remove(member, LeaveReason.KICKED, request.reason, parts.clock())
    return Kicked(len(members))


HANDLERS: dict[str, Handler] = {"users.get": _get, "users.disconnect": _disconnect, "users.kick": _kick}
