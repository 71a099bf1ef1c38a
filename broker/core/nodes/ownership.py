"""Ownership of one room by this node, as a state machine: what the room may do, and what is asked of the engine next.

Safety lies in the engine: each claim gets a higher fence, and an append under an older one, or one that does not go on
where the log ends, is refused. This machine decides the rest: when the state in memory may be believed. It may while
the node's lease holds, no write of unknown outcome is open, and the log holds nothing that the memory has not folded.

States::

    unowned ----claim_wanted----> claiming --granted--> folding --folded--> owner
       ^                             |  ^                                   |  |
       |                   held by another                     lease ended, |  | release
       |                             |  |                   unknown outcome |  |
    fenced <-------------------------+  +---lease lost--- suspended <-------+  |
    released <------------------------------------------- releasing <----------+

A suspended room keeps its state: its viewers keep their chat, and calls are answered "later". One question is open at a
time; each method takes one input and returns the effects to carry out, in order. A question that fails without an
outcome is asked again at the next `check`. Pure: times are seconds of the clock that the lease is counted on.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from broker.core.nodes.membership import NodeLease

__all__ = [
    "ClaimRoom",
    "ContinueRoom",
    "DropRoom",
    "FoldLog",
    "LogEnd",
    "Ownership",
    "OwnershipEffect",
    "OwnershipState",
    "PauseRoom",
    "RefoundRoom",
    "ReleaseRoom",
    "RepairLog",
    "StartRoom",
]


class LogEnd(NamedTuple):
    """Where a room's log ends: offset of the last event and number of the last fact."""

    offset: int = 0
    fact: int = 0


class OwnershipState(Enum):
    """What this node is for a room."""

    UNOWNED = "unowned"
    CLAIMING = "claiming"
    FOLDING = "folding"
    OWNER = "owner"
    SUSPENDED = "suspended"
    FENCED = "fenced"
    """Another node has it, or has had it since."""
    RELEASING = "releasing"
    RELEASED = "released"


class ClaimRoom(NamedTuple):
    """Ask the engine for the room. Answers: `claim_granted`, `claim_held`, `question_failed`."""

    seen_fence: int
    floor: LogEnd
    floor_fence: int
    """The new fence and the marker's offset must be above the floors: the engine may have lost its data."""


class FoldLog(NamedTuple):
    """Read what the log has behind ``after`` and fold it. Answers: `folded`, `owner_found`, `question_failed`.

    ``checks_owner``: the owner's record is read as well, before the log.
    """

    after: LogEnd
    checks_owner: bool


class RepairLog(NamedTuple):
    """Append again what memory has behind ``after``: the engine has lost the tail. Answers: those of an append."""

    after: LogEnd


class RefoundRoom(NamedTuple):
    """Write the state in memory as a checkpoint, under the new fence: the engine had lost all of it.

    Answers: `refounded`, `append_fenced`, `question_failed`.
    """


class ReleaseRoom(NamedTuple):
    """Give the room up, and notify its next owner. Answers: `released`, `append_fenced`, `question_failed`."""

    heir: str | None


class StartRoom(NamedTuple):
    """Decide from now on; ``is_new``: the engine knew nothing of the room."""

    is_new: bool


class PauseRoom(NamedTuple):
    """Answer "later" from now on; the state in memory stays."""

    reason: str


class ContinueRoom(NamedTuple):
    """Decide again."""


class DropRoom(NamedTuple):
    """Drop the state in memory, and follow the owner. ``owner``: as far as it is known."""

    owner: str | None


OwnershipEffect = (
    ClaimRoom
    | FoldLog
    | RepairLog
    | RefoundRoom
    | ReleaseRoom
    | StartRoom
    | PauseRoom
    | ContinueRoom
    | DropRoom
)  # fmt: skip

_HELD = (OwnershipState.OWNER, OwnershipState.SUSPENDED)
_FREE = (OwnershipState.UNOWNED, OwnershipState.FENCED, OwnershipState.RELEASED)


