"""Handlers of the operations on the review queue of rooms."""

from __future__ import annotations

from typing import Any

from broker.core.moderation.review import REVIEWS_KEY, ClaimItems, DecideItems, ReviewQueue
from broker.core.tenants.names import plain_name, qualify, tenant_of
from broker.operations.activities import command, read_if_there
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import required
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import room_of
from broker.operations.users import kick
from protocol.codes import ErrorCode
from protocol.operations.reviews import (
    ClaimedItems,
    ClaimReview,
    DecidedItems,
    DecideReview,
    ListReview,
    ReviewItem,
    ReviewPage,
    Verdict,
)
from protocol.operations.users import KickUser

__all__ = ["HANDLERS"]


async def _queue(parts: Parts, caller: Caller, request: ListReview) -> ReviewPage:
    required(parts.ledger)
    room, after = _position(request.cursor)
    if request.room is not None:
        rooms = [room_of(parts, request.room).name]
    elif not caller.is_backend:
        raise OperationError(ErrorCode.BAD_FIELD, "is required", "room")
    else:
        rooms = [name for name in _rooms_with_queue(parts, caller) if plain_name(name) >= room]
    found: list[ReviewItem] = []
    for name in rooms:
        first = after if plain_name(name) == room else 0
        found += await _items(parts, name, request, first, request.limit + 1 - len(found))
        if len(found) > request.limit:
            last = found[request.limit - 1]
            return ReviewPage(tuple(found[: request.limit]), f"{plain_name(last.room)} {last.id}")
    return ReviewPage(tuple(found), None)


def _position(cursor: str | None) -> tuple[str, int]:
    """Return the room and the id after which a page begins."""
    room, _, id = (cursor or "").rpartition(" ")
    if cursor is not None and not (room and id.isascii() and id.isdigit() and len(id) < 16):
        raise OperationError(ErrorCode.BAD_FIELD, "is no cursor of this operation", "cursor")
    return room, int(id or 0)


def _rooms_with_queue(parts: Parts, caller: Caller) -> list[str]:
    """Return the rooms of the caller that have a queue, open or not, by name."""
    names = parts.hub.rooms_with_activity(REVIEWS_KEY)
    return sorted(name for name in names if tenant_of(name) == caller.tenant and caller.role_in(name) is not None)


async def _items(parts: Parts, room: str, request: ListReview, after: int, limit: int) -> list[ReviewItem]:
    def read(queue: ReviewQueue[Any]) -> list[ReviewItem]:
        return queue.items(room, request.state, after, limit, parts.hub.trusted.now_ms())

    found: list[ReviewItem] | None = await read_if_there(parts, room, REVIEWS_KEY, read)
    return found or []


async def _claim(parts: Parts, caller: Caller, request: ClaimReview) -> ClaimedItems:
    if not await _has_queue(parts, request.room):
        return ClaimedItems(0, parts.hub.trusted.now_ms() + request.ttl_ms, ())
    claim = ClaimItems(request.items, request.limit, request.ttl_ms)
    found: ClaimedItems = await command(parts, caller, request.room, REVIEWS_KEY, claim)
    return found._replace(items=tuple(each._replace(room=request.room) for each in found.items))


async def _decide(parts: Parts, caller: Caller, request: DecideReview) -> DecidedItems:
    if not request.items and request.user is None:
        raise OperationError(ErrorCode.BAD_FIELD, "must name at least one, or user be given", "items")
    if not await _has_queue(parts, request.room):
        return DecidedItems((), 0)
    decide = DecideItems(request.items, request.verdict, request.reason, request.user, request.fence)
    if request.verdict is Verdict.BAN:
        authors: set[str] | None = await read_if_there(
            parts, request.room, REVIEWS_KEY, lambda queue: queue.authors(decide)
        )
        for user in sorted(authors or ()):
            ban = KickUser(request.room, qualify(caller.tenant, user), request.reason, request.ban_s)
            await kick(parts, caller, ban)
    decided: DecidedItems = await command(parts, caller, request.room, REVIEWS_KEY, decide)
    return decided


async def _has_queue(parts: Parts, room: str) -> bool:
    required(parts.ledger)
    return await read_if_there(parts, room, REVIEWS_KEY, lambda queue: True) is not None


HANDLERS: dict[str, Handler] = {
    "moderation.queue": _queue,
    "moderation.claim": _claim,
    "moderation.decide": _decide,
}
