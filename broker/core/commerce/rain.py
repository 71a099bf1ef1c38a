"""Rains: red packets that fall one after the other, at times that are drawn.

The seed decides at creation when each packet (a *drop*) falls and how it is divided. A drop is announced shortly before
it opens; one that could not be opened in time is missed, and its money returned with the rest of the rain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
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
    move_to_pseudonym,
    refused,
)
from broker.core.commerce.eligibility import eligibility_of_fact, ineligible
from broker.core.commerce.packet import SETTLED_AFTER_MS, grab_refusal, id_refusal, not_open
from broker.core.commerce.packet_shares import PacketShares, ShareTerms
from protocol.activities.packets import PacketGrabbedData, SplitMode
from protocol.activities.rains import (
    MAX_OWN_DROPS,
    MAX_SHOWN_DROPS,
    DropAnnounced,
    DropEmptied,
    DropExpired,
    DropMissed,
    DropOpened,
    DropSettled,
    OwnDrop,
    OwnDrops,
    RainCancelled,
    RainScheduled,
    RainSettled,
    RainSettledData,
    RainState,
    RainView,
    ShownDrop,
)
from protocol.codes import ErrorCode
from protocol.fields import MAX_INT
from protocol.operations.packets import CancelledPacket, CancelRain, CreatedRain, CreateRain, MyShare
from protocol.packet_shares import Drop, rain_drops
from protocol.primitives import seed_hash
from protocol.text import masked_name

__all__ = ["ANNOUNCED_MS", "MAX_LATE_MS", "MAX_RAIN_SHARES", "GrabDrop", "MyDropShare", "Rain", "drop_of"]

T = TypeVar("T")

ANNOUNCED_MS = 3000
"""How long before it opens a drop is announced."""
MAX_LATE_MS = 10_000
"""A drop that would open later than this is missed."""
MAX_RAIN_SHARES = 100_000
"""Shares of all drops of a rain."""


class GrabDrop(NamedTuple):
    """Take a share of a drop, by its number."""

    number: int
    keyword: str = ""


class MyDropShare(NamedTuple):
    """Ask for the caller's share of a drop."""

    number: int


class _DropState(IntEnum):
    SCHEDULED = 0
    ANNOUNCED = 1
    OPEN = 2
    DONE = 3
    SETTLED = 4
    MISSED = 5


_OVER = (_DropState.SETTLED, _DropState.MISSED)
_FALLING = (_DropState.ANNOUNCED, _DropState.OPEN)


class _RainDrop:
    """One drop: what is planned, and what has happened to it."""

    __slots__ = ("expire_at_ms", "packet", "plan", "shares", "states")

    def __init__(self, packet: str, plan: Drop, shares: PacketShares) -> None:
        self.packet = packet
        self.plan = plan
        self.shares = shares
        self.expire_at_ms = 0
        self.states: list[tuple[_DropState, int]] = [(_DropState.SCHEDULED, 0)]
        """States and since when, the present one last."""

    @property
    def state(self) -> _DropState:
        return self.states[-1][0]

    @property
    def due_ms(self) -> int:
        """When its next state is due; of one that is over 0."""
        state, since_ms = self.states[-1]
        if state is _DropState.SCHEDULED:
            return self.plan.at_ms - ANNOUNCED_MS
        if state is _DropState.ANNOUNCED:
            return self.plan.at_ms
        if state is _DropState.OPEN:
            return self.expire_at_ms
        return 0 if state in _OVER else since_ms + SETTLED_AFTER_MS


