"""The review queue of one room: messages that a moderator decides before they are shown, in order.

A message is held as a fact, waits, may be claimed by one reviewer at a time, and is approved or rejected: by a person,
by its deadline, or by the end of the room. Approved ones are released in the order in which they were held: one that
was held later waits until all before it are decided. A release is a fact of its own, in the transaction of the event
that shows the message; a danmaku has no event, and goes into the window of the next tick when the fact is durable. So
nothing is ever shown twice, and a kill costs at most the danmaku of one tick.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush, merge
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from broker.core.commerce.activity import (
    Activity,
    ActivityReport,
    ActivityStep,
    AnswerHeld,
    ErasedUser,
    Fact,
    ReleasedPost,
    Requester,
    RoomEvent,
    ShowPost,
    refused,
)
from broker.core.moderation.review_commands import (
    DEFAULT_LIMITS,
    ClaimItems,
    DecideItems,
    HeldAnswer,
    HoldMessage,
    PutReport,
    ReviewLimits,
)
from broker.core.moderation.review_table import (
    HeldMessage,
    ReviewTable,
    bytes_of,
    held_message,
    reported_data,
    reported_key,
    without_user,
)
from protocol.activities.reviews import (
    MAX_FINDINGS,
    MAX_REPORTERS,
    AtDeadline,
    HeldBy,
    MessageDecidedData,
    MessageHeldData,
    MessageReportedData,
    ReviewQueueChanged,
    ReviewState,
    UserReport,
)
from protocol.codes import ErrorCode, Lane, Role
from protocol.operations.reviews import ClaimedItems, DecidedItem, DecidedItems, ReportedMessage, ReviewItem, Verdict

__all__ = [
    "RELEASES_PER_S",
    "REVIEWS_KEY",
    "ReviewQueue",
]

T = TypeVar("T")

REVIEWS_KEY = ("reviews", "")
"""A room has one queue."""
RELEASES_PER_S = 20
"""Approved messages that are shown within a second, as many danmaku as a viewer is shown."""
RESUME_GRACE_MS = 60_000
"""After a restart reviewers have at least so long, also for what fell due meanwhile."""
MAX_DONE = 200
MAX_DONE_BYTES = 256 * 1024
"""Decided messages that are known, and their bytes: a repeated post or decision has the same answer."""
_WAITING, _APPROVED, _SHOWN, _REJECTED = (
    ReviewState.WAITING, ReviewState.APPROVED, ReviewState.SHOWN, ReviewState.REJECTED,
)  # fmt: skip


class _Change(NamedTuple):
    """What undoes a fact: the numbers as they were, and what was in the places that it has changed."""

    numbers: tuple[int, int, int, tuple[int, ...]]
    places: list[tuple[ReviewTable, int, HeldMessage | None]]


class ReviewQueue(Activity[T], Generic[T]):
    """The queue of one room."""

    kind: ClassVar[str] = REVIEWS_KEY[0]

    def __init__(self, id: str = "", limits: ReviewLimits = DEFAULT_LIMITS) -> None:
        super().__init__(id)
        self._limits = limits
        self._facts = 0
        self._last_id = 0
        self._fence = 0
        self._released_at: tuple[int, ...] = ()
        """Of the last `RELEASES_PER_S`."""
        self._held = ReviewTable()
        """Those that wait, and those that are approved and not shown, in order of ids."""
        self._reported = ReviewTable()
        """Those that are shown and that users have reported."""
        self._done = ReviewTable()
        """The last ones that are decided, in order of ids."""
        self._changes: deque[_Change] = deque(maxlen=8192)
        """Of the facts of the batch under way, newest last."""
        self._has_released = False
        """Whether the batch under way shows a danmaku, which comes after its event: the next event is of another."""
        self._dues: list[tuple[int, int]] = []
        """Deadlines and ids; of messages that are decided too, until they come first."""
        self._addresses: dict[int, Any] = {}
        """Who hears what became of a message; a restart forgets them."""

    @property
    def exists(self) -> bool:
        return self._facts > 0

    @property
    def size(self) -> tuple[int, int]:
        """Messages that are held or reported, and their bytes."""
        tables = self._held, self._reported
        return sum(len(each.items) for each in tables), sum(each.nbytes for each in tables)

    @property
    def waiting_since_ms(self) -> int | None:
        """Since when the first message waits for a reviewer, None = none does."""
        first = [next(iter(self._reported.items.values()), None)]
        first.append(next((each for each in self._held.items.values() if each.state is _WAITING), None))
        return min((each.at_ms for each in first if each is not None), default=None)

    def items(self, room: str, state: ReviewState | None, after: int, limit: int, now_ms: int) -> list[ReviewItem]:
        """Return messages with an id above ``after`` in a state, None = not decided: as reviewers of ``room`` see them.

        A rejected or shown one is known for a while.
        """
        if state in (_SHOWN, _REJECTED):
            tables = [self._done]
        else:
            tables = [self._held, self._reported, *((self._done,) if state is _APPROVED else ())]
        found: list[ReviewItem] = []
        for held in merge(*(table.items.values() for table in tables), key=lambda each: each.id):
            if held.id <= after:
                continue
            item = held.item(room, now_ms)
            if state in (None, item.state):
                found.append(item)
                if len(found) == limit:
                    break
        return found

    def holds(self, user: str) -> bool:
        """Return whether a message of a user is held and not shown."""
        return self._held.of_user(user) > 0

    def authors(self, decision: DecideItems) -> set[str]:
        """Return the authors of the messages that a decision is about."""
        named = {held.user for id in decision.ids if (held := self._open(id)) is not None and held.user}
        return named if decision.user is None else named | {decision.user}

    def reported_events(self, decision: DecideItems) -> tuple[int, ...]:
        """Return the offsets of the reported messages that a decision is about."""
        named = (self._reported.items.get(id) for id in self._named(decision))
        return tuple(each.offset for each in named if each is not None and each.offset is not None)

    # ---- commands

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T]:
        match command:
            case HoldMessage():
                return self._hold(command, requester, now_ms)
            case PutReport():
                return self._report(command, requester, now_ms)
            case ClaimItems():
                return self._claim(command, requester, now_ms)
            case DecideItems():
                return self._decide(command, requester, now_ms)
        raise TypeError(command)

    def _hold(self, command: HoldMessage, requester: Requester, now_ms: int) -> ActivityStep[T]:
        for table in (self._held, self._done):
            known = table.by_key.get((requester.user, command.type, command.key))
            if known is not None:
                return ActivityStep(answer=HeldAnswer(known, table.items[known].state))
        due_at_ms = now_ms + command.review_ms if command.review_ms and command.at_due is not AtDeadline.KEEP else None
        data = {
            "user": requester.user,
            "name": requester.name,
            "role": int(requester.role),
            "type": command.type,
            "lane": int(command.lane),
            "payload": command.payload,
            "key": command.key,
            "held_by": int(command.held_by),
            "reason": command.reason,
            "findings": tuple(map(tuple, command.findings[:MAX_FINDINGS])),
            "at_ms": now_ms,
            "due_at_ms": due_at_ms,
            "at_due": int(command.at_due),
        }
        nbytes = bytes_of(data)
        full = self._full(requester.user, nbytes)
        if full:
            return refused(ErrorCode.RATE_LIMITED, full, "room", 1000)
        id = self._last_id + 1
        self._addresses[id] = command.address
        if len(self._addresses) > 2 * len(self._held.items) + 64:
            open_ids = self._held.items.keys() | {id}
            self._addresses = {each: self._addresses[each] for each in self._addresses.keys() & open_ids}
        report = MessageHeldData(
            id, requester.user, requester.name, command.type, command.payload, command.held_by, command.reason,
            command.findings[:MAX_FINDINGS], due_at_ms,
        )  # fmt: skip
        return ActivityStep(
            (Fact("held", (id, data)),),
            HeldAnswer(id, _WAITING),
            reports=(ActivityReport("message.held", report),),
            weight=1 + nbytes // 1024,
        )

    def _full(self, user: str, nbytes: int) -> str:
        limits, held = self._limits, self._held
        if len(held.items) >= limits.items:
            return f"has {limits.items} messages for review"
        if held.of_user(user) >= limits.user_items:
            return f"has {limits.user_items} messages of this user for review"
        if held.nbytes + nbytes > limits.nbytes:
            return f"has {limits.nbytes} bytes of messages for review"
        return ""

    def _report(self, command: PutReport, requester: Requester, now_ms: int) -> ActivityStep[T]:
        message = command.user, -command.type, reported_key(command)
        known = self._reported.by_key.get(message)
        before = None if known is None else self._reported.items[known]
        is_own = before is not None and any(each[0] == requester.user for each in before.reports)
        if is_own or message in self._done.by_key:
            return ActivityStep(answer=ReportedMessage(True))
        made = {"user": requester.user, "reason": command.reason, "at_ms": now_ms}
        reporters = 1 if before is None else len(before.reports) + 1
        limits = self._limits
        if reporters > MAX_REPORTERS:
            return ActivityStep(answer=ReportedMessage(False))  # so many have said it already
        if before is not None:
            id, fact = before.id, Fact("seconded", (before.id, made))
        else:
            id, data = self._last_id + 1, reported_data(command, made, now_ms)
            own = sum(each.reports[0][0] == requester.user for each in self._reported.items.values())
            if (
                len(self._reported.items) >= limits.reports
                or own >= limits.user_items
                or self._reported.nbytes + bytes_of(data) > limits.nbytes
            ):
                return refused(ErrorCode.RATE_LIMITED, "has as many reports as it may", "room", 60_000)
            fact = Fact("reported", (id, data))
        report = MessageReportedData(
            id, command.user, command.name, command.type, command.payload, command.offset,
            UserReport(requester.user, command.reason, now_ms), reporters,
        )  # fmt: skip
        reports = (ActivityReport("message.reported", report),)
        return ActivityStep((fact,), ReportedMessage(False), reports=reports, weight=4)

    def _claim(self, command: ClaimItems, requester: Requester, now_ms: int) -> ActivityStep[T]:
        wanted: Iterable[HeldMessage]
        if command.ids:
            wanted = (each for id in dict.fromkeys(command.ids) if (each := self._open(id)) is not None)
        else:
            wanted = merge(self._held.items.values(), self._reported.items.values(), key=lambda each: each.id)
        found: list[HeldMessage] = []
        for each in wanted:
            is_own = command.ids and each.claimed_by == requester.user
            if each.state is _WAITING and (is_own or not each.is_claimed(now_ms)):
                found.append(each)
                if len(found) == command.limit and not command.ids:
                    break
        until_ms = now_ms + command.ttl_ms
        if not found:
            return ActivityStep(answer=ClaimedItems(0, until_ms, ()))
        fact = Fact("claimed", (self._fence + 1, requester.user, until_ms, tuple(each.id for each in found)))
        claimed = (each.claimed(requester.user, self._fence + 1, until_ms) for each in found)
        answer = ClaimedItems(self._fence + 1, until_ms, tuple(each.item("", now_ms) for each in claimed))
        return ActivityStep((fact,), answer, weight=len(found))

    def _decide(self, command: DecideItems, requester: Requester, now_ms: int) -> ActivityStep[T]:
        is_approval = command.verdict is Verdict.APPROVE
        state = _APPROVED if is_approval else _REJECTED
        results: list[DecidedItem] = []
        decided: list[HeldMessage] = []
        for id in self._named(command):
            held = self._open(id) or self._done.items.get(id)
            if held is None:
                results.append(DecidedItem(id, code=ErrorCode.UNKNOWN_ACTIVITY))
            elif held.state is not _WAITING:
                is_same = (held.state == _REJECTED) != is_approval
                results.append(DecidedItem(id, held.state, None if is_same else ErrorCode.STALE, held.user))
            elif not _may_decide(held, command.fence, requester.user, now_ms):
                results.append(DecidedItem(id, ReviewState.CLAIMED, ErrorCode.STALE, held.user))
            else:
                results.append(DecidedItem(id, state, None, held.user))
                decided.append(held)
        steps = self._decided(decided, is_approval, requester.user, command.reason, now_ms)
        return steps._replace(answer=DecidedItems(tuple(results), len(decided)))

    def _named(self, command: DecideItems) -> dict[int, None]:
        """Return the ids that a decision is about: those named, and of whole users those that wait."""
        held = self._held.items
        users = set() if command.user is None else {command.user}
        if command.verdict is Verdict.BAN:
            users |= self.authors(command)
        named = dict.fromkeys(command.ids)
        if users:
            named |= dict.fromkeys(id for id, each in held.items() if each.user in users and each.state is _WAITING)
        return named

    def _open(self, id: int) -> HeldMessage | None:
        """Return a message that is not done."""
        return self._held.items.get(id) or self._reported.items.get(id)

    def _table_of(self, id: int) -> ReviewTable:
        return self._reported if id in self._reported.items else self._held

    def _decided(
        self, items: Iterable[HeldMessage], is_approval: bool, by: str, reason: str, now_ms: int
    ) -> ActivityStep[T]:
        """Return the step that decides messages which wait."""
        name, state = ("approved", _APPROVED) if is_approval else ("rejected", _REJECTED)
        facts: list[Fact] = []
        reports: list[ActivityReport] = []
        answers: list[AnswerHeld] = []
        for each in items:
            facts.append(Fact(name, (each.id, by, reason, now_ms, each.user)))
            data = MessageDecidedData(each.id, each.user, state, by, reason)
            reports.append(ActivityReport("message.decided", data))
            if not is_approval:
                answers += self._answers(each, is_shown=False, reason=reason)
        return ActivityStep(tuple(facts), reports=tuple(reports), then=tuple(answers))

    def _answers(self, held: HeldMessage, *, is_shown: bool, reason: str = "") -> tuple[AnswerHeld, ...]:
        """Return the answer to the author of a message that was held; none of one that is only reported."""
        if held.held_by == HeldBy.REPORT:
            return ()
        return (AnswerHeld(self._addresses.get(held.id), held.user, held.id, held.type, held.key, is_shown, reason),)

    # ---- time

    def next_due(self) -> int | None:
        dues = self._dues
        while dues and not self._is_due_of(dues[0]):
            heappop(dues)
        due = dues[0][0] if dues else None
        release_at = self._release_at()
        if release_at is None:
            return due
        return release_at if due is None else min(due, release_at)

    def _is_due_of(self, due: tuple[int, int]) -> bool:
        held = self._held.items.get(due[1])
        return held is not None and held.state is _WAITING and held.due_at_ms == due[0]

    def _release_at(self) -> int | None:
        """Return when the first message may be shown; None: it is not approved."""
        first = next(iter(self._held.items.values()), None)
        if first is None or first.state is not _APPROVED:
            return None
        return 0 if len(self._released_at) < RELEASES_PER_S else self._released_at[0] + 1000

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        release_at = self._release_at()
        if release_at is not None and release_at <= now_ms:
            first = next(iter(self._held.items.values()))
            if first.lane >= Lane.CHAT or not self._has_released:
                return self._release(first, now_ms)
        self.next_due()
        if not self._dues or self._dues[0][0] > now_ms:
            return None
        held = self._held.items[self._dues[0][1]]
        return self._decided((held,), held.at_due == AtDeadline.APPROVE, "", "no reviewer has decided in time", now_ms)

    def _release(self, held: HeldMessage, now_ms: int) -> ActivityStep[T]:
        post = ReleasedPost(held.user, held.name, Role(held.role), held.type, Lane(held.lane), held.payload)
        answers = self._answers(held, is_shown=True)
        fact = Fact("released", (held.id, now_ms))
        if post.lane >= Lane.CHAT:
            return ActivityStep((fact,), then=(ShowPost(post), *answers))
        return ActivityStep((fact,), post=post, then=answers)

    def resumed(self, now_ms: int) -> ActivityStep[T] | None:
        until_ms = now_ms + RESUME_GRACE_MS
        late = tuple(
            each.id
            for each in self._held.items.values()
            if each.state is _WAITING and each.due_at_ms is not None and each.due_at_ms <= now_ms
        )
        return ActivityStep((Fact("extended", (until_ms, late)),), weight=len(late)) if late else None

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        items = list(self._held.items.values())
        return self._decided(items, False, "", "the room has ended", now_ms) if items else None

    # ---- facts

    def settled(self) -> None:
        self._changes.clear()
        self._has_released = False

    def apply(self, fact: Fact) -> None:
        self._changes.append(_Change((self._facts, self._last_id, self._fence, self._released_at), []))
        self._facts += 1
        data = fact.data
        match fact.name:
            case "held":
                self._last_id = data[0]
                self._put(self._held, held_message(data[0], data[1]))
            case "claimed":
                self._fence = data[0]
                for table, item in self._known(*data[3]):
                    self._put(table, item.claimed(data[1], data[0], data[2]))
            case "extended":
                for table, item in self._known(*data[1]):
                    self._put(table, item._replace(due_at_ms=data[0]))
            case "gone":
                self._last_id = data[0]
            case "reported":
                self._last_id = data[0]
                self._put(self._reported, held_message(data[0], data[1]))
            case "seconded":
                for table, item in self._known(data[0]):
                    self._put(table, item.seconded(data[1]))
            case "approved" if data[0] in self._reported.items:
                self._finish(self._reported.items[data[0]].decided(_APPROVED, *data[1:4]))
            case "approved":
                for table, item in self._known(data[0]):
                    self._put(table, item.decided(_APPROVED, *data[1:4]))
            case "rejected":
                for _, item in self._known(data[0]):
                    self._finish(item.decided(_REJECTED, *data[1:4]))
            case _:
                self._released_at = (*self._released_at, data[1])[-RELEASES_PER_S:]
                self._has_released = True
                for _, item in self._known(data[0]):
                    self._finish(item._replace(state=_SHOWN))

    def undo(self, fact: Fact) -> None:
        numbers, places = self._changes.pop()
        self._has_released = False
        for table, id, before in reversed(places):
            table.put(id, before)
            if table is self._held and before is not None:
                self._note_due(before)
        self._facts, self._last_id, self._fence, self._released_at = numbers

    def _known(self, *ids: int) -> list[tuple[ReviewTable, HeldMessage]]:
        """Return the messages of a fact: those of users who were erased since are not there any more."""
        tables = ((self._table_of(id), id) for id in ids)
        return [(table, table.items[id]) for table, id in tables if id in table.items]

    def _put(self, table: ReviewTable, item: HeldMessage) -> None:
        self._changes[-1].places.append((table, item.id, table.put(item.id, item)))
        if table is self._held:
            self._note_due(item)

    def _remove(self, table: ReviewTable, id: int) -> None:
        self._changes[-1].places.append((table, id, table.put(id, None)))

    def _note_due(self, item: HeldMessage) -> None:
        if item.due_at_ms is not None and item.state is _WAITING:
            heappush(self._dues, (item.due_at_ms, item.id))

    def _finish(self, item: HeldMessage) -> None:
        """Move a message to those that are done."""
        self._remove(self._table_of(item.id), item.id)
        self._put(self._done, item)
        while len(self._done.items) > MAX_DONE or self._done.nbytes > MAX_DONE_BYTES:
            self._remove(self._done, next(iter(self._done.items)))

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        name, data = fact
        match name:
            case "held" | "reported" if data[1]["user"] == erased.user:
                return Fact("gone", data[:1])
            case "reported" | "seconded":
                return Fact(name, (data[0], without_user(data[1], *erased)))
            case "claimed":
                return Fact(name, (data[0], erased.renamed(data[1]), *data[2:]))
            case "approved" | "rejected" if erased.user in (data[1], data[4]):
                return Fact(name, (data[0], erased.renamed(data[1]), "", data[3], erased.renamed(data[4])))
        return fact

    def erase(self, erased: ErasedUser) -> None:
        """Remove the messages of a user; what it has claimed, decided and reported is its pseudonym's."""
        for table in (self._held, self._reported, self._done):
            for item in list(table.items.values()):
                if item.user == erased.user:
                    table.put(item.id, None)
                    self._addresses.pop(item.id, None)
                elif item.names(erased.user):
                    table.put(item.id, item.without(*erased))

    def dump(self) -> tuple[Any, ...]:
        return (
            self._facts, self._last_id, self._fence, self._released_at,
            *(tuple(table.items.values()) for table in (self._held, self._reported, self._done)),
        )  # fmt: skip

    # ---- what is seen of it

    def view(self, is_staff: bool) -> None:
        """Members get nothing of it; staff asks for the queue."""
        return None

    def counter(self) -> RoomEvent | None:
        held, reported = self._held, len(self._reported.items)
        changed = ReviewQueueChanged(
            held.waiting + reported, reported, len(held.items) - held.waiting, self.waiting_since_ms, self._last_id
        )
        return RoomEvent("reviews.changed", changed)

    @property
    def amounts(self) -> Mapping[str, int]:
        held = self._held
        return {
            "waiting": held.waiting,
            "approved": len(held.items) - held.waiting,
            "reported": len(self._reported.items),
        }


def _may_decide(held: HeldMessage, fence: int | None, user: str, now_ms: int) -> bool:
    """Return whether a reviewer may decide a message: no reviewer has it, or this one does by its claim."""
    if fence is not None:
        return fence == held.fence
    return held.claimed_by == user or not held.is_claimed(now_ms)
