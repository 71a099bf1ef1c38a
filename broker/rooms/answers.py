"""Answers of a room to posts: sent to the sessions, counted where they are refusals, and kept with the traced posts."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from broker.core.rooms.counters import RoomCounters
from broker.core.rooms.effects import Flagged, Outcomes, RefusePost, Reply, ShowToSender
from broker.core.rooms.traces import RoomTraces
from broker.rooms.measures import REFUSALS, RoomMeasures
from broker.rooms.members import Member, PostRef, reply_all
from broker.rooms.reports import RoomReporter
from protocol.codes import MessageType, Outcome
from protocol.messages import AckResult, FirstResult, Post

__all__ = ["RoomAnswers"]

_LIKE = MessageType.LIKE
_TEXTS = frozenset({MessageType.DANMAKU, MessageType.EMOTE})


class RoomAnswers:
    """Answers the posts to the room with a number. ``reporter``: of webhooks, None = there are none."""

    def __init__(
        self,
        number: int,
        measures: RoomMeasures,
        counters: RoomCounters,
        reporter: RoomReporter | None,
        clock: Callable[[], float],
        unix_ms: Callable[[], int],
    ) -> None:
        self.traces: RoomTraces[PostRef] = RoomTraces(measures.traces)
        """Posts that are followed."""
        self._number = number
        self._measures = measures
        self._counters = counters
        self._reporter = reporter
        self._clock = clock
        self._unix_ms = unix_ms

    def trace(self, member: Member, sequence: int, post: Post, now: float, at_ms: int = 0) -> None:
        """Follow a post that has just come: one with an id, or of the lanes 0 to 2. ``at_ms``: the Unix time, 0 = it is
        read."""
        kind = post.type
        if kind == _LIKE:
            return
        text = post.payload[0] if kind in _TEXTS else None
        ticket = member, sequence
        self.traces.begin(ticket, member.user_id, post.client_msg_id, kind, text, now, at_ms or self._unix_ms())

    def reply(self, effect: Reply[PostRef]) -> None:
        """Answer one post."""
        (member, sequence), outcome, detail, first = effect
        if self.traces.open:
            self.traces.decide(effect.ticket, outcome, detail, self._clock())
        repeat = () if first is None else (FirstResult(sequence, *first),)
        member.session.reply_acks(self._number, [AckResult(sequence, outcome, detail)], repeat)
        if outcome in REFUSALS:
            self._counters.refused(self._measures.refuse(outcome, detail))
            if outcome is Outcome.LIMITED and self._reporter is not None:
                self._reporter.over_limits(member.user_id)

    def refuse(self, effect: RefusePost[PostRef]) -> None:
        """Refuse one post with its reason."""
        (member, sequence), code, wait_ms, reason = effect
        self.traces.decide(effect.ticket, Outcome.REJECTED, int(code), self._clock())
        self._counters.refused(self._measures.refuse(Outcome.REJECTED, int(code)))
        member.session.reply_with_reason(
            self._number, AckResult(sequence, Outcome.REJECTED, int(code)), reason, wait_ms
        )

    def flagged(self, effect: Flagged) -> None:
        """Count and report a post in which words or detectors have found something."""
        self._counters.found(effect.verdict.action.name.lower())
        if self._reporter is not None:
            self._reporter.flagged(effect)

    def over_quota(self, member: Member, sequence: int, wait_s: float) -> None:
        """Refuse one post above the quota of the room's tenant."""
        result = AckResult(sequence, Outcome.LIMITED, max(1, ceil(wait_s * 1000)))
        member.session.reply_acks(self._number, [result])
        self._measures.over_tenant_quota()

    def shown_to_sender(self, effect: ShowToSender[PostRef]) -> None:
        """Answer one post that its sender alone sees, unless that is done already."""
        member, sequence = effect.ticket
        if effect.outcome is None:
            return
        self.traces.decide(effect.ticket, effect.outcome, 0, self._clock(), to_sender=True)
        member.session.reply_acks(self._number, [AckResult(sequence, effect.outcome)])

    def reply_tick(self, effect: Outcomes[PostRef]) -> None:
        """Answer the posts of a tick."""
        self.traces.decide_all(effect.outcomes, effect.number, self._clock())
        reply_all(self._number, effect.outcomes)