class Rain(Activity[T]):
    """One rain. Commands: `CreateRain`, `CancelRain`, `GrabDrop`, `MyDropShare`. ``rng``: 32 bytes, the seed."""

    kind = "rains"

    def __init__(self, id: str, rng: Callable[[], bytes]) -> None:
        super().__init__(id)
        self._rng = rng
        self._config: CreateRain | None = None
        self._seed = b""
        self._start_ms = 0
        self._states: list[tuple[RainState, int]] = []
        """States and since when, the present one last."""
        self._drops: tuple[_RainDrop, ...] = ()
        self._next_slice_ms = 0
        """When the next slice of dividing the total of a drop is due: from its announcement on, so that it opens in
        time."""
        self._begun = 0
        """Drops that are no longer only scheduled; they are the first ones."""
        self._active: dict[int, None] = {}
        """Numbers of drops that are begun and not over."""
        self._own: dict[str, list[OwnDrop]] = {}
        """What each user has taken, in order."""
        self._taken_cents = 0

    @property
    def exists(self) -> bool:
        """Whether it has been created."""
        return self._config is not None

    @property
    def state(self) -> RainState:
        """Its state."""
        return self._states[-1][0]

    @property
    def config(self) -> CreateRain:
        """What it was created with; the room is empty."""
        if self._config is None:
            raise ValueError("the rain does not exist")
        return self._config

    # ---- commands

    # Any: as in `Activity`.
    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T]:
        """Judge a command."""
        if isinstance(command, CreateRain):
            return self._create(command, now_ms)
        if self._config is None:
            return ActivityStep(answer=_unknown())
        if isinstance(command, CancelRain):
            return self._cancel(now_ms)
        assert isinstance(command, GrabDrop | MyDropShare), command
        if command.number >= len(self._drops) or (command.number >= self._begun and self.state is RainState.RUNNING):
            return ActivityStep(answer=_unknown())  # its time is secret until it is announced
        drop = self._drops[command.number]
        own = drop.shares.of(requester.user)
        if isinstance(command, MyDropShare):
            return ActivityStep(answer=MyShare(own))
        if own is not None:
            return ActivityStep(answer=own)
        refused = self._refusal_of_grab(drop, command, requester, now_ms)
        return self._grab(command.number, requester, now_ms) if refused is None else ActivityStep(answer=refused)

    def _create(self, command: CreateRain, now_ms: int) -> ActivityStep[T]:
        if self._config is not None:
            if command._replace(room="") == self._config:
                return ActivityStep(answer=CreatedRain(self.id, self._start_ms, seed_hash(self._seed).hex()))
            return refused(ErrorCode.KEY_REUSED, "was created with other content", "id")
        start_ms = command.start_at_ms or now_ms + ANNOUNCED_MS
        refusal = id_refusal(command.id) or _refusal_of_drops(command)
        if refusal is None and start_ms < now_ms + ANNOUNCED_MS:
            refusal = _bad("start_at_ms", f"must be at least {ANNOUNCED_MS} ms from now")
        if refusal is None and start_ms + command.span_ms + command.drop_ms > MAX_INT:
            refusal = _bad("start_at_ms", "is too late")
        if refusal is not None:
            return ActivityStep(answer=refusal)
        seed = self._rng()
        content = (*command[2:-1], tuple(command.eligibility))
        scheduled = RainScheduled(
            command.title, command.mode, command.total_cents, command.drops, command.count, start_ms, command.span_ms,
            command.max_per_user, seed_hash(seed).hex(), command.eligibility,
        )  # fmt: skip
        return ActivityStep(
            (Fact("created", (now_ms, seed, start_ms, content)),),
            CreatedRain(self.id, start_ms, scheduled.seed_hash),
            event=RoomEvent("rains.scheduled", scheduled),
        )

    def _refusal_of_grab(
        self, drop: _RainDrop, command: GrabDrop, requester: Requester, now_ms: int
    ) -> ActivityRefusal | None:
        config = self.config
        if self.state is not RainState.RUNNING:
            return grab_refusal(ErrorCode.EMPTY if drop.shares.taken else ErrorCode.CANCELLED)
        if drop.state is _DropState.ANNOUNCED:
            return not_open(drop.plan.at_ms - now_ms)
        if drop.state is not _DropState.OPEN or now_ms >= drop.expire_at_ms:
            return grab_refusal(ErrorCode.EMPTY)
        if config.max_per_user and len(self._own.get(requester.user, ())) >= config.max_per_user:
            return ActivityRefusal(ErrorCode.ALREADY_HAVE, f"has taken of {config.max_per_user} packets", "id")
        return ineligible(config.eligibility, requester, command.keyword)

    def _grab(self, number: int, requester: Requester, now_ms: int) -> ActivityStep[T]:
        drop = self._drops[number]
        share = drop.shares.next_share()
        assert share is not None, "an open drop has a free share"
        name = masked_name(requester.name)
        facts = [Fact("grabbed", (number, *share, requester.user, name))]
        report = PacketGrabbedData(drop.packet, self.config.order_id, share.share, requester.user, share.cents)
        event = None
        if share.share + 1 == self.config.count:
            facts.append(Fact("emptied", (number, now_ms)))
            best_name, best_cents = drop.shares.best(name, share.cents)
            took_ms = now_ms - drop.states[-1][1]
            event = RoomEvent("rains.drop_emptied", DropEmptied(drop.packet, best_name, best_cents, took_ms))
        return ActivityStep(tuple(facts), share, event=event, reports=(ActivityReport("packet.grabbed", report),))

    def _cancel(self, now_ms: int) -> ActivityStep[T]:
        answer = CancelledPacket(self._left_cents)
        if self.state is not RainState.RUNNING:
            return ActivityStep(answer=answer)
        event = RoomEvent("rains.cancelled", RainCancelled(answer.returned_cents))
        return ActivityStep((Fact("cancelled", (now_ms,)),), answer, event=event)

    @property
    def _left_cents(self) -> int:
        return self.config.total_cents - self._taken_cents

    # ---- time

    def next_due(self) -> int | None:
        """Return when a drop is due for its next state, or its total to be divided, or when the rain is settled."""
        if not self._states or self.state is RainState.SETTLED:
            return None
        if self.state is RainState.CANCELLED:
            return self._states[-1][1] + SETTLED_AFTER_MS
        number = self._next_drop()
        if number is None:
            return 0
        drop, undivided = self._drops[number], self._undivided()
        if undivided is None:
            return drop.due_ms
        return self._next_slice_ms if undivided is drop.shares else min(drop.due_ms, self._next_slice_ms)

    def _undivided(self) -> PacketShares | None:
        """Return the shares of the first drop that is announced or open and whose total is not divided."""
        announced = (self._drops[number] for number in self._active)
        undivided = (drop.shares for drop in announced if drop.state in _FALLING and not drop.shares.is_divided)
        return next(undivided, None)

    def _next_drop(self) -> int | None:
        """Return the drop that is due first, of equal ones the one that falls first; None: all are over."""
        due = [(self._drops[number].due_ms, number) for number in self._active]
        if self._begun < len(self._drops):
            due.append((self._drops[self._begun].due_ms, self._begun))
        return min(due)[1] if due else None

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        """Announce, open, end, miss or settle a drop, or settle the rain."""
        due_ms = self.next_due()
        if due_ms is None or now_ms < due_ms:
            return None
        number = self._next_drop() if self.state is RainState.RUNNING else None
        if number is None:
            fallen = self._fallen_shares()
            settled = RainSettled(
                self._seed.hex(), len(fallen), sum(shares.taken for shares in fallen), self._left_cents
            )
            return self._settle(now_ms)._replace(event=RoomEvent("rains.settled", settled))
        drop = self._drops[number]
        undivided = self._undivided()
        if undivided is not None and (undivided is drop.shares or now_ms < drop.due_ms):
            self._next_slice_ms = now_ms + 1
            if undivided.is_dividing():
                return None
        if now_ms < drop.due_ms:
            return None
        if drop.state in (_DropState.SCHEDULED, _DropState.ANNOUNCED):
            return self._begin(number, drop, now_ms)
        shares = drop.shares
        if drop.state is _DropState.OPEN:
            expired = DropExpired(drop.packet, shares.taken, shares.left_cents)
            return _step("expired", number, now_ms, "rains.drop_expired", expired)
        over = DropSettled(drop.packet, drop.plan.seed.hex(), shares.taken, shares.left_cents)
        return _step("drop_settled", number, now_ms, "rains.drop_settled", over)

    def _begin(self, number: int, drop: _RainDrop, now_ms: int) -> ActivityStep[T]:
        """Announce a drop, open it, or, where it is too late, leave it out."""
        cents = drop.plan.cents
        if now_ms < drop.plan.at_ms:
            announced = DropAnnounced(drop.packet, drop.plan.at_ms)
            return _step("announced", number, now_ms, "rains.drop_announced", announced)
        if now_ms > drop.plan.at_ms + MAX_LATE_MS:
            return _step("missed", number, now_ms, "rains.drop_missed", DropMissed(drop.packet, cents))
        expire_at_ms = now_ms + self.config.drop_ms
        hash = seed_hash(drop.plan.seed).hex()
        opened = DropOpened(drop.packet, cents, self.config.count, hash, expire_at_ms)
        return _step("opened", number, now_ms, "rains.drop_opened", opened)

    def _fallen_shares(self) -> list[PacketShares]:
        """Return the shares of drops that were open."""
        return [drop.shares for drop in self._drops if any(state is _DropState.OPEN for state, _ in drop.states)]

    def _settle(self, now_ms: int) -> ActivityStep[T]:
        shares = self._fallen_shares()
        report = RainSettledData(
            self.id, self.config.order_id, len(shares), sum(each.taken for each in shares), self._taken_cents,
            self._left_cents, self._seed.hex(),
        )  # fmt: skip
        return ActivityStep((Fact("settled", (now_ms,)),), reports=(ActivityReport("rain.settled", report),))

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        """Settle it at once."""
        return None if not self._states or self.state is RainState.SETTLED else self._settle(now_ms)

    @property
    def removable_at(self) -> int | None:
        """When it was settled."""
        return self._states[-1][1] if self._states and self.state is RainState.SETTLED else None

    # ---- state

    def apply(self, fact: Fact) -> None:
        """Change the state by a fact."""
        if fact.name == "created":
            self._apply_created(fact)
        elif fact.name in _RAIN_STATE_AFTER:
            self._states.append((_RAIN_STATE_AFTER[fact.name], fact.data[0]))
        elif fact.name == "grabbed":
            number, share, cents, user, name = fact.data
            drop = self._drops[number]
            drop.shares.take(user, name, cents)
            self._own.setdefault(user, []).append(OwnDrop(drop.packet, share, cents))
            self._taken_cents += cents
        else:
            number, at_ms = fact.data
            self._move(number, _STATE_AFTER[fact.name], at_ms)

    def _apply_created(self, fact: Fact) -> None:
        at_ms, self._seed, self._start_ms, content = fact.data
        config = CreateRain._make(("", self.id, *content[:-1], eligibility_of_fact(content[-1])))
        self._config = config = config._replace(mode=SplitMode(config.mode))
        plans = rain_drops(
            self._start_ms, config.span_ms, config.drops, config.jitter_percent, config.total_cents, self._seed
        )
        self._drops = tuple(
            _RainDrop(f"{self.id}/{number}", plan, PacketShares(_terms_of(config, plan.cents), plan.seed))
            for number, plan in enumerate(plans)
        )
        self._states.append((RainState.RUNNING, at_ms))

    def _move(self, number: int, state: _DropState, at_ms: int) -> None:
        drop = self._drops[number]
        if drop.state is _DropState.SCHEDULED:
            self._begun += 1
            self._active[number] = None
        drop.states.append((state, at_ms))
        if state is _DropState.OPEN:
            drop.expire_at_ms = at_ms + self.config.drop_ms
        if state in _OVER:
            del self._active[number]

    def undo(self, fact: Fact) -> None:
        """Take back the newest fact."""
        if fact.name == "created":
            self._config, self._drops = None, ()
            self._states.pop()
        elif fact.name in _RAIN_STATE_AFTER:
            self._states.pop()
        elif fact.name == "grabbed":
            number, _, cents, user, _ = fact.data
            self._drops[number].shares.put_back()
            own = self._own[user]
            own.pop()
            if not own:
                del self._own[user]
            self._taken_cents -= cents
        else:
            self._move_back(fact.data[0])

    def _move_back(self, number: int) -> None:
        drop = self._drops[number]
        state, _ = drop.states.pop()
        if state is _DropState.OPEN:
            drop.expire_at_ms = 0
        if state in _OVER:
            self._active[number] = None
        if drop.state is _DropState.SCHEDULED:
            self._begun -= 1
            del self._active[number]

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        """Return a fact without a user: only that of a share names one."""
        if fact.name != "grabbed" or fact.data[3] != erased.user:
            return fact
        return Fact(fact.name, (*fact.data[:3], erased.pseudonym, ""))

    def erase(self, erased: ErasedUser) -> None:
        """Give the shares of a user to its pseudonym."""
        if erased.user in self._own:
            for drop in self._drops:
                drop.shares.erase(erased)
            move_to_pseudonym(self._own, erased)

    def dump(self) -> tuple[Any, ...]:
        """Return the state."""
        if self._config is None:
            return ()
        drops = tuple((drop.shares.dump(), drop.expire_at_ms, tuple(drop.states)) for drop in self._drops)
        own = tuple(sorted((user, tuple(items)) for user, items in self._own.items()))
        return (
            self._config, self._seed, self._start_ms, tuple(self._states), drops, self._begun,
            tuple(sorted(self._active)), own, self._taken_cents,
        )  # fmt: skip

    # ---- what members see

    @property
    def amounts(self) -> Mapping[str, int]:
        left = "returned" if self.state is RainState.SETTLED else "open"
        return {"taken": self._taken_cents, left: self._left_cents}

    def view(self, is_staff: bool) -> RainView | None:
        """Return the rain while it is not settled."""
        if self._config is None or self.state is RainState.SETTLED:
            return None
        config = self._config
        seen = [self._drops[number] for number in sorted(self._active)] if self.state is RainState.RUNNING else []
        shown = tuple(
            ShownDrop(drop.packet, drop.state is _DropState.OPEN, drop.shares.taken, drop.plan.at_ms, drop.expire_at_ms)
            for drop in seen
            if drop.state is not _DropState.DONE
        )
        return RainView(
            config.title, self.state, config.mode, config.total_cents, config.drops, len(self._fallen_shares()),
            config.count, self._start_ms, config.span_ms, config.max_per_user, seed_hash(self._seed).hex(),
            config.eligibility, shown[-MAX_SHOWN_DROPS:],
        )  # fmt: skip

    def own_view(self, user: str) -> OwnDrops | None:
        """Return what the user has taken."""
        own = self._own.get(user)
        if own is None:
            return None
        return OwnDrops(len(own), sum(item.cents for item in own), tuple(own[-MAX_OWN_DROPS:]))


