"""Activities of a room as part of its stream: a batch with an event is a record of the stream, any other is not.

The end of the room waits until no batch of an activity is under way, and ends the activities in its own transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Generic, TypeVar

from broker.core.commerce.activity import BROKER, Activity, ActivityRefusal, ErasedUser, Requester
from broker.core.commerce.audiences import Audiences, ranked_by
from broker.core.commerce.pk import PK_KEY, PK_SHOWN_KEY
from broker.core.commerce.pk_half import OtherScored
from broker.core.commerce.room_activities import (
    ActivityBatch,
    ActivityEffect,
    ActivityKey,
    AnswerCommand,
    PushCounter,
    RecordBatch,
    RoomActivities,
    StartActions,
    Times,
)
from broker.core.commerce.room_rankings import RoomRankings, paid_cents
from broker.core.rooms.audience import selector
from broker.core.rooms.effects import Effect, End, PendingReply, Record
from broker.core.rooms.likes import LikeCounter
from broker.core.rooms.phases import RoomPhases
from broker.core.rooms.pk_scores import PkScores
from broker.core.rooms.stream import Stream
from protocol.activities import activity_payload
from protocol.activities.audiences import Audience
from protocol.codes import ErrorCode, Lane, LeaveReason, MessageType, RoomPhase
from protocol.messages import ActivityView, Event
from protocol.payloads import ActivityPayload, GiftPayload, HighlightPayload, payload_record

__all__ = ["ActivitySteps"]

T = TypeVar("T")

HELD_S = 60.0
"""How often the time is read again while the wall clock is not trusted for what began before the start."""
ENDING_S = 1.0


class ActivitySteps(Generic[T]):
    """Commands, timers and results of the activities of one room. ``activities`` None: it has none, nothing is kept."""

    __slots__ = (
        "_ends", "_is_resumed", "_likes", "_likes_due_ms", "_phases", "_rankings", "_scores", "_seen_at", "_stream",
        "activities", "due_at",
    )  # fmt: skip

    def __init__(
        self,
        activities: RoomActivities[Any] | None,
        stream: Stream[T],
        phases: RoomPhases,
        rankings: RoomRankings,
        likes: LikeCounter,
        now: float,
    ) -> None:
        self.activities = activities
        self._stream = stream
        self._phases = phases
        self._rankings = rankings
        self._ends: list[tuple[Event, tuple[PendingReply[T], ...]]] = []
        """Ends of the room that wait, and whom each answers."""
        self._likes = likes
        self._scores = PkScores()
        self._likes_due_ms: int | None = None
        """When the PK of the room counts likes next, by its time."""
        self._is_resumed = False
        self._seen_at = now
        """When the last command or timer came: monotonic seconds."""
        self.due_at = inf
        """When `due` should run: monotonic seconds."""
        if activities is not None and len(activities):
            self.due_at = now

    @property
    def is_busy(self) -> bool:
        """Whether an activity has something to do, now or at a time: the room stays open for it."""
        activities = self.activities
        return self.due_at < inf or (activities is not None and (activities.has_actions or not activities.is_idle))

    def snapshot(self, is_staff: bool, user: str) -> tuple[tuple[ActivityView, ...], tuple[ActivityView, ...], int]:
        """Return what a member that joins gets: what everybody gets, its own, and how many are left out."""
        if self.activities is None or not len(self.activities):
            return (), (), 0
        views, left_out = self.activities.views(is_staff)
        return views, self.activities.own_views(user), left_out

    @property
    def audiences(self) -> Audiences[Any] | None:
        """The tags of the room; None: it has none."""
        found: Audiences[Any] | None = None if self.activities is None else self.activities.find(Audiences.kind, "")
        return found

    def rank(self) -> None:
        """Rank the shares and invites that the activities have: after a restart."""
        audiences = self.audiences
        if audiences is not None:
            for kind, counts in audiences.counts().items():
                self._rankings.correct(kind, counts, self._stream.history.last_offset)

    def follows_since(self, user: str) -> int | None:
        """Return since when a user (without its tenant) follows the host, Unix milliseconds; None: it does not."""
        audiences = self.audiences
        return None if audiences is None else audiences.follows_since(user)

    def tag_bits(self, tags: Sequence[str]) -> int:
        """Return the bits of tags by name, see `Audiences.bits_of`."""
        audiences = self.audiences
        return (Audiences[Any]() if audiences is None else audiences).bits_of(tags)

    def is_for(self, tags: int) -> Callable[[Audience], bool]:
        """Return what says whether a message with an audience is for a viewer with these tags."""
        return lambda audience: selector(audience, self.tag_bits).selects(tags)

    def tags_of(self, user: str, own: Sequence[str]) -> int:
        """Return the bits of the tags of a user (without its tenant); ``own``: those of its token."""
        audiences = self.audiences
        return 0 if audiences is None else audiences.tags_of(user, own)

    # Any: each kind has its own commands, and the tickets are the caller's business.
    def command(
        self,
        key: ActivityKey,
        command: Any,
        requester: Requester,
        ticket: Any,
        now: float,
        times: Times,
        *,
        creates: bool = False,
    ) -> list[Effect[T]]:
        """Take a command for an activity. ``creates``: it may be a new one."""
        if self._phases.wanted is RoomPhase.ENDED:
            return [AnswerCommand(ticket, ActivityRefusal(ErrorCode.ROOM_ENDED, "has ended", "room"))]
        if self.activities is None:
            return [
                AnswerCommand(
                    ticket, ActivityRefusal(ErrorCode.NOT_KEPT, "this broker keeps nothing: start it with a ledger")
                )
            ]
        effects = self._resume(self.activities, now, times)
        return effects + self._out(
            self.activities.command(key, command, requester, ticket, times, creates=creates), now
        )

    def follows(self, user: str) -> bool:
        """Return whether `user_left` has something to do for a user (without its tenant)."""
        return self.activities is not None and self.activities.follows(user)

    def user_left(self, user: str, ticket: Any, now: float, times: Times) -> list[Effect[T]]:
        """The last connection of a user (without its tenant) has left the room."""
        if self.activities is None or self._phases.wanted is RoomPhase.ENDED:
            return []
        effects = self._resume(self.activities, now, times)
        return effects + self._out(self.activities.user_left(user, ticket, times), now)

    def erase(self, erased: ErasedUser, now: float) -> bool:
        """Keep nothing of a user any more, see `RoomActivities.erase`."""
        if self.activities is None:
            return True
        is_done = self.activities.erase(erased)
        self._out((), now)
        return is_done

    def gave(self, paid: GiftPayload | HighlightPayload, at_ms: int, offset: int, now: float) -> list[Effect[T]]:
        """A paid event is in the stream: it may count for a PK."""
        if self.activities is None:
            return []
        self._scores.add(self.activities.find(*PK_KEY), paid_cents(paid), at_ms, offset)
        # Before the first command or timer, which does what a restart brings about, it waits.
        return self._out((), now) if self._is_resumed and self._scores.has_waiting else []

    def due(self, now: float, times: Times) -> list[Effect[T]]:
        """Run what is due."""
        if self.activities is None or self._phases.wanted is RoomPhase.ENDED:
            self.due_at = now + ENDING_S
            return []
        return self._resume(self.activities, now, times) + self._out(self.activities.due(times), now)

    def _resume(self, activities: RoomActivities[Any], now: float, times: Times) -> list[Effect[T]]:
        """Read the time; the first time, do what a restart brings about."""
        self._seen_at = now
        if self._is_resumed:
            return []
        self._is_resumed = True
        return self._out(activities.resume(times), now)

    def recall(self, activity: Activity[Any], now: float, times: Times) -> None:
        """Take an activity again that has left memory, see `RoomActivities.recall`."""
        assert self.activities is not None
        self._seen_at = now
        self.activities.recall(activity, times)
        self._out((), now)

    def committed(self, batches: Iterable[ActivityBatch], now: float) -> list[Effect[T]]:
        """The ledger has made batches durable: what follows."""
        effects: list[Effect[T]] = []
        for made in batches:
            assert self.activities is not None
            effects += self._out(self.activities.committed(made.key), now)
            if made.key[0] == Audiences.kind:
                for kind, user in filter(None, map(ranked_by, made.batch.facts)):
                    self._rankings.add(kind, user, 1, self._stream.history.last_offset)
        return effects + self._end_if_idle(now)

    def refused(self, batches: Iterable[ActivityBatch], now: float) -> list[Effect[T]]:
        """The ledger has refused batches: what follows."""
        effects: list[Effect[T]] = []
        for made in batches:
            assert self.activities is not None
            effects += self._out(self.activities.refused(made.key), now)
        return effects + self._end_if_idle(now)

    def end(self, event: Event, asked: Sequence[PendingReply[T]], now: float) -> list[Effect[T]]:
        """Record the end of the room as soon as no batch is under way. ``event``: of the stream, admitted."""
        self._ends.append((event, tuple(asked)))
        return self._end_if_idle(now)

    def _end_if_idle(self, now: float) -> list[Effect[T]]:
        activities = self.activities
        if not self._ends or (activities is not None and not activities.is_idle):
            return []
        effects: list[Effect[T]] = []
        ends, self._ends = self._ends, []
        for event, asked in ends:
            batches = () if activities is None else activities.end()
            then = (End(LeaveReason.ROOM_ENDED),)
            effects += self._stream.record(event, Lane.CONTROL, asked, now, then, batches)
            if not self._stream.is_durable:
                self._phases.complete(RoomPhase.ENDED)
        return effects

    def _out(self, effects: Iterable[ActivityEffect], now: float) -> list[Effect[T]]:
        """Put batches with an event on their way into the stream; follow the next timer."""
        assert self.activities is not None
        out: list[Effect[T]] = []
        left: deque[ActivityEffect] = deque(effects)
        while left or self._score(left, now):
            effect = left.popleft()
            if isinstance(effect, RecordBatch) and effect.made.batch.has_event:
                out.append(self._record(effect.made))
            elif isinstance(effect, AnswerCommand) and effect.ticket is self._scores:
                self._scores.answered(effect.answer, now)
            else:
                out.append(effect)
            if isinstance(effect, PushCounter) and effect.key == PK_KEY:
                out += self._show_score()
        times = self.activities.times
        wait_ms = self.activities.wait_ms
        if self._likes_due_ms is not None:
            wait_ms = min(wait_ms, self._likes_due_ms - self.activities.time_of(PK_KEY))
        self.due_at = max(now, min(self._seen_at + wait_ms / 1000, self._scores.retry_at))
        if self.due_at < inf and times.continued_ms != times.now_ms:
            self.due_at = min(self.due_at, now + HELD_S)
        return out

    def _score(self, effects: deque[ActivityEffect], now: float) -> bool:
        """Add the effects of what counts for a PK next; return whether there are any."""
        if self.activities is None:
            return False
        pk = self.activities.find(*PK_KEY)
        if pk is not None and self._is_resumed:
            self._likes_due_ms = self._scores.add_likes(pk, self._likes.total, self.activities.time_of(PK_KEY))
        if not self._scores.has_waiting:
            return False
        command = self._scores.next(pk, now)
        if command is None:
            return False
        # The time is that of the last command or timer: what has become due since then waits for its timer.
        effects += self.activities.command(PK_KEY, command, BROKER, self._scores, self.activities.times)
        return bool(effects)

    def _show_score(self) -> list[Effect[T]]:
        """Return what shows the score of the PK in the other room, as often as its counter is pushed here."""
        assert self.activities is not None
        pk = self.activities.find(*PK_KEY)
        half = None if pk is None else pk.state()
        if half is None or half.starts_at_ms is None or half.outcome is not None:
            return []
        return [StartActions(PK_SHOWN_KEY, ((half.other_room, OtherScored(half.id, half.score)),))]

    def _record(self, made: ActivityBatch) -> Record[T]:
        assert self.activities is not None
        at_ms = self.activities.times.now_ms
        lane = Lane.COMMERCE
        shown, post = made.batch.event, made.batch.post
        if post is not None:
            event = Event(post.type, at_ms, post.user, post.name, payload_record(post.type, post.payload))
            lane = post.lane
        else:
            assert shown is not None
            payload = ActivityPayload(*activity_payload(shown.name, made.key[1], shown.data))
            event = Event(MessageType.ACTIVITY, at_ms, "", "", payload)
        self._stream.admit(lane)
        return Record(event, lane, (), (), (made,))
