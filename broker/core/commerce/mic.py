"""Mic-link (连麦) of a room: users ask for a seat, staff invites them, and each seat has one holder at a time.

A user's entry goes QUEUED -> INVITED -> ACCEPTED -> ON_MIC. From INVITED on it holds a seat and has a *fence*, a number
that grows with every holding of the room: what a holder does names its fence, so that a device whose holding has ended
cannot act for the one that followed. An entry that does not go on in time ends by itself; so does one whose user has
lost its connection and does not come back.

Every fact has the entry before and after it, so `undo` puts the former back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from broker.core.commerce.activity import (
    Activity,
    ActivityRefusal,
    ActivityReport,
    ActivityStep,
    ErasedUser,
    Fact,
    Requester,
    RoomEvent,
    UserLeft,
    UserMessage,
    refused,
)
from broker.core.commerce.eligibility import eligibility_of_fact, ineligible
from protocol.activities.eligibility import Eligibility
from protocol.activities.mic import (
    MAX_FIRST,
    MAX_LISTED,
    LeaveCause,
    MicInvited,
    MicQueueChanged,
    MicRejected,
    MicSeat,
    MicSeats,
    MicState,
    MicStatus,
    MicWaiting,
    SeatChangedData,
    SeatLeft,
    SeatMuted,
    SeatsChanged,
    SeatTaken,
)
from protocol.codes import ErrorCode
from protocol.operations.mic import MicAccess

__all__ = [
    "MAX_QUEUE",
    "AcceptInvitation",
    "ConfirmOnMic",
    "InviteUser",
    "Mic",
    "MuteMicrophone",
    "RejectUser",
    "RequestSeat",
    "SetSeats",
    "Withdraw",
]

T = TypeVar("T")

MAX_QUEUE = 500
QUEUED_MS = 600_000
INVITED_MS = 15_000
ACCEPTED_MS = 10_000
GRACE_MS = 10_000
"""How long a user on the mic may be without a connection."""
RESUMED_MS = 5_000
"""What every deadline of a user has at least after a restart."""
FULL_RETRY_MS = 5_000


class RequestSeat(NamedTuple):
    """The user asks for a seat."""


class InviteUser(NamedTuple):
    """Staff offers a seat to a user. ``seat``: None = the first free one; ``rtc_token``: that the user gets when it
    accepts."""

    user: str
    seat: int | None = None
    rtc_token: str | None = None


class RejectUser(NamedTuple):
    """Staff ends the request, the invitation or the speaking of a user."""

    user: str


class Withdraw(NamedTuple):
    """The user ends its request, its invitation or its speaking. ``fence``: None where it holds no seat."""

    fence: int | None = None


class AcceptInvitation(NamedTuple):
    """The user takes an invitation."""

    fence: int


class ConfirmOnMic(NamedTuple):
    """The user is connected to the media and speaks, or it is back after it had lost its connection."""

    fence: int


class MuteMicrophone(NamedTuple):
    """Switch the sound of a user off or on. ``user``: None = the caller's own, with its ``fence``."""

    is_muted: bool
    user: str | None = None
    fence: int | None = None


class SetSeats(NamedTuple):
    """Staff changes the number of seats; the first time makes the activity. ``remove``: holders that are to leave;
    ``conditions``: of who may ask for a seat, None = as before."""

    seats: int
    remove: tuple[str, ...] = ()
    conditions: Eligibility | None = None


_UNMUTED, _MUTED_BY_SELF, _MUTED_BY_STAFF = range(3)


class _Entry(NamedTuple):
    """Step of one user. ``number``: of its request, 0 = it was invited without one; ``deadline_ms``: when the
    entry ends by itself; ``mute``: who has switched its sound off."""

    status: int
    number: int
    name: str
    deadline_ms: int | None
    seat: int = 0
    fence: int = 0
    rtc_token: str | None = None
    mute: int = _UNMUTED