_STATE_AFTER = {
    "announced": _DropState.ANNOUNCED,
    "opened": _DropState.OPEN,
    "emptied": _DropState.DONE,
    "expired": _DropState.DONE,
    "drop_settled": _DropState.SETTLED,
    "missed": _DropState.MISSED,
}
_RAIN_STATE_AFTER = {"cancelled": RainState.CANCELLED, "settled": RainState.SETTLED}


def drop_of(packet: str) -> tuple[str, int] | None:
    """Return the rain and the number of a drop, by the id of its packet; None: it is no drop."""
    rain, slash, number = packet.rpartition("/")
    if not slash or not number.isascii() or not number.isdecimal() or str(int(number)) != number:
        return None
    return rain, int(number)


def _step(fact: str, number: int, now_ms: int, event: str, data: Any) -> ActivityStep[Any]:
    """Return the step of a drop into its next state. Any: of the event, and of the tickets, of which it has none."""
    return ActivityStep((Fact(fact, (number, now_ms)),), event=RoomEvent(event, data))


def _refusal_of_drops(command: CreateRain) -> ActivityRefusal | None:
    """Return why the total cannot be divided into such drops; None: it can."""
    if command.drops * command.count > MAX_RAIN_SHARES:
        return _bad("count", f"must be so that all drops have at most {MAX_RAIN_SHARES} shares")
    base, more = divmod(command.total_cents, command.drops)
    if command.mode is SplitMode.FIXED and more:
        return _bad("drops", "must divide the total of fixed shares")
    return _terms_of(command, base).refusal() or (_terms_of(command, base + 1).refusal() if more else None)


def _terms_of(config: CreateRain, cents: int) -> ShareTerms:
    return ShareTerms(config.mode, cents, config.count, config.min_cents, config.max_cents)


def _unknown() -> ActivityRefusal:
    return ActivityRefusal(ErrorCode.UNKNOWN_ACTIVITY, "names no packet of the room", "id")


def _bad(field: str, rule: str) -> ActivityRefusal:
    return ActivityRefusal(ErrorCode.BAD_FIELD, rule, field)
