"""The messages of a review queue: each with where it stands, in tables by id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from broker.core.moderation.review_commands import PutReport
from protocol.activities.reviews import AtDeadline, ContextMessage, HeldBy, ReviewFinding, ReviewState, UserReport
from protocol.codes import Role
from protocol.frames import pack_body
from protocol.operations.reviews import ReviewItem

__all__ = ["HeldMessage", "ReviewTable", "bytes_of", "held_message", "reported_data", "reported_key", "without_user"]

ITEM_BYTES = 256
"""What a message counts besides its content."""
REPORT_BYTES = 64
"""What one more report counts."""
_WAITING = ReviewState.WAITING


class HeldMessage(NamedTuple):
    """A message and where it stands. ``state``: WAITING also where it is claimed; ``nbytes``: of its content."""

    id: int
    user: str
    name: str
    role: int
    type: int
    lane: int
    payload: Any
    key: str
    held_by: int
    reason: str
    findings: tuple[tuple[Any, ...], ...]
    at_ms: int
    due_at_ms: int | None
    at_due: int
    nbytes: int
    state: ReviewState = ReviewState.WAITING
    claimed_by: str = ""
    claimed_until_ms: int = 0
    fence: int = 0
    by: str = ""
    decision: str = ""
    decided_at_ms: int = 0
    offset: int | None = None
    reports: tuple[tuple[str, str, int], ...] = ()
    context: tuple[tuple[int, str, str, int, str], ...] = ()

    @property
    def post(self) -> tuple[str, int, str]:
        """What its author knows it by; a reported one, who has reported it."""
        return self.user, -self.type if self.held_by == HeldBy.REPORT else self.type, self.key

    def names(self, user: str) -> bool:
        """Return whether a user is its author, has claimed, decided or reported it, or has said something near it."""
        if user in (self.user, self.by, self.claimed_by):
            return True
        return any(each[0] == user for each in self.reports) or any(each[1] == user for each in self.context)

    def without(self, user: str, pseudonym: str) -> HeldMessage:
        """Return the message of another one, without a user."""
        return self._replace(
            by=pseudonym if self.by == user else self.by,
            decision="" if self.by == user else self.decision,
            claimed_by=pseudonym if self.claimed_by == user else self.claimed_by,
            reports=tuple((pseudonym, "", each[2]) if each[0] == user else each for each in self.reports),
            context=tuple((each[0], pseudonym, "", each[3], "") if each[1] == user else each for each in self.context),
        )

    def seconded(self, report: Mapping[str, Any]) -> HeldMessage:
        """Return the message with one more report (Any: plain values of a fact)."""
        return self._replace(reports=(*self.reports, _report_of(report)), nbytes=self.nbytes + REPORT_BYTES)

    def claimed(self, by: str, fence: int, until_ms: int) -> HeldMessage:
        """Return the message with a claim."""
        return self._replace(fence=fence, claimed_by=by, claimed_until_ms=until_ms)

    def decided(self, state: ReviewState, by: str, reason: str, at_ms: int) -> HeldMessage:
        """Return the message in the state that a decision leads to."""
        return self._replace(state=state, by=by, decision=reason, decided_at_ms=at_ms)

    def is_claimed(self, now_ms: int) -> bool:
        """Return whether a reviewer has it."""
        return self.state is _WAITING and self.claimed_until_ms > now_ms

    def item(self, room: str, now_ms: int) -> ReviewItem:
        """Return the message as reviewers see it."""
        is_claimed = self.is_claimed(now_ms)
        return ReviewItem(
            self.id, room, ReviewState.CLAIMED if is_claimed else self.state, HeldBy(self.held_by), self.user,
            self.name, self.type, self.payload, self.reason, tuple(ReviewFinding(*each) for each in self.findings),
            self.at_ms, self.due_at_ms, self.claimed_by if is_claimed else "",
            self.claimed_until_ms if is_claimed else None, self.fence if is_claimed else 0, self.by, self.decision,
            self.decided_at_ms or None, self.offset, tuple(UserReport(*each) for each in self.reports),
            tuple(ContextMessage(*each) for each in self.context),
        )  # fmt: skip


class ReviewTable:
    """Messages by id, with their bytes and the number of those that wait, and of each user's."""

    def __init__(self) -> None:
        self.items: dict[int, HeldMessage] = {}
        self._nbytes = 0
        self._waiting = 0
        self._of_user: dict[str, int] = {}
        self.by_key: dict[tuple[str, int, str], int] = {}
        """Ids by author, type and ``client_msg_id``."""

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return self._nbytes

    @property
    def waiting(self) -> int:
        """Messages that are not decided."""
        return self._waiting

    def of_user(self, user: str) -> int:
        """Return how many are of a user."""
        return self._of_user.get(user, 0)

    def put(self, id: int, item: HeldMessage | None) -> HeldMessage | None:
        """Put a message in the place of an id, None = nothing; return what was there."""
        before = self.items.get(id)
        if before is not None:
            self._nbytes -= before.nbytes
            self._waiting -= before.state is _WAITING
            if before.key:
                self.by_key.pop(before.post, None)
            left = self._of_user[before.user] - 1
            if left:
                self._of_user[before.user] = left
            else:
                del self._of_user[before.user]
        if item is None:
            self.items.pop(id, None)
            return before
        is_late = before is None and bool(self.items) and id < next(reversed(self.items))
        self.items[id] = item
        self._nbytes += item.nbytes
        self._waiting += item.state is _WAITING
        if item.key:
            self.by_key[item.post] = id
        self._of_user[item.user] = self._of_user.get(item.user, 0) + 1
        if is_late:
            self.items = dict(sorted(self.items.items()))
        return before


