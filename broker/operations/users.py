"""Handlers of the operations on users."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from functools import partial
from typing import Any

from broker.core.tenants.names import plain_name
from broker.ledger import CANCEL_ROWS
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import ask, commit, keep, required
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import room_of
from broker.operations.sanctions import change_sanction, check_target
from broker.users.settings import UserSettings, preference_items, read_settings, tags_item
from protocol.activities.moderation import SanctionKind
from protocol.codes import CloseCode, ErrorCode, LeaveReason
from protocol.operations.users import (
    DisconnectedUser,
    DisconnectUser,
    EraseStarted,
    EraseStateRequest,
    EraseUser,
    ErasureStatus,
    GetUser,
    Kicked,
    KickUser,
    Preferences,
    SetPreferences,
    SetTags,
    UserLink,
    UserSanction,
    UserTags,
    UserView,
    Visibility,
)

__all__ = ["HANDLERS", "masked_address"]

_LINK_KEY = secrets.token_bytes(16)
"""Ids of connections show nothing of this process."""


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


def _link_id(session: Any) -> str:
    """Return the id of an open connection. It is made of what a session has: an idle viewer costs no byte for it."""
    place = f"{id(session)} {session.opened_at}".encode()
    return hashlib.blake2s(place, key=_LINK_KEY, digest_size=8).hexdigest()


def _rooms_of(session: Any) -> tuple[str, ...]:
    return tuple(sorted(member.room.name for member in session.memberships))


def _sessions_of(parts: Parts, user: str) -> tuple[Any, ...]:
    """Return the sessions of a user whose connections this node has."""
    return tuple(session for session in parts.users.sessions(user) if not session.is_remote)


async def _get(parts: Parts, caller: Caller, request: GetUser) -> UserView:
    sessions = _sessions_of(parts, request.user)
    now, now_ms = parts.clock(), parts.unix_ms()
    links = tuple(
        UserLink(
            masked_address(session.transport.address), session.transport.framing.name.lower(), _rooms_of(session),
            session.agent, now_ms - round(max(0.0, now - session.opened_at) * 1000),
            _link_id(session),
        )
        for session in sessions
    )  # fmt: skip
    rooms = tuple(sorted({room for link in links for room in link.rooms}))
    settings = UserSettings() if parts.ledger is None else await ask(parts.ledger, read_settings, request.user)
    sanctions = parts.hub.sanctions.of_user(request.user, parts.hub.trusted.continued_ms())
    return UserView(
        request.user, links, rooms, _preferences(settings), settings.tags,
        tuple(
            UserSanction(each.kind, each.room or None, each.until_ms, each.reason, each.is_shadow)
            for each in sanctions[:1000]
        ),
    )  # fmt: skip


def _preferences(settings: UserSettings) -> Preferences:
    visibility = Visibility.__members__.get((settings.visibility or "").upper())
    return Preferences(settings.marketing, settings.recommendation, visibility)


def _disconnect(parts: Parts, caller: Caller, request: DisconnectUser) -> DisconnectedUser:
    sessions = _sessions_of(parts, request.user)
    if request.link is not None:
        sessions = tuple(each for each in sessions if _link_id(each) == request.link)
    code = CloseCode.GOING_AWAY if request.reconnect else CloseCode.KICKED
    for session in sessions:
        session.close(code, request.reason or "disconnected by the platform")
    return DisconnectedUser(len(sessions))


async def _kick(parts: Parts, caller: Caller, request: KickUser) -> Kicked:
    room = room_of(parts, request.room)
    check_target(parts, caller, request.room, request.user)
    members = room.own_links.members(plain_name(request.user))
    if request.ban_s is not None:
        await change_sanction(
            parts, caller, SanctionKind.BAN, request.room, request.user, request.ban_s, request.reason
        )
    for member in members:
        if member.index >= 0:
            room.remove(member, LeaveReason.KICKED, request.reason, parts.clock())
    return Kicked(len(members))


async def _set_preferences(parts: Parts, caller: Caller, request: SetPreferences) -> Preferences:
    ledger = required(parts.ledger)
    visibility = None if request.visibility is None else request.visibility.name.lower()
    wanted = {"marketing": request.marketing, "recommendation": request.recommendation, "visibility": visibility}
    changes = {name: value for name, value in wanted.items() if value is not None}
    items = preference_items(request.user, changes, parts.unix_ms())
    if request.marketing is False:
        inboxes, is_left = required(parts.inboxes), True
        while is_left:  # what waits is withdrawn in the transaction that sets the preference, the rest after it
            result = await commit(partial(inboxes.cancel, user=request.user, marketing=True, then=items))
            items, is_left = [], len(result.cancelled) == CANCEL_ROWS
    elif changes:
        await keep(ledger, items)
    parts.hub.preferences.change(request.user, changes)
    if parts.presences is not None:
        parts.presences.note(request.user)
    if visibility is not None:
        for room in parts.hub:
            room.state.rankings.show_again()
    return _preferences(await ask(ledger, read_settings, request.user))


async def _set_tags(parts: Parts, caller: Caller, request: SetTags) -> UserTags:
    await keep(required(parts.ledger), (tags_item(request.user, request.tags, parts.unix_ms()),))
    return UserTags(request.tags)


async def _erase(parts: Parts, caller: Caller, request: EraseUser) -> EraseStarted:
    erasures = required(parts.erasures)
    if request.confirm != request.user:
        raise OperationError(ErrorCode.BAD_FIELD, "must be the user id again", "confirm")
    job = await erasures.begin(request.user, caller.account)
    return EraseStarted(job.id)


def _erase_state(parts: Parts, caller: Caller, request: EraseStateRequest) -> ErasureStatus:
    job = required(parts.erasures).find(caller.tenant, request.job)
    if job is None:
        raise OperationError(ErrorCode.BAD_FIELD, "names no erasure that is known", "job")
    return ErasureStatus(job.id, job.state, job.asked_at_ms, job.entries, job.done_at_ms)


HANDLERS: dict[str, Handler] = {
    "users.get": _get,
    "users.disconnect": _disconnect,
    "users.kick": _kick,
    "users.set_preferences": _set_preferences,
    "users.set_tags": _set_tags,
    "users.erase": _erase,
    "users.erase_state": _erase_state,
}
