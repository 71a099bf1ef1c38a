"""What the conditions of activities ask of a user in a room."""

from __future__ import annotations

from typing import Any

from broker.core.commerce.activity import Attributes
from broker.core.commerce.room_rankings import GIFTS
from broker.core.rooms.state import RoomState
from broker.core.rooms.watch_times import WatchTimes
from broker.core.tenants.names import plain_name

__all__ = ["attributes"]


def attributes(
    state: RoomState[Any],  # Any: the reply addresses are the room's own business
    watch_times: WatchTimes,
    user: str,
    joined_at_ms: int | None,
    own_tags: tuple[str, ...],
    account_created: int,
    now_ms: int,
) -> Attributes:
    """Return the attributes of a user (qualified id).

    ``joined_at_ms``: of its connection, None = it has none; ``own_tags`` and ``account_created`` (Unix seconds, 0 = it
    does not say): of its token.
    """
    plain = plain_name(user)
    audiences = state.activities.audiences
    return Attributes(
        frozenset() if audiences is None else audiences.names_of(audiences.tags_of(plain, own_tags)),
        follows=audiences is not None and audiences.does_follow(plain),
        watch_s=watch_times.watched_ms(user, joined_at_ms, now_ms) // 1000,
        gift_cents=max(0, state.rankings[GIFTS].score_of(plain)),
        account_age_s=max(0, now_ms // 1000 - account_created) if account_created else None,
    )
