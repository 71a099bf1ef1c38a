"""A newer token on an open link: in a PING it extends the link, in an AUTH it also changes its rights.

Either way the token is of the same user and kind (the platform's backend, or not), and until it is verified nothing has
changed. AUTH gives each membership the role and the types that the new token grants there, and ends those that it does
not grant; the answer names the roles.
"""

from __future__ import annotations

import math

from broker.auth.grants import AuthError, Grant, KeysPending
from broker.rooms.members import Member
from broker.sessions.link import SessionLink
from protocol.codes import ErrorCode, Feature, LeaveReason
from protocol.messages import Authenticated, RoomRole

__all__ = ["KEYS_RETRY_MS", "change_token", "renew_token"]

KEYS_RETRY_MS = 1000
"""When to come back with a token whose key is being fetched."""
_TICKET = int(Feature.TICKET)


def renew_token(link: SessionLink, token: str, sequence: int) -> bool:
    """Replace the grant by that of a newer token, if what the link does now is granted as before; else answer why
    not."""
    renewed = _verified(link, token, sequence)
    if renewed is None:
        return False
    members: list[tuple[str, Member]] = [(member.room.name, member) for member in link.memberships]
    if link.parts.senders is not None:
        members += link.parts.senders.members()
    for name, member in members:
        entry = renewed.room_grant(name)
        may_post = None if entry is None else link.context.types.permitted(entry.role, entry.allow)
        if entry is None or (entry.role, may_post) != (member.role, member.may_post):
            _refuse(link, "the token grants other rights in a room of this link", sequence)
            return False
    _use(link, renewed)
    return True


def change_token(link: SessionLink, token: str | None, sequence: int) -> None:
    """Answer AUTH on an open link: replace its grant, and the rights in each of its rooms."""
    if token is None:
        _refuse(link, "a user does not become a guest on an open link", sequence)
        return
    grant = _verified(link, token, sequence)
    if grant is None:
        return
    context, now = link.context, link.context.poller.now
    _use(link, grant)
    roles = []
    for member in link.memberships:
        room = member.room
        entry = grant.room_grant(room.name)
        if entry is None:
            link.leave(member, now)
            link.on_left(room, LeaveReason.NOT_GRANTED, "the new token does not grant this room")
            continue
        may_post = context.types.permitted(entry.role, entry.allow)
        name = context.name_in(room.name, grant.name)
        link.guard(room, room.change_rights, member, name, entry.role, may_post, grant.tags, now)
        roles.append(RoomRole(room.number, entry.role))
    if link.parts.senders is not None:
        link.parts.senders.regrant(grant)
    ticket, ticket_ms = context.auth.ticket(grant) if link.features & _TICKET else ("", 0)
    expires_at_ms = int(grant.expires_at * 1000)
    answer = Authenticated(grant.plain_id, grant.name, expires_at_ms, ticket, ticket_ms, tuple(roles))
    link.send(answer, 0, sequence)


def _verified(link: SessionLink, token: str, sequence: int) -> Grant | None:
    """Return the grant of a token of the same user and kind; None where it was refused, and answered."""
    context, address, now = link.context, link.transport.address, link.context.poller.now
    limits, grant = context.connection_limits, link.grant
    assert grant is not None, "the link has one"
    wait_s = limits.login_wait_s(address, now)
    if wait_s and not context.auth.knows(token):
        wait_ms = math.ceil(wait_s * 1000)
        link.refuse(ErrorCode.RATE_LIMITED, "too many failed log-ins", sequence, "token", wait_ms)
        return None
    try:
        found = context.auth.verify(token)
    except KeysPending:
        why = "the keys of the platform are being fetched"
        link.refuse(ErrorCode.OVERLOADED, why, sequence, "token", KEYS_RETRY_MS)
        return None
    except AuthError as error:
        limits.login_failed(address, now)
        _refuse(link, str(error), sequence)
        return None
    if found.user_id != grant.user_id or found.is_app is not link.parts.is_app:
        _refuse(link, "the token is not of the same user and kind", sequence)
        return None
    return context.with_screened_name(found)


def _refuse(link: SessionLink, why: str, sequence: int) -> None:
    link.refuse(ErrorCode.NOT_ALLOWED, why, sequence, "token")


def _use(link: SessionLink, grant: Grant) -> None:
    link.grant = grant
    if link.parts.relays is not None:
        link.parts.relays.regrant(grant)
    link.on_deadline(link.context.poller.now)