class Ownership:
    """One room at one node. ``fence`` and ``end``: the last ones that this node knows; 0 before any."""

    __slots__ = (
        "_claim_is_open",
        "_has_state",
        "_heir",
        "_incarnation",
        "_is_asking",
        "_is_dirty",
        "_is_new",
        "_lease",
        "_must_claim",
        "_must_refound",
        "_node",
        "_repair_after",
        "_seen_fence",
        "end",
        "fence",
        "state",
    )

    def __init__(self, node: str, lease: NodeLease) -> None:
        """Start without the room.

        :param node: id of this node.
        :param lease: its lease, shared by all its rooms.
        """
        self._node = node
        self._lease = lease
        self.state = OwnershipState.UNOWNED
        self.fence = 0
        self.end = LogEnd()
        self._seen_fence = 0
        """Fence of the record that the next claim is compared with."""
        self._has_state = False
        """Whether memory has the state of the room as of ``end``."""
        self._is_asking = False
        """Whether a question or an append is open."""
        self._must_claim = False
        """Whether the engine has lost the record."""
        self._incarnation = ""
        """Life of the node in which the room was last claimed."""
        self._claim_is_open = False
        """Whether a claim may have been granted whose answer was lost."""
        self._is_dirty = False
        """Whether the log may hold an append whose answer was lost."""
        self._must_refound = False
        self._repair_after: LogEnd | None = None
        self._is_new = False
        self._heir: str | None = None

    # ---- what the room may do

    def may_decide(self, now: float) -> bool:
        """Return whether answers may be given from memory, and decisions taken; ticks go to other nodes only then."""
        return self.state is OwnershipState.OWNER and self._holds(now)

    def _holds(self, now: float) -> bool:
        """Return whether no other node can have claimed the room since this node did, as far as leases go.

        A node that was lost and born again has a valid lease, but between the two another node may have claimed.
        """
        return self._lease.is_valid(now) and self._incarnation == self._lease.incarnation

    def may_append(self, now: float) -> bool:
        """Return whether the next append may be sent: one at a time."""
        return not self._is_asking and self.may_decide(now)

    @property
    def has_state(self) -> bool:
        """Whether memory has the room's state: such a room may be claimed wherever it is placed."""
        return self._has_state

    @property
    def is_free(self) -> bool:
        """Whether `claim_wanted` would begin something."""
        return self.state in _FREE

    # ---- wishes

    def claim_wanted(self, seen_fence: int, now: float) -> list[OwnershipEffect]:
        """Claim the room; `NodeTable.may_claim` has allowed it.

        :param seen_fence: fence of the owner's record as it was read; 0 = there is no record.
        """
        if self.state not in _FREE:
            return []
        self._seen_fence = seen_fence
        self.state = OwnershipState.CLAIMING
        return self._next(now)

    def release(self, heir: str | None, now: float) -> list[OwnershipEffect]:
        """Stop deciding, and give the room up after the open append.

        :param heir: node that will claim it, None = no node wants it.
        """
        if self.state not in _HELD:
            return []
        self.state = OwnershipState.RELEASING
        self._heir = heir
        return [PauseRoom("the room moves to another node"), *self._next(now)]

    def followed(self, fence: int, offset: int) -> None:
        """Note what was seen of the room at its owner: a later claim stays above it."""
        if not self._has_state and fence >= self.fence:
            self.fence = fence
            self.end = LogEnd(max(self.end.offset, offset), self.end.fact)

    # ---- the lease

    def check(self, now: float) -> list[OwnershipEffect]:
        """Look at the lease, and ask again what failed. To be called at each result of a beat, and between."""
        return self._next(now)

    # ---- answers to ClaimRoom

    def claim_granted(self, fence: int, offset: int, fact: int, is_new: bool, now: float) -> list[OwnershipEffect]:
        """Take the room under ``fence``.

        :param offset: of the marker, the first event under the fence.
        :param fact: number of the last fact.
        :param is_new: whether the engine knew nothing of the room.
        """
        self._is_asking = self._claim_is_open = False
        self.fence = self._seen_fence = fence
        if self._has_state:
            self._must_refound |= is_new
            self._is_dirty = not self._must_refound
            if self._must_refound:
                self.end = LogEnd(offset, fact)
            self.state = OwnershipState.SUSPENDED
        else:
            self._is_new = is_new
            self.state = OwnershipState.FOLDING
        return self._next(now)

    def claim_held(self, owner: str, fence: int, now: float) -> list[OwnershipEffect]:
        """Take that the room's fence was another one than it was seen.

        A room that names this node is one that an earlier claim has got whose answer was lost, or an earlier life.
        """
        self._is_asking = False
        if owner == self._node and (self._claim_is_open or not self._has_state):
            self._seen_fence = fence  # no other node had it between: that claim was compared with the fence before
            return self._next(now)
        return self._drop(owner)

    # ---- answers to FoldLog, RepairLog, RefoundRoom, ReleaseRoom

    def folded(self, end: LogEnd, now: float) -> list[OwnershipEffect]:
        """Take that memory has everything up to ``end``, which was the end of the log under this node's fence."""
        self._is_asking = False
        self.end = end
        self._is_dirty = False
        if self.state is OwnershipState.FOLDING:
            self._has_state = True
            self.state = OwnershipState.OWNER
            if self._holds(now) and not self._must_claim:
                return [StartRoom(self._is_new)]
            self.state = OwnershipState.SUSPENDED
            return [StartRoom(self._is_new), PauseRoom("the lease has ended"), *self._next(now)]
        return self._next(now)

    def owner_found(self, owner: str | None, now: float) -> list[OwnershipEffect]:
        """Take that the record that was read before the log names another owner or fence; None: there is none."""
        return self.append_fenced(owner, now)

    def refounded(self, now: float) -> list[OwnershipEffect]:
        """Take that the checkpoint is written."""
        self._is_asking = False
        self._must_refound = False
        return self._next(now)

    def released(self) -> list[OwnershipEffect]:
        """Take that the room is given up, or another node has it."""
        self._is_asking = False
        effects = self._drop(self._heir)
        self.state = OwnershipState.RELEASED
        return effects

    def question_failed(self, now: float) -> list[OwnershipEffect]:
        """Take that a question has no answer, or its outcome is unknown: it is asked again at the next `check`."""
        self._is_asking = False
        self._claim_is_open |= self.state is OwnershipState.CLAIMING
        return []

    # ---- appends

    def append_sent(self) -> None:
        """Take that an append is sent; ValueError where one is open."""
        if self._is_asking:
            raise ValueError("one append is open")
        self._is_asking = True

    def append_done(self, end: LogEnd, now: float) -> list[OwnershipEffect]:
        """Take that the log now ends at ``end``: written, and as durable as configured."""
        self._is_asking = False
        self.end = end
        self._repair_after = None
        return self._next(now)

    def append_refused(self, now: float) -> list[OwnershipEffect]:
        """Take that nothing was written, and nothing is wrong with the room: a known key, no link, no memory."""
        self._is_asking = False
        return self._next(now)

    def append_unknown(self, now: float) -> list[OwnershipEffect]:
        """Take that the outcome is lost: before the next decision the log is read."""
        self._is_asking = False
        self._is_dirty = True
        return self._pause("the outcome of a write is unknown", now)

    def append_misplaced(self, end: LogEnd, now: float) -> list[OwnershipEffect]:
        """Take that the log ends elsewhere: it has more, or has lost its tail."""
        self._is_asking = False
        if end.offset <= self.end.offset and end.fact <= self.end.fact:
            self._repair_after = end
            return self._pause("the engine has lost the end of the log", now)
        if end.offset >= self.end.offset and end.fact >= self.end.fact:
            self._is_dirty = True
            return self._pause("the log has more than was known", now)
        return self._drop(self._node)  # neither: memory and log cannot be made one, so the log is right

    def append_fenced(self, owner: str | None, now: float) -> list[OwnershipEffect]:
        """Take that the engine names another owner or fence; None: it knows no such room, its data was lost."""
        self._is_asking = False
        if owner is not None or not self._has_state:
            return self._drop(owner)
        self._must_claim = self._must_refound = True
        self._seen_fence = 0
        return self._pause("the engine has lost the room", now)

    # ---- what follows

    def _pause(self, reason: str, now: float) -> list[OwnershipEffect]:
        effects: list[OwnershipEffect] = []
        if self.state is OwnershipState.OWNER:
            self.state = OwnershipState.SUSPENDED
            effects.append(PauseRoom(reason))
        elif self.state is OwnershipState.RELEASING and (self._must_claim or self._repair_after is not None):
            self.state = OwnershipState.SUSPENDED  # what the engine has lost is here only: first it goes back there
        return effects + self._next(now)

    def _drop(self, owner: str | None) -> list[OwnershipEffect]:
        self.state = OwnershipState.FENCED
        self._has_state = self._must_claim = self._is_dirty = False
        self._must_refound = self._claim_is_open = False
        self._repair_after = None
        return [DropRoom(owner)]

    def _next(self, now: float) -> list[OwnershipEffect]:
        """Return what follows from the state when nothing is open."""
        effects: list[OwnershipEffect] = []
        is_valid = self._lease.is_valid(now)
        if self.state is OwnershipState.OWNER and (self._must_claim or not self._holds(now)):
            self.state = OwnershipState.SUSPENDED
            effects.append(PauseRoom("the lease has ended"))
        if self._is_asking:
            return effects
        match self.state:
            case OwnershipState.CLAIMING if is_valid:
                effects.append(self._claim())
            case OwnershipState.FOLDING:
                effects.append(self._ask(FoldLog(LogEnd(), checks_owner=False)))
            case OwnershipState.RELEASING:
                effects.append(self._ask(ReleaseRoom(self._heir)))
            case OwnershipState.SUSPENDED if is_valid:
                effects += self._recover()
        return effects

    def _recover(self) -> list[OwnershipEffect]:
        """Return the next step of a suspended room, whose lease is valid, towards deciding again."""
        if self._must_claim or self._incarnation != self._lease.incarnation:
            self.state = OwnershipState.CLAIMING
            return [self._claim()]
        if self._must_refound:
            return [self._ask(RefoundRoom())]
        if self._repair_after is not None:
            return [self._ask(RepairLog(self._repair_after))]
        if self._is_dirty:
            return [self._ask(FoldLog(self.end, checks_owner=True))]
        self.state = OwnershipState.OWNER
        return [ContinueRoom()]

    def _claim(self) -> OwnershipEffect:
        self._must_claim = False
        self._incarnation = self._lease.incarnation
        return self._ask(ClaimRoom(self._seen_fence, self.end, self.fence))

    def _ask(self, question: OwnershipEffect) -> OwnershipEffect:
        self._is_asking = True
        return question