def held_message(id: int, data: Any) -> HeldMessage:
    """Return a message as its fact has it (Any: as the ledger packed it)."""
    fields = dict(data)
    if "reports" in fields:
        fields["reports"] = tuple(map(_report_of, fields["reports"]))
        fields["context"] = tuple(
            (each["at_ms"], each["user"], each["name"], each["type"], each["text"]) for each in fields["context"]
        )
    fields.setdefault("nbytes", bytes_of(data))
    return HeldMessage(id=id, **fields)


def without_user(data: Mapping[str, Any], user: str, pseudonym: str) -> dict[str, Any]:
    """Return the fact of a report (Any: plain values) without a user who is not its author; it counts as before."""
    if "reports" not in data:
        return {**data, "user": pseudonym, "reason": ""} if data["user"] == user else dict(data)
    of_user = {"user": pseudonym, "name": "", "text": "", "reason": ""}
    lists = {
        field: tuple(
            {name: of_user.get(name, value) for name, value in each.items()} if each["user"] == user else each
            for each in data[field]
        )
        for field in ("reports", "context")
    }
    return {"nbytes": bytes_of(data), **data, **lists}


def _report_of(report: Mapping[str, Any]) -> tuple[str, str, int]:
    return report["user"], report["reason"], report["at_ms"]


def reported_key(report: PutReport) -> str:
    """Return what a reported message is known by, beside its author and type."""
    return f"@{report.offset or report.said_at_ms}"


def reported_data(report: PutReport, first: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Return the fact of a message that is reported for the first time. Any: plain values."""
    return {
        "user": report.user,
        "name": report.name,
        "role": int(Role.VIEWER),
        "type": report.type,
        "lane": 0,
        "payload": report.payload,
        "key": reported_key(report),
        "held_by": int(HeldBy.REPORT),
        "reason": "",
        "findings": (),
        "at_ms": now_ms,
        "due_at_ms": None,
        "at_due": int(AtDeadline.KEEP),
        "offset": report.offset,
        "reports": (dict(first),),
        "context": tuple(each._asdict() for each in report.context),
    }


def bytes_of(data: Any) -> int:
    """Return what a message counts (Any: its fact)."""
    return ITEM_BYTES + len(pack_body((data,)))
