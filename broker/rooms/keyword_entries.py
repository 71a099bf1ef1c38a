"""Entries into lotteries by messages that equal their keyword.

A message counts when the room admits it, shown or not: merging and sampling lose none. Its sender waits for no answer,
so an entry that the ledger cannot take now is tried again; `MAX_WAITING` of them wait at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

from broker.core.commerce.activity import ActivityRefusal, Attributes, ReleasedPost, Requester
from broker.core.commerce.lottery import EnterCommand
from broker.core.commerce.room_activities import ActivityKey, RoomActivities
from broker.core.rooms.effects import Effect, Reply
from broker.core.rooms.state import RoomState
from broker.core.tenants.names import plain_name
from broker.rooms.members import Member
from protocol.codes import ErrorCode, MessageType, Outcome, Role, RoomPhase
from protocol.messages import Post

__all__ = ["KeywordEntries"]

MAX_WAITING = 200_000
RETRY_S = 1.0

# Any: an answer of any activity.
Send = Callable[[ActivityKey, EnterCommand, Requester, Callable[[Any], None]], None]


class EnteredRoom(Protocol):
    """What an entry asks of the room."""

    state: RoomState[Any]

    def attributes_of(self, user: str, joined_at_ms: int | None, tags: tuple[str, ...], now_ms: int) -> Attributes:
        """Return what the conditions of activities ask of a user."""
        ...


class KeywordEntries:
    """Gives entries to their lotteries. ``send``: gives a command to an activity; ``clock``: monotonic seconds."""

    __slots__ = ("_clock", "_send", "_waiting", "retry_at")

    def __init__(self, send: Send, clock: Callable[[], float]) -> None:
        self._send = send
        self._clock = clock
        self._waiting: dict[tuple[ActivityKey, str], tuple[Requester, str]] = {}
        self.retry_at = inf
        """When `retry` has something to do."""

    # Any: the reply addresses are the room's.
    def hear(
        self,
        room: EnteredRoom,
        member: Member,
        post: Post,
        effects: Sequence[Effect[Any]],
        activities: RoomActivities[Any],
        now_ms: int,
    ) -> None:
        """Give a danmaku that the room has admitted to the activities that listen: shown or not, merged or sampled."""
        if effects and not (isinstance(effects[0], Reply) and effects[0].outcome is Outcome.SAMPLED_OUT):
            return
        text = post.payload[0]
        for key in activities.listening:
            if activities.find(*key).hears(text) and member.role is not Role.APP:
                user = plain_name(member.user_id)
                attributes = room.attributes_of(member.user_id, member.joined_at_ms or None, member.tags, now_ms)
                is_paused = room.state.phase is RoomPhase.PAUSED
                self.enter(key, Requester(user, member.name, member.role, False, attributes, is_paused), text)

    def hear_shown(self, room: EnteredRoom, post: ReleasedPost, activities: RoomActivities[Any], now_ms: int) -> None:
        """Give a danmaku that was held and is shown to the activities that listen: it counts from now on."""
        for key in activities.listening if post.type == MessageType.DANMAKU else ():
            if activities.find(*key).hears(post.payload[0]):
                attributes = room.attributes_of(post.user, None, (), now_ms)
                is_paused = room.state.phase is RoomPhase.PAUSED
                requester = Requester(post.user, post.name, post.role, False, attributes, is_paused)
                self.enter(key, requester, post.payload[0])

    def enter(self, key: ActivityKey, requester: Requester, said: str) -> None:
        """Enter a user. ``said``: the text of its message."""

        def answered(answer: Any) -> None:
            if isinstance(answer, ActivityRefusal) and answer.code is ErrorCode.OVERLOADED:
                self._keep(key, requester, said)

        self._send(key, EnterCommand(said), requester, answered)

    def _keep(self, key: ActivityKey, requester: Requester, said: str) -> None:
        if len(self._waiting) < MAX_WAITING:
            self._waiting[key, requester.user] = requester, said
            self.retry_at = min(self.retry_at, self._clock() + RETRY_S)

    def retry(self) -> None:
        """Enter those who wait."""
        waiting, self._waiting, self.retry_at = self._waiting, {}, inf
        for (key, _), (requester, said) in waiting.items():
            self.enter(key, requester, said)
