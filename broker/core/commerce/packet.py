"""Red packets: a total that the platform has charged, divided into shares that users take, one each.

The seed decides at creation what grab number ``i`` gets, so the shares depend on no one who takes part; the seed
becomes public when the packet is over. That proves the shares. It does not prove that the operator, who knows which
share is large, had no friend at that place. What users have taken and what is returned add up to the total.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from broker.core.commerce.activity import (
    Activity,
    ActivityRefusal,
    ActivityReport,
    ActivityStep,
    ErasedUser,
    Fact,
    Requester,
    RoomEvent,
    refused,
)
from broker.core.commerce.eligibility import eligibility_of_fact, ineligible
from broker.core.commerce.packet_shares import PacketShares, ShareTerms
from protocol.activities.packets import (
    OwnPacketShare,
    PacketCancelled,
    PacketEmptied,
    PacketExpired,
    PacketGrabbedData,
    PacketOpened,
    PacketScheduled,
    PacketSettled,
    PacketSettledData,
    PacketState,
    PacketTaken,
    PacketView,
    SplitMode,
)
from protocol.codes import ErrorCode
from protocol.fields import MAX_INT
from protocol.operations.packets import (
    MAX_OPEN_MS,
    CancelledPacket,
    CancelPacket,
    CreatedPacket,
    CreatePacket,
    GrabPacket,
    MyPacketShare,
    MyShare,
    PacketInfo,
)
from protocol.primitives import seed_hash
from protocol.text import masked_name

__all__ = ["SETTLED_AFTER_MS", "RedPacket", "grab_refusal", "id_refusal", "not_open"]

T = TypeVar("T")

SETTLED_AFTER_MS = 1000
"""How long after the end of a packet its seed becomes public."""
RETRY_MS = 100
"""When to ask again for a packet whose opening the ledger has not taken yet."""


class RedPacket(Activity[T]):
    """One red packet. Its commands are the requests of `protocol.operations.packets`. ``rng``: 32 bytes, the seed."""

    kind = "packets"

    def __init__(self, id: str, rng: Callable[[], bytes]) -> None:
        super().__init__(id)
        self._rng = rng
        self._config: CreatePacket | None = None
        self._seed = b""
        self._open_at_ms = 0
        self._expire_at_ms = 0
        self._shares = PacketShares(ShareTerms(SplitMode.LUCKY, 0, 0, 0, 0), b"")
        self._next_slice_ms = 0
        """When the next slice of dividing the total is due: from the creation on, so that it opens in time."""
        self._states: list[tuple[PacketState, int]] = []
        """States and since when, the present one last."""

    @property
    def exists(self) -> bool:
        """Whether it has been created."""
        return self._config is not None

    @property
    def state(self) -> PacketState:
        """Its state."""
        return self._states[-1][0]

    @property
    def config(self) -> CreatePacket:
        """What it was created with; the room is empty."""
        if self._config is None:
            raise ValueError("the packet does not exist")
        return self._config

    # ---- commands

    # Any: as in `Activity`.
    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T]:
        """Judge a request of `protocol.operations.packets`."""
        if isinstance(command, CreatePacket):
            return self._create(command, now_ms)
        if self._config is None:
            return refused(ErrorCode.UNKNOWN_ACTIVITY, "names no packet of the room", "id")
        if isinstance(command, GrabPacket):
            return self._grab(command, requester, now_ms)
        if isinstance(command, CancelPacket):
            return self._cancel(now_ms)
        assert isinstance(command, MyPacketShare), command
        return ActivityStep(answer=MyShare(self._shares.of(requester.user)))

    def _create(self, command: CreatePacket, now_ms: int) -> ActivityStep[T]:
        if self._config is not None:
            if command._replace(room="") == self._config:
                return ActivityStep(answer=self._created())
            return refused(ErrorCode.KEY_REUSED, "was created with other content", "id")
        open_at_ms = command.open_at_ms or now_ms
        expire_at_ms = command.expire_at_ms or open_at_ms + MAX_OPEN_MS
        refusal = id_refusal(command.id) or _terms_of(command).refusal()
        if refusal is None and not max(open_at_ms, now_ms) < expire_at_ms <= open_at_ms + MAX_OPEN_MS:
            refusal = _bad("expire_at_ms", "must be later than now and the opening, and at most 24 hours after it")
        if refusal is None and expire_at_ms > MAX_INT:
            refusal = _bad("open_at_ms", "is too late")
        if refusal is not None:
            return ActivityStep(answer=refusal)
        seed = self._rng()
        content = (*command[2:-1], tuple(command.eligibility))
        scheduled = PacketScheduled(
            command.title, command.mode, command.total_cents, command.count, command.min_cents, command.max_cents,
            open_at_ms, expire_at_ms, seed_hash(seed).hex(), command.eligibility,
        )  # fmt: skip
        return ActivityStep(
            (Fact("created", (now_ms, seed, open_at_ms, expire_at_ms, content)),),
            CreatedPacket(self.id, open_at_ms, expire_at_ms, scheduled.seed_hash),
            event=RoomEvent("packets.scheduled", scheduled),
        )

    def _created(self) -> CreatedPacket:
        return CreatedPacket(self.id, self._open_at_ms, self._expire_at_ms, seed_hash(self._seed).hex())

    def _grab(self, command: GrabPacket, requester: Requester, now_ms: int) -> ActivityStep[T]:
        own = self._shares.of(requester.user)
        if own is not None:
            return ActivityStep(answer=own)
        refusal = self._refusal_of_grab(command, requester, now_ms)
        if refusal is not None:
            return ActivityStep(answer=refusal)
        share = self._shares.next_share()
        assert share is not None, "an open packet has a free share"
        name = masked_name(requester.name)
        facts = [Fact("grabbed", (*share, requester.user, name))]
        report = PacketGrabbedData(self.id, self.config.order_id, share.share, requester.user, share.cents)
        event = None
        if share.share + 1 == self.config.count:
            facts.append(Fact("emptied", (now_ms,)))
            opened_at_ms = self._states[-1][1]
            emptied = PacketEmptied(*self._shares.best(name, share.cents), now_ms - opened_at_ms)
            event = RoomEvent("packets.emptied", emptied)
        return ActivityStep(tuple(facts), share, event=event, reports=(ActivityReport("packet.grabbed", report),))

    def _refusal_of_grab(self, command: GrabPacket, requester: Requester, now_ms: int) -> ActivityRefusal | None:
        if self.state is PacketState.SCHEDULED:
            return not_open(self._open_at_ms - now_ms)
        if any(state is PacketState.CANCELLED for state, _ in self._states):
            return grab_refusal(ErrorCode.CANCELLED)
        if self.state is not PacketState.OPEN or now_ms >= self._expire_at_ms:
            return grab_refusal(ErrorCode.EMPTY)
        return ineligible(self.config.eligibility, requester, command.keyword)

    def _cancel(self, now_ms: int) -> ActivityStep[T]:
        answer = CancelledPacket(self._shares.left_cents)
        if self.state is PacketState.SCHEDULED:
            event = RoomEvent("packets.cancelled", PacketCancelled(answer.returned_cents))
            return ActivityStep((Fact("cancelled", (now_ms,)),), answer, event=event)
        if self.state is PacketState.OPEN:
            return self._expire(now_ms)._replace(answer=answer)
        return ActivityStep(answer=answer)

    def _expire(self, now_ms: int) -> ActivityStep[T]:
        shares = self._shares
        event = RoomEvent("packets.expired", PacketExpired(shares.taken, shares.left_cents))
        return ActivityStep((Fact("expired", (now_ms,)),), event=event)

    # ---- time

    def next_due(self) -> int | None:
        """Return when it opens, ends or is settled, or the next slice of its total is to be divided."""
        if not self._states:
            return None
        state, since_ms = self._states[-1]
        if state in (PacketState.SCHEDULED, PacketState.OPEN) and not self._shares.is_divided:
            return self._next_slice_ms
        if state is PacketState.SCHEDULED:
            return self._open_at_ms
        if state is PacketState.OPEN:
            return self._expire_at_ms
        return None if state is PacketState.SETTLED else since_ms + SETTLED_AFTER_MS

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        """Open it, end it, or settle it."""
        due_ms = self.next_due()
        if due_ms is None or now_ms < due_ms:
            return None
        if self.state is PacketState.SCHEDULED:
            if self._is_early(now_ms, self._open_at_ms):
                return None
            config = self.config
            opened = PacketOpened(config.total_cents, config.count, seed_hash(self._seed).hex(), self._expire_at_ms)
            return ActivityStep((Fact("opened", (now_ms,)),), event=RoomEvent("packets.opened", opened))
        if self.state is PacketState.OPEN:
            return None if self._is_early(now_ms, self._expire_at_ms) else self._expire(now_ms)
        shares = self._shares
        settled = PacketSettled(self._seed.hex(), shares.taken, shares.left_cents)
        return self._settle(now_ms)._replace(event=RoomEvent("packets.settled", settled))

    def _is_early(self, now_ms: int, due_ms: int) -> bool:
        """Return whether it is not ``due_ms`` yet, or the total is not divided; divide a slice of it."""
        if self._shares.is_dividing():
            self._next_slice_ms = now_ms + 1
            return True
        return now_ms < due_ms

    def _settle(self, now_ms: int) -> ActivityStep[T]:
        shares = self._shares
        report = PacketSettledData(
            self.id, self.config.order_id, shares.taken, shares.taken_cents, shares.left_cents, self._seed.hex()
        )
        return ActivityStep((Fact("settled", (now_ms,)),), reports=(ActivityReport("packet.settled", report),))

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        """Settle it at once."""
        return None if not self._states or self.state is PacketState.SETTLED else self._settle(now_ms)

    @property
    def removable_at(self) -> int | None:
        """When it was settled."""
        return self._states[-1][1] if self._states and self.state is PacketState.SETTLED else None

    # ---- state

    def apply(self, fact: Fact) -> None:
        """Change the state by a fact."""
        if fact.name == "created":
            _, self._seed, self._open_at_ms, self._expire_at_ms, content = fact.data
            self._config = CreatePacket._make(("", self.id, *content[:-1], eligibility_of_fact(content[-1])))
            self._config = self._config._replace(mode=SplitMode(self._config.mode))
            self._shares = PacketShares(_terms_of(self._config), self._seed)
        if fact.name == "grabbed":
            _, cents, user, name = fact.data
            self._shares.take(user, name, cents)
        else:
            self._states.append((_STATE_AFTER[fact.name], fact.data[0]))

    def undo(self, fact: Fact) -> None:
        """Take back the newest fact."""
        if fact.name == "grabbed":
            self._shares.put_back()
            return
        self._states.pop()
        if fact.name == "created":
            self._config = None

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        """Return a fact without a user: only that of a share names one."""
        if fact.name != "grabbed" or fact.data[2] != erased.user:
            return fact
        return Fact(fact.name, (*fact.data[:2], erased.pseudonym, ""))

    def erase(self, erased: ErasedUser) -> None:
        """Give the share of a user to its pseudonym."""
        if self._config is not None:
            self._shares.erase(erased)

    def dump(self) -> tuple[Any, ...]:
        """Return the state."""
        if self._config is None:
            return ()
        return (
            self._config, self._seed, self._open_at_ms, self._expire_at_ms, self._shares.dump(), tuple(self._states),
        )  # fmt: skip

    # ---- what members see

    @property
    def amounts(self) -> Mapping[str, int]:
        left = "open" if self.state in (PacketState.SCHEDULED, PacketState.OPEN) else "returned"
        return {"taken": self._shares.taken_cents, left: self._shares.left_cents}

    def view(self, is_staff: bool) -> PacketView | None:
        """Return the packet while it is not settled."""
        if self._config is None or self.state is PacketState.SETTLED:
            return None
        config = self._config
        return PacketView(
            config.title, self.state, config.mode, config.total_cents, config.count, self._shares.taken,
            self._open_at_ms, self._expire_at_ms, seed_hash(self._seed).hex(), config.eligibility,
        )  # fmt: skip

    def own_view(self, user: str) -> OwnPacketShare | None:
        """Return the user's share."""
        return self._shares.of(user)

    def counter(self) -> RoomEvent | None:
        """Return how many shares are taken, while some are and some are not."""
        if not self._states or self.state is not PacketState.OPEN or not self._shares.taken:
            return None
        return RoomEvent("packets.counted", PacketTaken(self._shares.taken))

    def info(self) -> PacketInfo:
        """Return the packet as the platform sees it."""
        config = self.config
        shares = self._shares
        return PacketInfo(
            self.id, config.order_id, config.title, self.state, config.mode, config.total_cents, config.count,
            shares.taken, shares.taken_cents, self._open_at_ms, self._expire_at_ms, seed_hash(self._seed).hex(),
        )  # fmt: skip


