"""RTC calls between two users: who rings, who answers, and when a call ends. Pure; times are monotonic seconds.

A user has one call at a time. Whoever answers first, of several devices, has the call; a later answer is late, not a
second one. Nothing is kept over a restart: the links of both end with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

__all__ = ["LOST_S", "MAX_CALLS", "RING_S", "CallEnd", "RtcCall", "RtcTable"]

RING_S = 45.0
LOST_S = 15.0
"""How long a user of a call may be without any link: a change of the network is no end."""
MAX_CALLS = 20_000


class CallEnd(Enum):
    """Why a call has ended."""

    REJECTED = "rejected"
    TIMEOUT = "timeout"
    """No device has answered."""
    HUNG_UP = "hung_up"
    LOST = "lost"
    """One of the two had no link for `LOST_S`."""
    BUSY = "busy"
    """It was to go on with a user who has another call."""
    TRANSFERRED = "transferred"
    """It goes on with another user: for the one who has lost it alone."""


class RtcCall:
    """One call. Users have qualified ids. ``token``: opaque, for the two alone; ``answered_at``: None = it rings;
    ``callee``: "" = none yet, a call to the service desk that waits."""

    __slots__ = (
        "answered_at", "callee", "caller", "conversation", "id", "lost_at", "name", "started_at", "token", "video",
    )  # fmt: skip

    def __init__(self, id: str, conversation: str, caller: str, callee: str, token: str, started_at: float) -> None:
        self.id = id
        self.conversation = conversation
        self.caller = caller
        self.callee = callee
        self.token = token
        self.started_at = started_at
        self.name = ""
        """What the caller is called."""
        self.video = False
        self.answered_at: float | None = None
        self.lost_at: dict[str, float] = {}
        """Since when a user of it is without a link."""

    @property
    def users(self) -> tuple[str, ...]:
        """Both users; the caller alone where there is no callee yet."""
        return (self.caller, self.callee) if self.callee else (self.caller,)


class RtcTable:
    """Calls that ring or are answered; at most one for each user."""

    def __init__(self, max_calls: int = MAX_CALLS) -> None:
        self._max_calls = max_calls
        self._by_id: dict[str, RtcCall] = {}
        self._of_user: dict[str, RtcCall] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[RtcCall]:
        return iter(list(self._by_id.values()))

    @property
    def is_full(self) -> bool:
        """Whether there are as many calls as may be."""
        return len(self._by_id) >= self._max_calls

    def find(self, id: str, user: str) -> RtcCall | None:
        """Return a call that a user takes part in."""
        call = self._by_id.get(id)
        return call if call is not None and user in call.users else None

    def of_user(self, user: str) -> RtcCall | None:
        """Return the call of a user."""
        return self._of_user.get(user)

    def ring(self, call: RtcCall) -> bool:
        """Begin a call; False where one of the two has another one, or there are too many."""
        if self.is_full or any(user in self._of_user for user in call.users):
            return False
        self._by_id[call.id] = call
        for user in call.users:
            self._of_user[user] = call
        return True

    def redirect(self, call: RtcCall, callee: str, token: str, now: float) -> bool:
        """Let a call ring anew, at another user ("" = none yet), with another token; False where it has a call."""
        if call.id not in self._by_id or callee in self._of_user:
            return False
        if call.callee:
            del self._of_user[call.callee]
            call.lost_at.pop(call.callee, None)
        call.callee, call.token, call.started_at, call.answered_at = callee, token, now, None
        if callee:
            self._of_user[callee] = call
        return True

    def accept(self, call: RtcCall, user: str, now: float) -> bool:
        """Answer a call that rings at a user; False where it does not ring there, or is answered already."""
        if call.answered_at is not None or user != call.callee or call.id not in self._by_id:
            return False
        call.answered_at = now
        return True

    def end(self, call: RtcCall) -> bool:
        """End a call; False where it has ended already."""
        if self._by_id.pop(call.id, None) is None:
            return False
        for user in call.users:
            del self._of_user[user]
        return True

    def set_online(self, user: str, now: float, *, is_online: bool) -> None:
        """Take note that a user has a link again, or none any more."""
        call = self._of_user.get(user)
        if call is None:
            return
        if is_online:
            call.lost_at.pop(user, None)
        else:
            call.lost_at.setdefault(user, now)

    def due(self, now: float) -> list[tuple[RtcCall, CallEnd]]:
        """Return the calls that are over at a time, and why; they are ended by `end`. A callee may answer from a
        device that is woken up: without a link it is lost only once it has answered."""
        found = []
        for call in self._by_id.values():
            lost = [at for user, at in call.lost_at.items() if user == call.caller or call.answered_at is not None]
            if lost and now >= min(lost) + LOST_S:
                found.append((call, CallEnd.LOST))
            elif call.answered_at is None and now >= call.started_at + RING_S:
                found.append((call, CallEnd.TIMEOUT))
        return found