class Mic(Activity[T]):
    """Seats, their holders and the queue of one room."""

    kind = "mic"

    def __init__(self, id: str = "") -> None:
        super().__init__(id)
        self._seats: int | None = None
        self._conditions = Eligibility()
        self._entries: dict[str, _Entry] = {}
        self._last_number = 0
        self._last_fence = 0
        self._ended_at: int | None = None
        self._absent: set[str] = set()
        """Users whose connection is lost and who are not back; a restart has lost those of all."""

    @property
    def exists(self) -> bool:
        return self._seats is not None

    @property
    def removable_at(self) -> int | None:
        return self._ended_at

    # ---- commands

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T]:
        if isinstance(command, SetSeats):
            return self._set_seats(command)
        if self._seats is None:
            return refused(ErrorCode.UNKNOWN_ACTIVITY, "has no mic-link", "room")
        user = requester.user
        match command:
            case RequestSeat():
                return self._request(requester, now_ms)
            case InviteUser():
                return self._invite(command, now_ms)
            case RejectUser():
                return self._leave(command.user, LeaveCause.REMOVED)
            case Withdraw():
                return self._withdraw(user, command.fence)
            case AcceptInvitation():
                return self._accept(requester, command.fence, now_ms)
            case ConfirmOnMic():
                return self._go_on_mic(user, command.fence)
            case MuteMicrophone():
                return self._mute(command, user)
            case UserLeft():
                self._absent = {each for each in self._absent if each in self._entries} | {user}
                return ActivityStep(answer=self.state_of(user))
        raise TypeError(command)

    def _request(self, requester: Requester, now_ms: int) -> ActivityStep[T]:
        user = requester.user
        if user in self._entries:
            return ActivityStep(answer=self.state_of(user))
        if not self._seats:
            return refused(ErrorCode.CLOSED, "has no seats", "room")
        refusal = ineligible(self._conditions, requester)
        if refusal is not None:
            return ActivityStep(answer=refusal)
        waiting = sum(1 for _ in self._queue())
        if waiting >= MAX_QUEUE:
            return refused(ErrorCode.OVERLOADED, f"has {MAX_QUEUE} users waiting", "room", FULL_RETRY_MS)
        entry = _Entry(MicStatus.QUEUED, self._last_number + 1, requester.name, now_ms + QUEUED_MS)
        return ActivityStep((self._change("requested", user, entry),), _state(user, entry, waiting + 1))

    def _invite(self, command: InviteUser, now_ms: int) -> ActivityStep[T]:
        user, entry = command.user, self._entries.get(command.user)
        if entry is not None and entry.seat:
            return ActivityStep(answer=_state(user, entry))
        seat = self._free_seat(command.seat)
        if seat is None:
            return refused(ErrorCode.SEAT_TAKEN, "is taken, or is none of the seats", "seat")
        invited = _Entry(
            MicStatus.INVITED,
            0 if entry is None else entry.number,
            "" if entry is None else entry.name,
            now_ms + INVITED_MS,
            seat,
            max(self._last_fence + 1, now_ms),  # so it also grows from one stream of the room to the next
            command.rtc_token,
        )
        message = UserMessage(user, "mic.invited", MicInvited(seat, invited.fence, now_ms + INVITED_MS))
        return ActivityStep((self._change("invited", user, invited),), _state(user, invited), messages=(message,))

    def _withdraw(self, user: str, fence: int | None) -> ActivityStep[T]:
        entry = self._entries.get(user)
        if entry is not None and entry.seat:
            if fence is None:
                return refused(ErrorCode.BAD_FIELD, "is required of the holder of a seat", "fence")
            if fence != entry.fence:
                return _stale(entry)
        return self._leave(user, LeaveCause.LEFT)

    def _accept(self, requester: Requester, fence: int, now_ms: int) -> ActivityStep[T]:
        user = requester.user
        entry = self._held(user, fence)
        if isinstance(entry, ActivityRefusal):
            return ActivityStep(answer=entry)
        if entry.status != MicStatus.INVITED:
            return ActivityStep(answer=MicAccess(_state(user, entry), entry.rtc_token))
        accepted = entry._replace(status=MicStatus.ACCEPTED, name=requester.name, deadline_ms=now_ms + ACCEPTED_MS)
        return ActivityStep(
            (self._change("accepted", user, accepted),), MicAccess(_state(user, accepted), accepted.rtc_token)
        )

    def _go_on_mic(self, user: str, fence: int) -> ActivityStep[T]:
        entry = self._held(user, fence)
        if isinstance(entry, ActivityRefusal):
            return ActivityStep(answer=entry)
        if entry.status == MicStatus.INVITED:
            return ActivityStep(answer=_NOT_INVITED)
        self._absent.discard(user)
        on_mic = entry._replace(status=MicStatus.ON_MIC, deadline_ms=None)
        if entry == on_mic:
            return ActivityStep(answer=_state(user, entry))
        if entry.status == MicStatus.ON_MIC:
            return ActivityStep((self._change("returned", user, on_mic),), _state(user, on_mic))
        return ActivityStep(
            (self._change("on_mic", user, on_mic),),
            _state(user, on_mic),
            event=RoomEvent("mic.seat_taken", SeatTaken(on_mic.seat, user, on_mic.name)),
            reports=(_report(user, on_mic, None),),
        )

    def _mute(self, command: MuteMicrophone, caller: str) -> ActivityStep[T]:
        user = caller if command.user is None else command.user
        entry = self._entries.get(user)
        if command.user is None:
            held = self._held(user, command.fence)
            if isinstance(held, ActivityRefusal):
                return ActivityStep(answer=held)
        if entry is None or entry.status != MicStatus.ON_MIC:
            return refused(ErrorCode.NOT_INVITED, "is not on the mic", "user")
        if command.user is None and entry.mute == _MUTED_BY_STAFF:
            if command.is_muted:
                return ActivityStep(answer=_state(user, entry))
            return refused(ErrorCode.NOT_ALLOWED, "was switched off by staff", "is_muted")
        by = _MUTED_BY_SELF if command.user is None else _MUTED_BY_STAFF
        muted = entry._replace(mute=by if command.is_muted else _UNMUTED)
        if muted == entry:
            return ActivityStep(answer=_state(user, entry))
        event = RoomEvent("mic.seat_muted", SeatMuted(entry.seat, user, command.is_muted))
        return ActivityStep(
            (self._change("muted", user, muted),),
            _state(user, muted),
            event=event if bool(entry.mute) != command.is_muted else None,
        )

    def _set_seats(self, command: SetSeats) -> ActivityStep[T]:
        if command.conditions is not None and command.conditions.keyword:
            return refused(ErrorCode.BAD_FIELD, "must be empty: requests have no text", "eligibility.keyword")
        holders = {user: entry for user, entry in self._entries.items() if entry.seat}
        removed = {user: holders.pop(user) for user in dict.fromkeys(command.remove) if user in holders}
        if len(holders) > command.seats:
            rule = f"{len(holders)} seats are taken or held: name who is to leave"
            return refused(ErrorCode.BELOW_TAKEN, rule, "remove")
        kept = {entry.seat for entry in holders.values() if entry.seat <= command.seats}
        free = (seat for seat in range(1, command.seats + 1) if seat not in kept)
        moved = tuple(
            (user, entry.seat, next(free))
            for user, entry in sorted(holders.items(), key=lambda pair: pair[1].seat)
            if entry.seat > command.seats
        )
        conditions = self._conditions if command.conditions is None else command.conditions
        if (command.seats, conditions) == (self._seats, self._conditions) and not removed:
            return ActivityStep(answer=self.seats(lists_queue=True))
        fact = Fact(
            "seats_changed",
            (self._seats, command.seats, self._conditions, conditions, tuple(removed.items()), moved),
        )
        # The answer and the event show the state after the fact.
        after: Mic[T] = Mic(self.id)
        after._seats, after._entries = self._seats, dict(self._entries)
        after.apply(fact)
        left = {user: entry for user, entry in removed.items() if entry.status == MicStatus.ON_MIC}
        return ActivityStep(
            (fact,),
            after.seats(lists_queue=True),
            event=RoomEvent("mic.seats_changed", SeatsChanged(command.seats, after.taken())),
            messages=tuple(UserMessage(user, "mic.rejected", MicRejected()) for user in removed if user not in left),
            reports=tuple(_report(user, entry, LeaveCause.REMOVED) for user, entry in left.items()),
        )

    def _leave(self, user: str, cause: LeaveCause) -> ActivityStep[T]:
        """End a user's entry, whatever it is."""
        entry = self._entries.get(user)
        none = MicState(user, MicStatus.NONE)
        if entry is None:
            return ActivityStep(answer=none)
        fact = self._change(cause.name.lower(), user, None)
        if entry.status == MicStatus.ON_MIC:
            return ActivityStep(
                (fact,),
                none,
                event=RoomEvent("mic.seat_left", SeatLeft(entry.seat, user, cause)),
                reports=(_report(user, entry, cause),),
            )
        messages = (UserMessage(user, "mic.rejected", MicRejected()),) if cause is LeaveCause.REMOVED else ()
        return ActivityStep((fact,), none, messages=messages)

    # ---- time

    def follows(self, user: str) -> bool:
        entry = self._entries.get(user)
        return entry is not None and entry.status == MicStatus.ON_MIC

    def next_due(self) -> int | None:
        if self._ended_at is not None:
            return None
        if self._unmarked() is not None:
            return 0
        return min(
            (entry.deadline_ms for entry in self._entries.values() if entry.deadline_ms is not None), default=None
        )

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        user = self._unmarked()
        if user is not None:
            absent = self._entries[user]._replace(deadline_ms=now_ms + GRACE_MS)
            return ActivityStep((self._change("absent", user, absent),))
        due = self.next_due()
        if due is None or now_ms < due:
            return None
        user, entry = min(
            ((user, entry) for user, entry in self._entries.items() if entry.deadline_ms == due),
            key=lambda pair: (pair[1].number, pair[1].fence),
        )
        if entry.status == MicStatus.ON_MIC:
            return self._leave(user, LeaveCause.CONNECTION_LOST)._replace(answer=None)
        return ActivityStep((self._change("expired", user, None),))

    def _unmarked(self) -> str | None:
        """Return a user on the mic whose lost connection is no fact yet."""
        unmarked = (user for user in self._absent if self.follows(user) and self._entries[user].deadline_ms is None)
        return min(unmarked, default=None)

    def resumed(self, now_ms: int) -> ActivityStep[T] | None:
        """Give every user the time to come back: whoever is on the mic has lost its connection with the process."""
        changed: list[tuple[str, int | None, int]] = []
        for user, entry in self._entries.items():
            before = entry.deadline_ms
            after = now_ms + GRACE_MS if before is None else max(before, now_ms + RESUMED_MS)
            if after != before:
                changed.append((user, before, after))
        return ActivityStep((Fact("resumed", (now_ms, tuple(changed))),)) if changed else None

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        reports = tuple(
            _report(user, entry, LeaveCause.ROOM_ENDED)
            for user, entry in self._entries.items()
            if entry.status == MicStatus.ON_MIC
        )
        return ActivityStep((Fact("ended", (now_ms, tuple(self._entries.items()))),), reports=reports)

    # ---- facts

    def apply(self, fact: Fact) -> None:
        data = fact.data
        match fact.name:
            case "seats_changed":
                _, self._seats, _, conditions, removed, moved = data
                self._conditions = eligibility_of_fact(conditions)
                for user, _ in removed:
                    del self._entries[user]
                for user, _, seat in moved:
                    self._entries[user] = self._entries[user]._replace(seat=seat)
            case "resumed":
                self._set_deadlines((user, after) for user, _, after in data[1])
            case "ended":
                self._ended_at = data[0]
                self._entries.clear()
            case _:
                user, _, after, _, self._last_number, _, self._last_fence = data
                self._put(user, after)

    def undo(self, fact: Fact) -> None:
        data = fact.data
        match fact.name:
            case "seats_changed":
                self._seats, _, conditions, _, removed, moved = data
                self._conditions = eligibility_of_fact(conditions)
                for user, seat, _ in moved:
                    self._entries[user] = self._entries[user]._replace(seat=seat)
                for user, entry in removed:
                    self._put(user, entry)
            case "resumed":
                self._set_deadlines((user, before) for user, before, _ in data[1])
            case "ended":
                self._ended_at = None
                for user, entry in data[1]:
                    self._put(user, entry)
            case _:
                user, before, _, self._last_number, _, self._last_fence, _ = data
                self._put(user, before)

    def _change(self, name: str, user: str, after: _Entry | None) -> Fact:
        """Return the fact that gives a user another entry: before and after, also of the last number and fence."""
        number, fence = self._last_number, self._last_fence
        last_number = number if after is None else max(number, after.number)
        last_fence = fence if after is None else max(fence, after.fence)
        return Fact(name, (user, self._entries.get(user), after, number, last_number, fence, last_fence))

    def _put(self, user: str, entry: tuple[Any, ...] | None) -> None:
        if entry is None:
            del self._entries[user]
        else:
            self._entries[user] = _Entry(*entry)

    def _set_deadlines(self, deadlines: Iterable[tuple[str, int | None]]) -> None:
        for user, deadline_ms in deadlines:
            self._entries[user] = self._entries[user]._replace(deadline_ms=deadline_ms)

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        data = fact.data
        match fact.name:
            case "seats_changed":
                *seats, removed, moved = data
                left = tuple((erased.renamed(user), *seat) for user, *seat in moved)
                return Fact(fact.name, (*seats, _without_in(removed, erased), left))
            case "resumed":
                return Fact(fact.name, (data[0], tuple((erased.renamed(user), *times) for user, *times in data[1])))
            case "ended":
                return Fact(fact.name, (data[0], _without_in(data[1], erased)))
            case _ if data[0] == erased.user:
                _, before, after, *numbers = data
                return Fact(fact.name, (erased.pseudonym, _anonymous(before), _anonymous(after), *numbers))
        return fact

    def erase(self, erased: ErasedUser) -> None:
        """Give the entry of a user to its pseudonym; a seat becomes free as after a lost connection."""
        entry = self._entries.get(erased.user)
        self._absent.discard(erased.user)
        if entry is not None:
            self._entries = {erased.renamed(user): each for user, each in self._entries.items()}
            self._put(erased.pseudonym, _anonymous(entry))
            self._absent.add(erased.pseudonym)

    def dump(self) -> tuple[Any, ...]:
        entries = tuple((user, *self._entries[user]) for user in sorted(self._entries))
        return self._seats, entries, self._last_number, self._last_fence, tuple(self._conditions), self._ended_at

    # ---- what users see

    def view(self, is_staff: bool) -> MicSeats:
        return self.seats(lists_queue=False)

    def own_view(self, user: str) -> MicState | None:
        return self.state_of(user) if user in self._entries else None

    def counter(self) -> RoomEvent | None:
        queue = sorted(self._queue())
        first = tuple(MicWaiting(*each) for each in queue[:MAX_FIRST])
        return RoomEvent("mic.queue_changed", MicQueueChanged(len(queue), first))

    def seats(self, *, lists_queue: bool) -> MicSeats:
        """Return all seats. ``lists_queue``: with the first users of the queue, for staff."""
        queue = sorted(self._queue())
        listed = tuple(MicWaiting(*each) for each in queue[:MAX_LISTED]) if lists_queue else ()
        return MicSeats(self._seats or 0, self.taken(), len(queue), listed)

    def taken(self) -> tuple[MicSeat, ...]:
        """Return who is on the mic, by seat."""
        return tuple(
            sorted(
                MicSeat(entry.seat, user, entry.name, entry.mute != _UNMUTED)
                for user, entry in self._entries.items()
                if entry.status == MicStatus.ON_MIC
            )
        )

    def state_of(self, user: str) -> MicState:
        """Return the step of a user."""
        entry = self._entries.get(user)
        if entry is None:
            return MicState(user, MicStatus.NONE)
        place = 0
        if entry.status == MicStatus.QUEUED:
            place = sum(number <= entry.number for number, _, _ in self._queue())
        return _state(user, entry, place)

    @property
    def held_seats(self) -> dict[int, str]:
        """Seats that are held or taken, and their holders."""
        return {entry.seat: user for user, entry in self._entries.items() if entry.seat}

    # ---- inside

    def _queue(self) -> Iterator[tuple[int, str, str]]:
        return (
            (entry.number, user, entry.name)
            for user, entry in self._entries.items()
            if entry.status == MicStatus.QUEUED
        )

    def _free_seat(self, wanted: int | None) -> int | None:
        held = self.held_seats
        seats = range(1, (self._seats or 0) + 1) if wanted is None else (wanted,)
        return next((seat for seat in seats if seat not in held and seat <= (self._seats or 0)), None)

    def _held(self, user: str, fence: int | None) -> _Entry | ActivityRefusal:
        """Return the entry of a user that holds a seat and names its fence."""
        entry = self._entries.get(user)
        if entry is None or not entry.seat:
            return _NOT_INVITED
        if fence != entry.fence:
            return _stale_refusal(entry)
        return entry