_STATE_AFTER = {
    "created": PacketState.SCHEDULED,
    "opened": PacketState.OPEN,
    "emptied": PacketState.DONE,
    "expired": PacketState.DONE,
    "cancelled": PacketState.CANCELLED,
    "settled": PacketState.SETTLED,
}

_GRAB_RULES = {
    ErrorCode.CANCELLED: "was cancelled",
    ErrorCode.EMPTY: "has no share left",
}


def not_open(wait_ms: int) -> ActivityRefusal:
    """Return the refusal of a grab that is so much too early. At 0 or less the ledger has not taken the opening yet."""
    return ActivityRefusal(ErrorCode.NOT_OPEN, "is not open yet", "id", wait_ms if wait_ms > 0 else RETRY_MS)


def grab_refusal(code: ErrorCode) -> ActivityRefusal:
    """Return the refusal of a grab that comes too late: CANCELLED or EMPTY."""
    return ActivityRefusal(code, _GRAB_RULES[code], "id")


def id_refusal(id: str) -> ActivityRefusal | None:
    """Return why an id cannot be that of a packet or a rain; None: it can. Drops are called ``rain/number``."""
    return _bad("id", "must have no /") if "/" in id else None


def _terms_of(config: CreatePacket) -> ShareTerms:
    return ShareTerms(config.mode, config.total_cents, config.count, config.min_cents, config.max_cents)


def _bad(field: str, rule: str) -> ActivityRefusal:
    return ActivityRefusal(ErrorCode.BAD_FIELD, rule, field)
