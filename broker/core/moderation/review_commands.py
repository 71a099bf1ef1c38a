"""Commands to the review queue of a room, and its bounds."""

from __future__ import annotations

from typing import Any, NamedTuple

from protocol.activities.reviews import AtDeadline, ContextMessage, HeldBy, ReviewFinding, ReviewState
from protocol.codes import Lane
from protocol.operations.reviews import Verdict

__all__ = [
    "DEFAULT_LIMITS",
    "ClaimItems",
    "DecideItems",
    "HeldAnswer",
    "HoldMessage",
    "PutReport",
    "ReviewLimits",
]


class ReviewLimits(NamedTuple):
    """Most messages of one room's queue, of one of its users, and their bytes; of ``reports``, which are about messages
    that are shown, ``user_items`` are begun by one user, and they have as many bytes again."""

    items: int = 1000
    user_items: int = 20
    nbytes: int = 1024 * 1024
    reports: int = 200


DEFAULT_LIMITS = ReviewLimits()


class HoldMessage(NamedTuple):
    """Hold the message of the requester.

    ``lane``: of its type; ``key``: its ``client_msg_id``; ``review_ms``: how long reviewers have, 0 = no deadline;
    ``address``: of the link that gets the second result, None = none (Any: the caller's).
    """

    type: int
    lane: Lane
    payload: Any
    held_by: HeldBy
    key: str = ""
    reason: str = ""
    findings: tuple[ReviewFinding, ...] = ()
    review_ms: int = 0
    at_due: AtDeadline = AtDeadline.REJECT
    address: Any = None


class HeldAnswer(NamedTuple):
    """A message is in the queue, or was before."""

    id: int
    state: ReviewState


class ClaimItems(NamedTuple):
    """Claim messages by id, or the first ``limit`` that no reviewer has."""

    ids: tuple[int, ...]
    limit: int
    ttl_ms: int


class DecideItems(NamedTuple):
    """Decide messages by id, and all of a user; ``fence``: of the requester's claim."""

    ids: tuple[int, ...]
    verdict: Verdict
    reason: str = ""
    user: str | None = None
    fence: int | None = None


class PutReport(NamedTuple):
    """Put a message that is shown into the queue, for the requester, who reports it.

    ``user``, ``name``: its author; ``said_at_ms``: when it was shown; ``offset``: of its event, None = a danmaku;
    ``context``: what was shown around it.
    """

    user: str
    name: str
    type: int
    payload: Any
    said_at_ms: int
    offset: int | None
    reason: str
    context: tuple[ContextMessage, ...] = ()
