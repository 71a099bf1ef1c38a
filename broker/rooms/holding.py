"""Messages of a room that are held for review: how its task puts them into the queue, and how authors are answered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from broker.core.commerce.activity import ActivityRefusal, AnswerHeld, Requester
from broker.core.moderation.review import REVIEWS_KEY
from broker.core.moderation.review_commands import HeldAnswer, HoldMessage
from broker.core.rooms.effects import Hold
from broker.core.rooms.state import RoomState
from broker.core.tenants.names import plain_name
from broker.rooms.journal import RoomJournal
from broker.rooms.members import Member, PostRef
from broker.rooms.own_links import OwnLinks
from protocol.activities.reviews import AtDeadline, OwnDecision, ReviewState
from protocol.codes import ErrorCode, LeaveReason, Outcome, Role
from protocol.messages import AckResult, FirstResult

__all__ = ["NOBODY", "HoldingRoom", "answer_held", "hold"]


FULL_RETRY_MS = 10_000
"""When to post again where the tenant of a room holds as many messages as it may."""


class HoldingRoom(Protocol):
    """What holding a message needs of its room."""

    number: int
    state: RoomState[PostRef]
    journal: RoomJournal
    own_links: OwnLinks

    def command_activity(
        self, key: tuple[str, str], command: Any, requester: Requester, on_answer: Any, *, creates: bool = False
    ) -> None:
        """Give a command to an activity of the room."""

    def reply(self, ticket: PostRef, outcome: Outcome, detail: int) -> None:
        """Answer a post, and count where it is refused."""


def hold(room: HoldingRoom, effect: Hold[PostRef]) -> None:
    """Put a post into the queue of its room; its author is answered when it is durable there, or cannot be."""
    if room.journal.is_review_full:
        room.reply(effect.ticket, Outcome.LIMITED, FULL_RETRY_MS)
        return
    author, post, policy = effect.author, effect.post, room.state.policy
    command = HoldMessage(
        post.type,
        effect.lane,
        post.payload,
        effect.held_by,
        post.client_msg_id,
        effect.reason,
        effect.findings,
        round(policy.review_s * 1000),
        AtDeadline.APPROVE if policy.approve_unreviewed else AtDeadline.REJECT,
        effect.ticket,
    )
    requester = Requester(plain_name(author.user_id), author.name, author.role)
    on_answer = partial(_answer, room, effect.ticket, effect.reason)
    room.command_activity(REVIEWS_KEY, command, requester, on_answer, creates=True)


def answer_held(room: HoldingRoom, answer: AnswerHeld) -> None:
    """Send the second result of a post that was held to the link that has sent it, and what became of it to every link
    of its author in the room."""
    if answer.address is not None:
        member, sequence = answer.address
        result = AckResult(sequence, Outcome.ACCEPTED)
        if not answer.is_shown:
            result = AckResult(sequence, Outcome.REJECTED, int(ErrorCode.BLOCKED))
        member.session.reply_with_reason(room.number, result, answer.reason)
    decided = OwnDecision(answer.id, answer.type, answer.client_msg_id, answer.is_shown, answer.reason)
    room.own_links.show_decision(answer.user, decided)


def _answer(room: HoldingRoom, ticket: PostRef, reason: str, answer: HeldAnswer | ActivityRefusal) -> None:
    if isinstance(answer, HeldAnswer):
        member, sequence = ticket
        match answer.state:
            case ReviewState.SHOWN:
                result = AckResult(sequence, Outcome.ACCEPTED)
            case ReviewState.REJECTED:
                result = AckResult(sequence, Outcome.REJECTED, int(ErrorCode.BLOCKED))
            case _:
                result = AckResult(sequence, Outcome.HELD)
        member.session.reply_with_reason(room.number, result, reason)
    elif answer.code is ErrorCode.OVERLOADED:
        room.reply(ticket, Outcome.UNAVAILABLE, answer.retry_after_ms)
    elif answer.retry_after_ms:
        room.reply(ticket, Outcome.LIMITED, answer.retry_after_ms)
    else:
        room.reply(ticket, Outcome.REJECTED, int(answer.code))


class _Nobody:
    """Session of messages that are shown for authors who are answered otherwise."""

    transport: Any = None
    """Never used: it is no member."""

    def reply_acks(self, room: int, results: list[AckResult], firsts: Sequence[FirstResult] = ()) -> None:
        """Ignore results."""

    def reply_with_reason(self, room: int, result: AckResult, reason: str, retry_after_ms: int = 0) -> None:
        """Ignore a result."""

    def on_left(self, room: Any, reason: LeaveReason, message: str) -> None:
        """Ignore the end of a room."""


NOBODY: PostRef = Member(_Nobody(), "", "", Role.APP, frozenset(), 0), 0
"""Reply address of messages that were held: their authors are answered by `answer_held`."""
