"""Answers of all nodes to one call, as one: of operations about what each node knows of its own links and rooms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broker.operations.caller import Caller
from protocol.operations.rooms import ListRooms, RoomPage, RoomSort, RoomSummary
from protocol.operations.users import DisconnectedUser, UserView

__all__ = ["MERGED"]

# Any: each operation has its own request and result.
Merge = Callable[[Caller, Any, Sequence[Any]], Any]


def _user(caller: Caller, request: Any, found: Sequence[UserView]) -> UserView:
    """Return the links of a user at all nodes; its settings and sanctions are the same at each."""
    links = tuple(link for each in found for link in each.links)
    return found[0]._replace(links=links, rooms=tuple(sorted({room for each in found for room in each.rooms})))


def _disconnected(caller: Caller, request: Any, found: Sequence[DisconnectedUser]) -> DisconnectedUser:
    return DisconnectedUser(sum(each.links for each in found))


def _rooms(caller: Caller, request: ListRooms, found: Sequence[RoomPage]) -> RoomPage:
    """Return a page of the rooms of all nodes: no further than the page of any node goes."""
    by_online = request.sort is RoomSort.ONLINE

    def place(room: RoomSummary) -> tuple[int, str]:
        return -room.online if by_online else 0, room.room

    ends = [place(page.items[-1]) for page in found if page.next is not None and page.items]
    items = sorted((room for page in found for room in page.items), key=place)
    kept = [room for room in items if not ends or place(room) <= min(ends)][: request.limit]
    following = None
    if kept and (ends or len(items) > len(kept)):
        following = f"{kept[-1].online}:{kept[-1].room}" if by_online else kept[-1].room
    return RoomPage(tuple(room for room in kept if caller.grants(room.room) is not None), following)


MERGED: dict[str, Merge] = {"users.get": _user, "users.disconnect": _disconnected, "rooms.list": _rooms}
