"""Posts of one link that wait for the platform's answer, each room's in the order in which they came.

A post that needs no answer waits too where an earlier one of the link waits in that room, so that their order stays; no
other link or room waits for it. What the room would refuse now, by role, phase or rate, is not asked about. A post that
waits has one answer when its link leaves, and none when the room or the link has ended: there is no link to answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

from broker.core.tenants.names import plain_name, split_name
from broker.core.webhooks.questions import MessageAction, MessageAnswer, Start
from broker.rooms.members import Member
from broker.rooms.room import Room
from broker.sessions.context import SessionContext
from protocol.activities.reviews import HeldBy
from protocol.codes import ErrorCode, MessageType, Outcome, Role, RoomPhase
from protocol.messages import AckResult, FirstResult, Post

__all__ = ["MAX_REVIEWED", "ReviewedPosts", "Reviewing"]

MAX_REVIEWED = 16
"""Posts of one link in one room that wait."""
RETRY_MS = 1000
"""When to send a post again that could not be asked about."""

_LIVE = RoomPhase.LIVE
_SHOWN = frozenset({Outcome.ACCEPTED, Outcome.MERGED})


class Reviewing(Protocol):
    """What a review needs of a session."""

    @property
    def is_open(self) -> bool:
        """Whether the connection still exists."""

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """Answer POSTs of this session."""

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """Answer a POST with the reason, and when it would be taken."""

    def replying(self) -> AbstractContextManager[None]:
        """Collect the replies inside the block into one write; an exception ends this session alone."""


class _Waiting:
    """One post. ``result`` None: it goes to the room, once it is decided."""

    __slots__ = (
        "is_decided",
        "is_dropped",
        "is_held",
        "is_masked",
        "member",
        "post",
        "reason",
        "result",
        "room",
        "sequence",
    )

    def __init__(self, room: Room, member: Member, sequence: int, post: Post, is_decided: bool) -> None:
        self.room = room
        self.member = member
        self.sequence = sequence
        self.post = post
        self.is_decided = is_decided
        self.is_held = False
        self.is_masked = False
        self.is_dropped = False
        self.result: AckResult | None = None
        self.reason = ""


class ReviewedPosts:
    """The posts of one link that wait, by room."""

    __slots__ = ("_context", "_link", "_masked", "_queues")

    def __init__(self, link: Reviewing, context: SessionContext) -> None:
        self._link = link
        self._context = context
        self._queues: dict[int, deque[_Waiting]] = {}
        self._masked: set[tuple[int, int]] = set()
        """Posts with another text that their room has not answered: room and sequence."""

    def take(self, room: Room, member: Member, sequence: int, post: Post) -> bool:
        """Return whether a post waits, or is answered already; False: it goes to its room now."""
        state, context = room.state, self._context
        if post.type not in member.may_post or (
            state.phase is not _LIVE and (member.role < Role.MODERATOR or state.phase is RoomPhase.ENDED)
        ):
            return False  # the room refuses it, and a refusal need not wait
        if state.refusal_of((member, sequence), member, post, context.poller.now) is not None:
            return False
        queue = self._queues.get(room.number)
        if queue is not None and len(queue) >= MAX_REVIEWED:
            self._link.reply_acks(room.number, [AckResult(sequence, Outcome.LIMITED, RETRY_MS)])
            return True
        waiting = _Waiting(room, member, sequence, post, is_decided=post.type not in context.reviewed_types)
        if not waiting.is_decided:
            wait_s = state.post_wait_s(post.type, member, context.poller.now)
            if wait_s:
                self._link.reply_acks(room.number, [AckResult(sequence, Outcome.LIMITED, max(1, round(wait_s * 1000)))])
                return True
            refusal = self._ask(waiting)
            if refusal is not None:
                self._link.reply_acks(room.number, [refusal])
                return True
        if queue is None:
            if waiting.is_decided:
                return False
            queue = self._queues[room.number] = deque()
        elif post.type == MessageType.LIKE:
            return False  # likes are summed: their order means nothing
        queue.append(waiting)
        return True

    def _ask(self, waiting: _Waiting) -> AckResult | None:
        """Ask about a post, or decide it; return its result where it is refused at once."""
        questions = self._context.questions
        assert questions is not None
        member, post = waiting.member, waiting.post
        tenant, room_name = split_name(waiting.room.name)
        start = questions.ask_message(
            tenant, room_name, plain_name(member.user_id), member.name, member.role, post.type, post.payload,
            partial(self._on_answer, waiting),
        )  # fmt: skip
        if start is Start.BUSY:
            return AckResult(waiting.sequence, Outcome.LIMITED, RETRY_MS)
        if start in (Start.FULL, Start.PAUSED) and not self._is_allowed_on_failure:
            return AckResult(waiting.sequence, Outcome.UNAVAILABLE, RETRY_MS)
        waiting.is_decided = start is not Start.ASK
        return None

    @property
    def _is_allowed_on_failure(self) -> bool:
        questions = self._context.questions
        return questions is None or questions.message is None or questions.message.allows_on_failure

    def _on_answer(self, waiting: _Waiting, answer: MessageAnswer | None) -> None:
        """The platform has answered about a post, or has not in time."""
        if waiting.is_dropped or not self._link.is_open:
            return
        waiting.is_decided = True
        sequence = waiting.sequence
        if answer is None:
            if not self._is_allowed_on_failure:
                waiting.result = AckResult(sequence, Outcome.UNAVAILABLE, RETRY_MS)
        elif answer.action is MessageAction.BLOCK:
            waiting.result = AckResult(sequence, Outcome.REJECTED, int(ErrorCode.BLOCKED))
            waiting.reason = answer.reason
        elif answer.action is MessageAction.HOLD:
            waiting.reason = answer.reason
            waiting.is_held = waiting.room.state.may_hold(waiting.post.type)
            if not waiting.is_held:
                waiting.result = AckResult(sequence, Outcome.REJECTED, int(ErrorCode.BLOCKED))
        elif answer.action is MessageAction.MASK:
            waiting.post = waiting.post._replace(payload=answer.payload)
            waiting.is_masked = True
        self._context.poller.refresh_clock()
        with self._link.replying():
            self._release(waiting.room.number)

    def _release(self, number: int) -> None:
        """Finish the posts at the head of a room's queue that are decided."""
        queue = self._queues.get(number)
        while queue and queue[0].is_decided:
            self._finish(queue.popleft())
        if not queue:
            self._queues.pop(number, None)

    def _finish(self, waiting: _Waiting) -> None:
        room, result = waiting.room, waiting.result
        if result is not None:
            self._link.reply_with_reason(room.number, result, waiting.reason)
            return
        if waiting.is_masked:
            self._masked.add((room.number, waiting.sequence))
        member, sequence, post, now = waiting.member, waiting.sequence, waiting.post, self._context.poller.now
        try:
            if waiting.is_held:
                room.hold(member, sequence, post, HeldBy.PLATFORM, waiting.reason, now)
            else:
                room.post(member, sequence, post, now)
        except Exception:
            self._context.hub.crash(room)

    def with_masks(self, room: int, results: list[AckResult]) -> list[AckResult]:
        """Return results of a room, those of posts that are shown with another text as MASKED."""
        masked = self._masked
        if not masked:
            return results
        changed = []
        for result in results:
            key = room, result[0]
            if key in masked:
                masked.remove(key)
                if result[1] in _SHOWN:
                    result = AckResult(result[0], Outcome.MASKED, result[2])
            changed.append(result)
        return changed

    def leave(self, number: int) -> None:
        """Refuse the posts that wait in a room: the link leaves it."""
        left = [waiting.sequence for waiting in self._drop(number)]
        if left:
            code = int(ErrorCode.NOT_JOINED)
            self._link.reply_acks(number, [AckResult(sequence, Outcome.REJECTED, code) for sequence in left])

    def forget(self, number: int) -> None:
        """Forget the posts of a room that has removed the link: they have no answer."""
        self._drop(number)
        self._masked = {key for key in self._masked if key[0] != number}

    def close(self) -> None:
        """Forget all posts: the link has ended."""
        for number in list(self._queues):
            self._drop(number)

    def _drop(self, number: int) -> list[_Waiting]:
        queue = self._queues.pop(number, None)
        dropped = list(queue or ())
        if queue is not None:
            queue.clear()
        for waiting in dropped:
            waiting.is_dropped = True
        return dropped
