"""Lotteries whose draw anybody can check: a commitment before entries open, a root at the close, the seed at the draw.

Pure. One random seed, drawn at creation, gives the seed of the draw and the private key of blind ids: making one
public says nothing of the other. Entries are hashed, and winners drawn, in slices of 2 to 4 ms: `due` does one slice
and `next_due` asks for the next one a millisecond later, so that 100,000 entries never hold the event loop.

With a beacon the draw needs the signature of a drand round that is published after the close. There is no early close
and no voiding once the outcome can be known: either would be a choice between outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
    UserMessage,
    refused,
)
from broker.core.commerce.eligibility import ineligible
from broker.core.commerce.lottery_config import LotteryConfig, NewLottery, fold_keyword
from broker.core.commerce.lottery_entries import LotteryEntries
from protocol.activities.lotteries import (
    MAX_REPORTED_WINNERS,
    LotteryAnnounced,
    LotteryClosedData,
    LotteryCounter,
    LotteryDrawnData,
    LotteryEntry,
    LotteryOpened,
    LotteryPhase,
    LotteryPrize,
    LotteryRoot,
    LotteryView,
    LotteryVoided,
    LotteryVoidedData,
    LotteryWinner,
    LotteryWonData,
)
from protocol.codes import ErrorCode
from protocol.lottery.drand import KNOWN_CHAINS, DrandChain, beacon_value
from protocol.lottery.proof import PROOF_FORMAT, LotteryBeacon, LotteryClosed, LotteryCommitted
from protocol.operations.lotteries import LotteryCreated, LotteryProofPage, MyLotteryEntry

__all__ = [
    "DrawCommand",
    "EnterCommand",
    "Lottery",
    "VoidCommand",
]

T = TypeVar("T")

MAX_PENDING_DRAWS = 8
MAX_LAST_PRIZES = 1000
"""Prizes that are sent with the end of the room."""
PROOF_PAGE_BYTES = 44 * 1024
"""Of the ids in one page of a proof: with the terms, a page fits a frame."""
LATER_MS = 1000


class EnterCommand(NamedTuple):
    """Enter, or raise the weight of an entry. ``said``: the text of a message, which may be the keyword."""

    said: str = ""


class DrawCommand(NamedTuple):
    """Hand in the value of the beacon, or wait for the draw of a lottery without one.

    ``is_checked``: the signature is that of the round; False: that could not be checked.
    """

    round: int
    signature: bytes
    is_checked: bool


class VoidCommand(NamedTuple):
    """End it without a draw."""

    reason: str


class Lottery(Activity[T]):
    """One lottery. ``random_bytes``: returns 32 unguessable bytes; ``chains``: those whose rounds have a known time."""

    kind = "lotteries"

    def __init__(
        self, id: str, random_bytes: Callable[[], bytes], chains: Mapping[str, DrandChain] = KNOWN_CHAINS
    ) -> None:
        super().__init__(id)
        self._random_bytes = random_bytes
        self._chains = chains
        self._config: LotteryConfig | None = None
        self._phase = LotteryPhase.ANNOUNCED
        self._entries = LotteryEntries()
        self._root = b""
        self._closed_at: int | None = None
        self._signature = b""
        self._drawn_at: int | None = None
        self._prizes_sent = 0
        self._voided: LotteryVoided | None = None
        # what only waits
        self._slices: Iterator[None] | None = None
        self._next_slice_at = 0
        self._handed_in: bytes | None = None
        """Signature whose draw is under way."""
        self._pending: list[T] = []
        """Callers who wait for the draw."""

    @property
    def exists(self) -> bool:
        return self._config is not None

    @property
    def phase(self) -> LotteryPhase:
        return self._phase

    @property
    def is_drawn(self) -> bool:
        return self._phase is LotteryPhase.DRAWN

    @property
    def is_listening(self) -> bool:
        return self._phase is LotteryPhase.OPEN and self._config is not None and bool(self._config.keyword)

    def hears(self, text: str) -> bool:
        config = self._config
        return self.is_listening and config is not None and fold_keyword(text) == config.keyword

    # ---- commands

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T] | None:
        if isinstance(command, NewLottery):
            return self._create(command, requester, now_ms)
        config = self._config
        if config is None:
            return refused(ErrorCode.UNKNOWN_ACTIVITY, "names none of the lotteries of this room", "id")
        if isinstance(command, EnterCommand):
            return self._enter(config, command, requester, now_ms)
        if isinstance(command, DrawCommand):
            return self._draw(config, command, requester, ticket, now_ms)
        assert isinstance(command, VoidCommand)
        return self._void(config, command, now_ms)

    def _create(self, new: NewLottery, requester: Requester, now_ms: int) -> ActivityStep[T]:
        if self._config is not None:
            if self._config.new != new:
                return refused(ErrorCode.KEY_REUSED, "is the id of another lottery", "id")
            return ActivityStep(answer=LotteryCreated(self.id, self._config.commitment))
        refusal = new.refusal(self.id, requester, self._chains, now_ms)
        if refusal is not None:
            return ActivityStep(answer=refusal)
        fact = Fact("created", (now_ms, self._random_bytes(), *new))
        config = LotteryConfig.from_fact(fact.data, self._chains)
        shown = LotteryAnnounced(config.commitment, *new)
        return ActivityStep(
            (fact,), LotteryCreated(self.id, config.commitment), event=RoomEvent("lotteries.announced", shown)
        )

    def _enter(
        self, config: LotteryConfig, command: EnterCommand, requester: Requester, now_ms: int
    ) -> ActivityStep[T]:
        if self._phase is LotteryPhase.ANNOUNCED:
            return _not_open("takes no entries yet", config.terms.open_at_ms - now_ms)
        if self._phase is not LotteryPhase.OPEN or now_ms >= config.terms.close_at_ms:
            return refused(ErrorCode.CLOSED, "takes no entries any more")
        id, salt = config.entry_id(requester.user)
        weight = config.weight(requester)
        if id in self._entries:
            before = self._entries.weight_of(id)
            if requester.is_paused:
                weight = before
            facts = (Fact("raised", (id, before, weight)),) if weight > before else ()
            return ActivityStep(facts, LotteryEntry(id, salt, max(before, weight)))
        conditions = config.new.eligibility
        says_it = config.keyword and fold_keyword(command.said) == config.keyword
        refusal = ineligible(conditions, requester, conditions.keyword if says_it else command.said)
        if refusal is not None:
            return ActivityStep(answer=refusal)
        if len(self._entries) >= config.new.max_entries:
            return refused(ErrorCode.CLOSED, f"has its {config.new.max_entries} entries")
        return ActivityStep((Fact("entered", (id, requester.user, weight)),), LotteryEntry(id, salt, weight))

    def _draw(
        self, config: LotteryConfig, command: DrawCommand, requester: Requester, ticket: T, now_ms: int
    ) -> ActivityStep[T] | None:
        terms = config.terms
        if self._phase is LotteryPhase.DRAWN:
            return ActivityStep(answer=config.drawn(self._signature, self._entries.winners, self._drawn_at or 0))
        refusal = self.draw_refusal(command.round, now_ms)
        if refusal is not None:
            return ActivityStep(answer=refusal)
        if terms.has_beacon:
            if not command.signature:
                return refused(ErrorCode.BAD_FIELD, "must be the signature of the round", "signature")
            if not command.is_checked and not requester.is_platform:
                return refused(ErrorCode.NOT_ALLOWED, "signatures are not checked here: the platform hands them in")
            if self._handed_in not in (None, command.signature):
                return ActivityStep(answer=_later("a draw with another signature is under way"))
            self._handed_in = command.signature
        if len(self._pending) >= MAX_PENDING_DRAWS:
            return ActivityStep(answer=_later("callers wait for the draw already"))
        self._pending.append(ticket)
        return None

    def draw_refusal(self, round: int, now_ms: int) -> ActivityRefusal | None:
        """Return why a lottery that exists cannot be drawn now, whatever the signature is; None: it can, or is."""
        config = self._config
        assert config is not None
        if self._phase is LotteryPhase.DRAWN:
            return None
        if self._phase is LotteryPhase.VOIDED:
            return ActivityRefusal(ErrorCode.CLOSED, "is void: there is no draw")
        if round != config.terms.beacon_round:
            return ActivityRefusal(ErrorCode.BAD_FIELD, f"must be {config.terms.beacon_round}", "round")
        public_at = max(config.terms.close_at_ms, config.round_ms or 0)
        if self._phase is not LotteryPhase.CLOSED or now_ms < public_at:
            return ActivityRefusal(ErrorCode.NOT_OPEN, "cannot be drawn yet", "", max(LATER_MS, public_at - now_ms))
        return None

    def _void(self, config: LotteryConfig, command: VoidCommand, now_ms: int) -> ActivityStep[T]:
        is_final = self._phase in (LotteryPhase.DRAWN, LotteryPhase.VOIDED)
        is_closed = now_ms >= config.terms.close_at_ms
        if is_final or (is_closed and (config.round_ms is None or now_ms >= config.round_ms)):
            return refused(ErrorCode.CLOSED, "can be voided only while its outcome is unknown")
        voided = LotteryVoided(command.reason, now_ms)
        return self._voiding(voided, voided)

    def _voiding(self, voided: LotteryVoided, answer: Any = None) -> ActivityStep[T]:
        pending, self._pending, self._handed_in = self._pending, [], None
        gone = ActivityRefusal(ErrorCode.CLOSED, "is void: there is no draw")
        return ActivityStep(
            (Fact("voided", (int(self._phase), *voided)),),
            answer,
            tuple((ticket, gone) for ticket in pending),
            RoomEvent("lotteries.voided", voided),
            reports=(self._void_report(voided.reason),),
        )

    def _void_report(self, reason: str) -> ActivityReport:
        return ActivityReport("lottery.voided", LotteryVoidedData(self.id, reason, len(self._entries)))

    # ---- time

    def next_due(self) -> int | None:
        config = self._config
        if config is None or self._phase is LotteryPhase.VOIDED:
            return None
        if self._slices is not None:
            return self._next_slice_at
        if self._phase is LotteryPhase.ANNOUNCED:
            return config.terms.open_at_ms
        if self._phase is LotteryPhase.OPEN:
            return config.terms.close_at_ms
        if self._phase is LotteryPhase.CLOSED:
            if self._handed_in is not None or not config.terms.has_beacon:
                return self._closed_at
            return config.latest_value_at
        return self._drawn_at if self._prizes_sent < self._winner_count else None

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        config = self._config
        due = self.next_due()
        if config is None or due is None or now_ms < due:
            return None
        if self._phase is LotteryPhase.ANNOUNCED:
            return ActivityStep(
                (Fact("opened"),), event=RoomEvent("lotteries.opened", LotteryOpened(config.terms.close_at_ms))
            )
        if self._phase is LotteryPhase.OPEN:
            return self._close(config, now_ms)
        if self._phase is LotteryPhase.CLOSED:
            if self._handed_in is not None or not config.terms.has_beacon:
                return self._finish_draw(config, self._handed_in or b"", now_ms)
            return self._voiding(LotteryVoided("no value of the beacon was handed in", now_ms))
        return self._send_prizes(config, MAX_REPORTED_WINNERS)

    def _is_done(self, begin: Callable[[], Iterator[None]], now_ms: int) -> bool:
        """Do the next slice of some work, and return whether it was the last one."""
        if self._slices is None:
            self._slices = begin()
        for _ in self._slices:
            self._next_slice_at = now_ms + 1
            return False
        self._slices = None
        return True

    def _close(self, config: LotteryConfig, now_ms: int) -> ActivityStep[T] | None:
        if config.round_ms is not None and now_ms >= config.round_ms:
            self._slices = None
            return self._voiding(LotteryVoided("it could not be closed before the value of the beacon", now_ms))
        if not self._entries.is_hashed and not self._is_done(self._entries.hashing, now_ms):
            return None
        root = self._entries.root
        entries, weight = len(self._entries), self._entries.weight
        return ActivityStep(
            (Fact("closed", (root, now_ms)),),
            event=RoomEvent("lotteries.closed", LotteryRoot(root.hex(), entries, weight, now_ms)),
            reports=(ActivityReport("lottery.closed", LotteryClosedData(self.id, root.hex(), entries, weight)),),
        )

    def _finish_draw(self, config: LotteryConfig, signature: bytes, now_ms: int) -> ActivityStep[T] | None:
        key = self._draw_key(config, signature)
        entries = self._entries
        if not entries.is_drawn(key) and not self._is_done(lambda: entries.drawing(key, config.counts), now_ms):
            return None
        pending, self._pending, self._handed_in = self._pending, [], None
        drawn = config.drawn(signature, entries.winners, now_ms)
        report = LotteryDrawnData(self.id, drawn.seed, drawn.value, drawn.winner_count)
        return ActivityStep(
            (Fact("drawn", (signature, now_ms)),),
            answers=tuple((ticket, drawn) for ticket in pending),
            event=RoomEvent("lotteries.drawn", drawn),
            reports=(ActivityReport("lottery.drawn", report),),
        )

    def _send_prizes(self, config: LotteryConfig, count: int) -> ActivityStep[T]:
        """Return the next ``count`` prizes: a fact and a message each."""
        first = self._prizes_sent
        room, grades = config.terms.room, config.terms.grades
        won = tuple(
            LotteryWinner(self._entries.user_of(id), id, grade, grades[grade].name)
            for id, grade in self._entries.winners_from(first, count)
        )
        return ActivityStep(
            tuple(Fact("prize", (number,)) for number in range(first, first + len(won))),
            messages=tuple(
                UserMessage(one.user, "lotteries.won", LotteryPrize(room, one.grade, one.prize, one.entry))
                for one in won
            ),
            reports=tuple(
                ActivityReport("lottery.won", LotteryWonData(self.id, won[start : start + MAX_REPORTED_WINNERS]))
                for start in range(0, len(won), MAX_REPORTED_WINNERS)
            ),
        )

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        config = self._config
        if config is None or self._phase is LotteryPhase.VOIDED:
            return None
        if self._phase is LotteryPhase.DRAWN:
            is_complete = self._prizes_sent >= self._winner_count
            return None if is_complete else self._send_prizes(config, MAX_LAST_PRIZES)
        return self._voiding(LotteryVoided("the room has ended", now_ms))._replace(event=None)

    @property
    def _winner_count(self) -> int:
        return sum(map(len, self._entries.winners))

    def _draw_key(self, config: LotteryConfig, signature: bytes) -> bytes:
        return config.draw_key(self._root, len(self._entries), self._entries.weight, signature)

    # ---- state

    def apply(self, fact: Fact) -> None:
        name, data = fact
        self._slices = None
        if name == "entered":
            self._entries.add(*data)
        elif name == "raised":
            self._entries.set_weight(data[0], data[2])
        elif name == "prize":
            self._prizes_sent = data[0] + 1
        elif name == "created":
            self._config = LotteryConfig.from_fact(data, self._chains)
        elif name == "opened":
            self._phase = LotteryPhase.OPEN
        elif name == "closed":
            self._phase = LotteryPhase.CLOSED
            self._root, self._closed_at = data
            self._entries.hash()
        elif name == "drawn":
            self._phase = LotteryPhase.DRAWN
            self._signature, self._drawn_at = data
            assert self._config is not None
            self._entries.draw(self._draw_key(self._config, self._signature), self._config.counts)
        elif name == "voided":
            self._phase = LotteryPhase.VOIDED
            self._voided = LotteryVoided(data[1], data[2])

    def undo(self, fact: Fact) -> None:
        name, data = fact
        self._slices = None
        if name == "entered":
            self._entries.remove(data[0])
        elif name == "raised":
            self._entries.set_weight(data[0], data[1])
        elif name == "prize":
            self._prizes_sent = data[0]
        elif name == "created":
            self._config = None
        elif name == "opened":
            self._phase = LotteryPhase.ANNOUNCED
        elif name == "closed":
            self._phase = LotteryPhase.OPEN
            self._root, self._closed_at = b"", None
        elif name == "drawn":
            self._phase = LotteryPhase.CLOSED
            self._signature, self._drawn_at = b"", None
        elif name == "voided":
            self._phase = LotteryPhase(data[0])
            self._voided = None

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        if fact.name != "entered" or fact.data[1] != erased.user:
            return fact
        id, _, weight = fact.data
        return Fact(fact.name, (id, erased.pseudonym, weight))

    def erase(self, erased: ErasedUser) -> None:
        """Give the entry of a user to its pseudonym. Its id stays, which is blind: the proof of the draw holds."""
        if self._config is None:
            return
        id, _ = self._config.entry_id(erased.user)
        if id in self._entries and self._entries.user_of(id) == erased.user:
            self._entries.set_user(id, erased.pseudonym)

    def dump(self) -> tuple[Any, ...]:
        winners = self._entries.winners if self._phase is LotteryPhase.DRAWN else ()
        return (
            self._config and self._config.as_fact(), int(self._phase), self._entries.dump(), self._root,
            self._closed_at, self._signature,
            self._drawn_at, winners, self._prizes_sent, self._voided,
        )  # fmt: skip

    @property
    def removable_at(self) -> int | None:
        if self._voided is not None:
            return self._voided.at_ms
        return self._drawn_at if self._drawn_at is not None and self._prizes_sent >= self._winner_count else None

    # ---- what is read

    def view(self, is_staff: bool) -> LotteryView | None:
        config = self._config
        if config is None or self._phase is LotteryPhase.VOIDED:
            return None
        terms = config.terms
        return LotteryView(
            self._phase, terms.open_at_ms, terms.close_at_ms, config.new.eligibility.keyword, config.commitment,
            len(self._entries), self._root.hex(), terms.beacon_round, config.first_grades(), len(terms.grades),
        )  # fmt: skip

    def own_view(self, user: str) -> LotteryEntry | None:
        config = self._config
        if config is None:
            return None
        id, salt = config.entry_id(user)
        if id not in self._entries:
            return None
        grade = self._entries.grade_of(id) if self._phase is LotteryPhase.DRAWN else None
        return LotteryEntry(
            id, salt, self._entries.weight_of(id), "" if grade is None else config.terms.grades[grade].name
        )

    def counter(self) -> RoomEvent | None:
        return (
            RoomEvent("lotteries.counted", LotteryCounter(len(self._entries)))
            if self._phase is LotteryPhase.OPEN
            else None
        )

    def my_entry(self, user: str) -> MyLotteryEntry | None:
        """Return a user's entry, after the close with its place under the root; None: the user has none."""
        own = self.own_view(user)
        if own is None:
            return None
        if self._phase not in (LotteryPhase.CLOSED, LotteryPhase.DRAWN):
            return MyLotteryEntry(*own)
        index, path = self._entries.place(own.entry)
        return MyLotteryEntry(*own, self._root.hex(), len(self._entries), index, tuple(beside.hex() for beside in path))

    @property
    def beacon_chain(self) -> str:
        """Hash of the chain of the beacon; empty without one."""
        return "" if self._config is None else self._config.terms.beacon_chain

    def proof_page(
        self, first: int, count: int, committed_offset: int, closed_offset: int
    ) -> LotteryProofPage | ActivityRefusal:
        """Return at most ``count`` entries and winners of the proof, from number ``first`` on; a refusal before the
        draw. Their texts are within `PROOF_PAGE_BYTES`.

        ``committed_offset``, ``closed_offset``: of the events that announced and closed it, in the room's stream.
        """
        config = self._config
        if config is None or self._phase is not LotteryPhase.DRAWN:
            is_over = self._phase is LotteryPhase.VOIDED
            return ActivityRefusal(
                ErrorCode.CLOSED if is_over else ErrorCode.NOT_OPEN,
                "is void: there is no draw" if is_over else "is not drawn yet",
                "",
                0 if is_over else LATER_MS,
            )
        entries, signature = self._entries, self._signature
        weighed, won = entries.page(first, count), entries.winners_from(first, count)
        left = PROOF_PAGE_BYTES
        for index, (id, _) in enumerate(weighed):
            left -= len(id.encode()) + 16
            if index < len(won):
                left -= len(won[index][0].encode()) + 8
            if left < 0:
                weighed, won = weighed[:index], won[:index]
                break
        winners: list[list[str]] = [[] for _ in config.terms.grades]
        for id, grade in won:
            winners[grade].append(id)
        following = first + len(weighed)
        beacon = LotteryBeacon(signature.hex(), beacon_value(signature).hex()) if signature else None
        return LotteryProofPage(
            PROOF_FORMAT,
            config.terms,
            LotteryCommitted(config.commitment, committed_offset, config.announced_at),
            LotteryClosed(self._root.hex(), len(entries), entries.weight, closed_offset, self._closed_at or 0),
            config.seed.hex(),
            beacon,
            tuple(weighed),
            tuple(map(tuple, winners)),
            str(following) if following < len(entries) else None,
        )


def _not_open(rule: str, wait_ms: int) -> ActivityStep[Any]:
    return refused(ErrorCode.NOT_OPEN, rule, "", wait_ms)


def _later(rule: str) -> ActivityRefusal:
    return ActivityRefusal(ErrorCode.OVERLOADED, rule, "", LATER_MS)