def _anonymous(entry: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Return an entry without the name and the RTC token of its user."""
    return None if entry is None else _Entry(*entry)._replace(name="", rtc_token=None)


def _without_in(entries: Iterable[tuple[str, Any]], erased: ErasedUser) -> tuple[tuple[str, Any], ...]:
    """Return users and entries of a fact without a user."""
    return tuple(
        (erased.pseudonym, _anonymous(entry)) if user == erased.user else (user, entry) for user, entry in entries
    )


_NOT_INVITED = ActivityRefusal(ErrorCode.NOT_INVITED, "holds no seat", "user")


def _stale_refusal(entry: _Entry) -> ActivityRefusal:
    return ActivityRefusal(ErrorCode.STALE, f"is {entry.fence} now", "fence")


def _stale(entry: _Entry) -> ActivityStep[Any]:
    return ActivityStep(answer=_stale_refusal(entry))


def _state(user: str, entry: _Entry, place: int = 0) -> MicState:
    is_muted = entry.mute != _UNMUTED
    return MicState(user, MicStatus(entry.status), place, entry.seat, entry.fence, entry.deadline_ms, is_muted)


def _report(user: str, entry: _Entry, cause: LeaveCause | None) -> ActivityReport:
    return ActivityReport("seat.changed", SeatChangedData(user, entry.seat, entry.fence, cause))
