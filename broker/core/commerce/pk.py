"""PK: two rooms compare what their viewers give within a time. Each room holds its half as an activity of its own.

IDLE -> INVITING or INVITED -> RUNNING -> SCORING -> RESULT -> IDLE. The halves speak by messages (`PkMessage`): one
waits in the fold of its sender until the other room has answered it (`Delivered`), so a restart of either room sends it
again, and each is idempotent by PK and kind. The inviting room alone decides the result, so the halves cannot disagree;
where it does not know the other score in time, the PK is VOID.

A room that ends, or gives up, loses by forfeit while the PK runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from broker.core.commerce.activity import (
    Activity,
    ActivityRefusal,
    ActivityReport,
    ActivityStep,
    Fact,
    Requester,
    RoomEvent,
    refused,
)
from broker.core.commerce.pk_half import (
    AnswerInvitation,
    CancelPk,
    Delivered,
    InviteRoom,
    OtherScored,
    PkHalf,
    PkHandled,
    PkMessage,
    ReceiveMessage,
    Scored,
)
from protocol.activities.pk import PkEnded, PkMeasure, PkOutcome, PkPhase, PkScore, PkStarted, PkState
from protocol.codes import ErrorCode
from protocol.fields import MAX_INT

__all__ = ["PK_KEY", "PK_SHOWN_KEY", "Pk"]

T = TypeVar("T")

INVITATION_MS = 30_000
START_MS = 3_000
"""From the acceptance to the start: both rooms know of it by then."""
COLLECT_MS = 1_000
"""After the end, for gifts of before it that are still on their way to the ledger."""
OTHER_SCORE_MS = 10_000
"""How long the inviting room waits for the other score."""
RESULT_MS = 10_000
RESUMED_MS = 5_000
LATER_MS = 1_000
MAX_PKS = 1_000
"""Of one run of the room: their ids are remembered."""

_GONE = frozenset({ErrorCode.UNKNOWN_ROOM, ErrorCode.ROOM_ENDED})


class Pk(Activity[T]):
    """One room's half of its PK, and those it has had."""

    kind = "pk"

    def __init__(self, id: str = "", room: str = "") -> None:
        """``room``: name of the own room, without the tenant; empty = who gives it `InviteRoom` has compared them."""
        super().__init__(id)
        self._room = room
        self._half: PkHalf | None = None
        self._outbox: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {}
        """Messages that wait for an answer: room and data, by PK and kind."""
        self._had: dict[str, PkHalf] = {}
        """PKs that are over."""
        self._ended_at: int | None = None
        self._other_shown: int | None = None

    @property
    def exists(self) -> bool:
        return self._half is not None or bool(self._had)

    @property
    def removable_at(self) -> int | None:
        return self._ended_at

    @property
    def pending_actions(self) -> tuple[tuple[str, PkMessage], ...]:
        """Rooms and the messages for them, to be sent again until `Delivered`; only while no batch is under way."""
        return tuple((room, PkMessage(kind, pk, data)) for (pk, kind), (room, data) in self._outbox.items())

    def takes(self, measure: PkMeasure) -> bool:
        """Return whether gifts, or likes, of now may count: in a PK that runs, or in one that an invitation becomes."""
        half = self._half
        return (
            half is not None
            and half.is_open
            and not half.is_final
            and half.measure == measure
            and self._ended_at is None
        )

    @property
    def window(self) -> tuple[int, int] | None:
        """Times of the events that count, the end not included; None = no PK is accepted."""
        half = self._half
        if half is None or half.starts_at_ms is None or half.ends_at_ms is None:
            return None
        return half.starts_at_ms, half.ends_at_ms

    @property
    def counted_to(self) -> int:
        """Offset of the last event that is in the score: after a restart, later ones are to be reported again."""
        return 0 if self._half is None else self._half.counted_to

    # ---- commands

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T]:
        match command:
            case InviteRoom():
                return self._invite(command, now_ms)
            case AnswerInvitation():
                return self._answer(command, now_ms)
            case CancelPk():
                return self._cancel(command.pk, now_ms)
            case Scored():
                return self._count(command)
            case ReceiveMessage():
                return self._receive(command.room, command.message, now_ms)
            case Delivered():
                return self._delivered(command, now_ms)
            case OtherScored():
                if self._open(command.pk) is not None:
                    self._other_shown = command.score
                return _HANDLED
        raise TypeError(command)

    def _invite(self, command: InviteRoom, now_ms: int) -> ActivityStep[T]:
        half = PkHalf(
            command.pk, command.other_room, True, command.measure, command.duration_ms, PkPhase.INVITING,
            now_ms + INVITATION_MS,
        )  # fmt: skip
        refusal = self._refusal_of_new(half)
        if refusal is not None:
            return ActivityStep(answer=refusal)
        known = self._known(half.pk)
        if known is not None:
            return ActivityStep(answer=known.state())
        data = (half.measure, half.duration_ms, half.deadline_ms)
        fact = self._change("inviting", half, send=(PkMessage("invite", half.pk, data),))
        return ActivityStep((fact,), half.state())

    def _refusal_of_new(self, half: PkHalf) -> ActivityRefusal | None:
        known = self._known(half.pk)
        if known is not None:
            if known.content() != half.content():
                return ActivityRefusal(ErrorCode.KEY_REUSED, "was used before with another content", "id")
            return None
        if half.other == self._room:
            return ActivityRefusal(ErrorCode.BAD_FIELD, "must be another room", "other_room")
        if self._half is not None and self._half.is_open:
            return ActivityRefusal(ErrorCode.OUT_OF_STATE, "has a PK already", "room")
        if len(self._had) >= MAX_PKS:
            return ActivityRefusal(ErrorCode.OUT_OF_STATE, f"has had {MAX_PKS} PKs", "room")
        return None

    def _answer(self, command: AnswerInvitation, now_ms: int) -> ActivityStep[T]:
        half = self._known(command.pk)
        if half is None or half.is_inviting:
            return ActivityStep(answer=_UNKNOWN)
        if half.phase != PkPhase.INVITED or not half.is_open:
            agrees = half.is_accepted if command.accepts else half.outcome == PkOutcome.DECLINED
            return ActivityStep(answer=half.state() if agrees else _over(half))
        if not command.accepts:
            return self._end_invitation("declined", half, PkOutcome.DECLINED, "decline")
        starts_at_ms = now_ms + START_MS
        return self._run(half, starts_at_ms, starts_at_ms + half.duration_ms, answers=True)

    def _run(self, half: PkHalf, starts_at_ms: int, ends_at_ms: int, *, answers: bool) -> ActivityStep[T]:
        """The PK is accepted. ``answers``: by this room, which says so to the other."""
        running = half._replace(
            phase=PkPhase.RUNNING, deadline_ms=ends_at_ms, starts_at_ms=starts_at_ms, ends_at_ms=ends_at_ms
        )
        send = (PkMessage("accept", half.pk, (starts_at_ms, ends_at_ms)),) if answers else ()
        started = PkStarted(half.pk, half.other, PkMeasure(half.measure), starts_at_ms, ends_at_ms)
        return ActivityStep(
            (self._change("running", running, send=send, drops=self._waiting_of(half.pk)),),
            running.state() if answers else PkHandled(),
            event=RoomEvent("pk.started", started),
            reports=(ActivityReport("pk.started", started),),
        )

    def _cancel(self, pk: str, now_ms: int) -> ActivityStep[T]:
        half = self._known(pk)
        if half is None:
            return ActivityStep(answer=_UNKNOWN)
        if not half.is_open or half.has_given_up:
            return ActivityStep(answer=half.state())
        if half.phase == PkPhase.INVITING:
            return self._end_invitation("cancelled", half, PkOutcome.CANCELLED, "cancel")
        if half.phase == PkPhase.INVITED:
            return self._end_invitation("declined", half, PkOutcome.DECLINED, "decline")
        if half.phase == PkPhase.SCORING:
            return refused(ErrorCode.OUT_OF_STATE, "is over and being scored", "id")
        if half.is_inviting:
            return self._finish(half, PkOutcome.LOST, now_ms, is_forfeit=True, has_answer=True)
        gives_up = half._replace(has_given_up=True)
        fact = self._change("given_up", gives_up, send=(PkMessage("forfeit", half.pk),))
        return ActivityStep((fact,), gives_up.state())

    def _count(self, command: Scored) -> ActivityStep[T]:
        half = self._half
        if (
            half is None
            or not half.takes_score
            or not (half.starts_at_ms or 0) <= command.at_ms < (half.ends_at_ms or 0)
        ):
            return _HANDLED
        if command.offset and command.offset <= half.counted_to:
            return _HANDLED
        if half.score + command.amount > MAX_INT:
            return refused(ErrorCode.BAD_FIELD, "makes the score too large", "amount")
        fact = Fact("scored", (command.amount, half.counted_to, max(half.counted_to, command.offset)))
        return ActivityStep((fact,), PkHandled())

    # ---- messages between the rooms

    def _receive(self, room: str, message: PkMessage, now_ms: int) -> ActivityStep[T]:
        if message.kind == "invite":
            return self._invited(room, message)
        half = self._known(message.pk)
        if half is None or half.other != room:
            return ActivityStep(answer=_UNKNOWN)
        if not half.is_open:
            # What was decided stands; only an acceptance must hear that it comes too late.
            return ActivityStep(answer=_over(half)) if message.kind == "accept" and not half.is_accepted else _HANDLED
        match message.kind:
            case "accept" if half.phase == PkPhase.INVITING:
                return self._run(half, *message.data, answers=False)
            case "decline" if half.phase == PkPhase.INVITING:
                return self._end_invitation("declined", half, PkOutcome.DECLINED)
            case "cancel" if half.phase == PkPhase.INVITED:
                return self._end_invitation("cancelled", half, PkOutcome.CANCELLED)
            case "cancel" if not half.is_inviting:
                return self._finish(half, PkOutcome.VOID, now_ms)
            case "final" if half.is_accepted and half.is_inviting and half.other_score is None:
                return self._other_final(half, message.data[0], now_ms)
            case "forfeit" if half.is_accepted and half.is_inviting:
                return self._finish(half, PkOutcome.WON, now_ms, is_forfeit=True)
            case "result" if half.is_accepted and not half.is_inviting:
                outcome, other_score, is_forfeit = message.data
                scored = half._replace(other_score=other_score)
                return self._finish(scored, PkOutcome(outcome), now_ms, is_forfeit=is_forfeit)
            case "final" | "forfeit" if half.phase == PkPhase.INVITING:
                return ActivityStep(answer=_NOT_ACCEPTED_YET)
        return _HANDLED

    def _invited(self, room: str, message: PkMessage) -> ActivityStep[T]:
        measure, duration_ms, expires_at_ms = message.data
        half = PkHalf(message.pk, room, False, measure, duration_ms, PkPhase.INVITED, expires_at_ms)
        refusal = self._refusal_of_new(half)
        if refusal is not None:
            return ActivityStep(answer=refusal)
        if self._known(half.pk) is not None:
            return _HANDLED
        return ActivityStep((self._change("invited", half),), PkHandled())

    def _delivered(self, command: Delivered, now_ms: int) -> ActivityStep[T]:
        key = (command.pk, command.kind)
        if key not in self._outbox:
            return _HANDLED
        half = self._open(command.pk)
        drops = (self._message(key),)
        if half is None or command.code is None:
            return ActivityStep((self._change("delivered", self._half, drops=drops),), PkHandled())
        if command.kind == "invite":
            return self._end_invitation("declined", half, PkOutcome.DECLINED)
        if command.kind != "accept" and command.code in _GONE:
            return self._gone(half, now_ms)
        return self._finish(half, PkOutcome.VOID, now_ms)

    def _gone(self, half: PkHalf, now_ms: int) -> ActivityStep[T]:
        """The other room has ended while the PK runs."""
        if half.has_given_up:
            return self._finish(half, PkOutcome.VOID, now_ms)
        return self._finish(half, PkOutcome.WON, now_ms, is_forfeit=True)

    def _other_final(self, half: PkHalf, other_score: int, now_ms: int) -> ActivityStep[T]:
        """The other score is complete: if the own one is too, comparing them is due at once."""
        scored = half._replace(other_score=other_score, deadline_ms=now_ms if half.is_final else half.deadline_ms)
        return ActivityStep((self._change("other_final", scored),), PkHandled())

    # ---- ends

    def _end_invitation(self, name: str, half: PkHalf, outcome: PkOutcome, kind: str = "") -> ActivityStep[T]:
        """An invitation is over. ``kind``: of the message about it to the other room, empty = it knows."""
        over = half._replace(phase=PkPhase.IDLE, deadline_ms=None, outcome=outcome)
        send = (PkMessage(kind, half.pk),) if kind else ()
        fact = self._change(name, None, send=send, drops=self._waiting_of(half.pk), over=over)
        return ActivityStep((fact,), over.state())

    def _compare(self, half: PkHalf, now_ms: int) -> ActivityStep[T]:
        """Decide by the scores, of which the other may be missing."""
        if half.other_score is None:
            return self._finish(half, PkOutcome.VOID, now_ms)
        if half.score == half.other_score:
            return self._finish(half, PkOutcome.DRAW, now_ms)
        return self._finish(half, PkOutcome.WON if half.score > half.other_score else PkOutcome.LOST, now_ms)

    def _finish(
        self, half: PkHalf, outcome: PkOutcome, now_ms: int, *, is_forfeit: bool = False, has_answer: bool = False
    ) -> ActivityStep[T]:
        """A PK that was accepted has its result; the inviting room says it to the other."""
        over = half._replace(
            phase=PkPhase.RESULT, deadline_ms=now_ms + RESULT_MS, outcome=outcome, is_forfeit=is_forfeit
        )
        ended = PkEnded(half.pk, half.other, outcome, half.score, half.other_score, is_forfeit)
        return ActivityStep(
            (self._change("result", over, send=_result(over), drops=self._waiting_of(half.pk), over=over),),
            over.state() if has_answer else PkHandled(),
            event=RoomEvent("pk.ended", ended),
            reports=(ActivityReport("pk.ended", ended),),
        )

    # ---- time

    def next_due(self) -> int | None:
        return None if self._half is None or self._ended_at is not None else self._half.deadline_ms

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        half, due = self._half, self.next_due()
        if half is None or due is None or now_ms < due:
            return None
        return self._fall_due(half, now_ms)._replace(answer=None)

    def _fall_due(self, half: PkHalf, now_ms: int) -> ActivityStep[T]:
        match half.phase:
            case PkPhase.INVITING:
                return self._end_invitation("expired", half, PkOutcome.EXPIRED, "cancel")
            case PkPhase.INVITED:
                return self._end_invitation("expired", half, PkOutcome.EXPIRED, "decline")
            case PkPhase.RUNNING:
                scoring = half._replace(phase=PkPhase.SCORING, deadline_ms=now_ms + COLLECT_MS)
                return ActivityStep((self._change("scoring", scoring),))
            case PkPhase.SCORING if not half.is_final:
                return self._final(half, now_ms)
            case PkPhase.SCORING:
                return self._compare(half, now_ms)
        return ActivityStep((self._change("idle", None),))

    def _final(self, half: PkHalf, now_ms: int) -> ActivityStep[T]:
        """The own score is complete. The inviting room compares it with the other, at once where it has it."""
        if not half.is_inviting:
            final = half._replace(is_final=True, deadline_ms=None)
            return ActivityStep((self._change("final", final, send=(PkMessage("final", half.pk, (half.score,)),)),))
        wait_ms = OTHER_SCORE_MS if half.other_score is None else 0
        return ActivityStep((self._change("final", half._replace(is_final=True, deadline_ms=now_ms + wait_ms)),))

    def resumed(self, now_ms: int) -> ActivityStep[T] | None:
        """Give the host of an invitation time to answer it, and ask whether the other room is still there."""
        half = self._half
        if half is None or not half.is_open:
            return None
        at_least = now_ms + (RESUMED_MS if half.phase != PkPhase.SCORING or half.is_final else COLLECT_MS)
        resumed = half
        if half.phase != PkPhase.RUNNING and half.deadline_ms is not None:
            resumed = half._replace(deadline_ms=max(half.deadline_ms, at_least))
        send = (PkMessage("alive", half.pk),) if half.is_accepted else ()
        return ActivityStep((self._change("resumed", resumed, send=send),))

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        """The invitation of a room that ends is over, and a PK that it has invited to is lost.

        A half that was invited leaves the result to the other room, which has perhaps decided it already.
        """
        half = self._half
        step: ActivityStep[T] = ActivityStep()
        if half is not None and half.is_open:
            if half.phase == PkPhase.INVITING:
                step = self._end_invitation("cancelled", half, PkOutcome.CANCELLED, "cancel")
            elif half.phase == PkPhase.INVITED:
                step = self._end_invitation("declined", half, PkOutcome.DECLINED, "decline")
            elif half.is_inviting:
                step = self._finish(half, PkOutcome.LOST, now_ms, is_forfeit=True)
            elif half.phase == PkPhase.RUNNING and not half.has_given_up:
                step = ActivityStep((self._change("given_up", half, send=(PkMessage("forfeit", half.pk),)),))
        return ActivityStep((*step.facts, Fact("ended", (now_ms,))), reports=step.reports)

    # ---- facts

    def apply(self, fact: Fact) -> None:
        data = fact.data
        if fact.name == "scored":
            self._add_score(data[0], data[2])
        elif fact.name == "ended":
            self._ended_at = data[0]
        else:
            before, after, sent, dropped, over = data
            if (before or ("",))[0] != (after or ("",))[0]:
                self._other_shown = None
            self._half = None if after is None else PkHalf(*after)
            self._take_out(dropped)
            self._put_in(sent)
            if over is not None:
                self._had[over[0]] = PkHalf(*over)

    def undo(self, fact: Fact) -> None:
        data = fact.data
        if fact.name == "scored":
            self._add_score(-data[0], data[1])
        elif fact.name == "ended":
            self._ended_at = None
        else:
            before, _, sent, dropped, over = data
            self._half = None if before is None else PkHalf(*before)
            self._take_out(sent)
            self._put_in(dropped)
            if over is not None:
                del self._had[over[0]]

    def _change(
        self,
        name: str,
        after: PkHalf | None,
        *,
        send: Iterable[PkMessage] = (),
        drops: Iterable[tuple[str, PkMessage]] = (),
        over: PkHalf | None = None,
    ) -> Fact:
        """Return the fact that gives the room another half. ``send``: messages that it now has for the other room;
        ``drops``: messages that it no longer has; ``over``: a PK that has ended."""
        other = after or over or self._half
        sent = tuple(
            (other.other if other else "", message)
            for message in send
            if (message.pk, message.kind) not in self._outbox
        )
        return Fact(name, (self._half, after, sent, tuple(drops), over))

    def _add_score(self, amount: int, counted_to: int) -> None:
        assert self._half is not None
        self._half = self._half._replace(score=self._half.score + amount, counted_to=counted_to)

    def _put_in(self, messages: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
        for room, (kind, pk, data) in messages:
            self._outbox[pk, kind] = room, data

    def _take_out(self, messages: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
        for _, (kind, pk, _) in messages:
            del self._outbox[pk, kind]

    def _message(self, key: tuple[str, str]) -> tuple[str, PkMessage]:
        room, data = self._outbox[key]
        return room, PkMessage(key[1], key[0], data)

    def _waiting_of(self, pk: str) -> tuple[tuple[str, PkMessage], ...]:
        return tuple(self._message(key) for key in self._outbox if key[0] == pk)

    def dump(self) -> tuple[Any, ...]:
        half = None if self._half is None else tuple(self._half)
        return half, tuple(sorted(self._outbox.items())), tuple(sorted(self._had.items())), self._ended_at

    # ---- what users see

    def view(self, is_staff: bool) -> PkState | None:
        half = self._half
        return half.state(self._other_shown) if half is not None and (is_staff or half.is_accepted) else None

    def state(self) -> PkState | None:
        """Return the present PK or invitation, for staff; None = the room has none."""
        return None if self._half is None else self._half.state(self._other_shown)

    def counter(self) -> RoomEvent | None:
        half = self._half if self._half is not None else next(reversed(self._had.values()), None)
        if half is None or half.phase == PkPhase.RESULT:
            return None
        if half.is_accepted:
            return RoomEvent("pk.score_changed", PkScore(half.pk, half.score, self._other_shown))
        return RoomEvent("pk.invitation_changed", half.state())

    # ---- inside

    def _open(self, pk: str) -> PkHalf | None:
        half = self._half
        return half if half is not None and half.pk == pk and half.is_open else None

    def _known(self, pk: str) -> PkHalf | None:
        half = self._half
        return half if half is not None and half.pk == pk else self._had.get(pk)


PK_KEY = Pk.kind, ""
"""A room has one activity for all its PKs."""
PK_SHOWN_KEY = Pk.kind, "shown"
"""Key of actions, of no activity: the score of a room, for display in the other one."""
_UNKNOWN = ActivityRefusal(ErrorCode.UNKNOWN_ACTIVITY, "names no PK of this room", "id")
_NOT_ACCEPTED_YET = ActivityRefusal(ErrorCode.OVERLOADED, "the acceptance is still on its way", "id", LATER_MS)
_HANDLED: ActivityStep[Any] = ActivityStep(answer=PkHandled())
_REVERSED = {PkOutcome.WON: PkOutcome.LOST, PkOutcome.LOST: PkOutcome.WON}


def _result(half: PkHalf) -> tuple[PkMessage, ...]:
    """Return the message with the result as the other room has it; only the inviting room sends it."""
    if not half.is_inviting or half.outcome is None:
        return ()
    outcome = PkOutcome(half.outcome)
    data = (int(_REVERSED.get(outcome, outcome)), half.score, half.is_forfeit)
    return (PkMessage("result", half.pk, data),)


def _over(half: PkHalf) -> ActivityRefusal:
    """Return the refusal of an answer that comes too late."""
    code = ErrorCode.EXPIRED if half.outcome == PkOutcome.EXPIRED else ErrorCode.CANCELLED
    return ActivityRefusal(code, "was answered before, or is no longer open", "id")
