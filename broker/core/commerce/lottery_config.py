"""What a lottery fixes at its creation, and all that follows from it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

from broker.core.commerce.activity import ActivityRefusal, Requester
from broker.core.commerce.eligibility import eligibility_of_fact
from protocol.activities.eligibility import Eligibility
from protocol.activities.lotteries import MAX_SHOWN_WINNERS, LotteryBonuses, LotteryDrawn
from protocol.codes import ErrorCode
from protocol.lottery.drand import DrandChain, beacon_value
from protocol.lottery.terms import LotteryGrade, LotteryTerms, blind_id, commitment, draw_key
from protocol.primitives import label, mac

__all__ = ["LotteryConfig", "NewLottery", "fold_keyword"]

MIN_BEACON_MS, MAX_BEACON_MS = 10_000, 3_600_000
"""The round of a beacon is so long after the close: time for the root to become public, and an end in sight."""
MAX_VALUE_WAIT_MS = 3_600_000
"""How long after its round the value of a beacon may be handed in."""
MAX_GRADES_BYTES = 512
"""Of the grades in a `LotteryView`."""


class NewLottery(NamedTuple):
    """Announce a lottery. ``is_blind``: ids of entries do not say whose they are."""

    terms: LotteryTerms
    is_blind: bool = True
    max_entries: int = 200_000
    eligibility: Eligibility = Eligibility()
    bonuses: LotteryBonuses = LotteryBonuses()

    def refusal(
        self, id: str, requester: Requester, chains: Mapping[str, DrandChain], now_ms: int
    ) -> ActivityRefusal | None:
        """Return why the lottery ``id`` cannot be announced now."""
        terms = self.terms
        if (self.eligibility.gift_cents or self.bonuses.gift) and not requester.is_platform:
            return ActivityRefusal(ErrorCode.NOT_ALLOWED, "gifts count in it: only the platform may create it")
        if terms.lottery_id != id:
            return _bad("must be the id of the lottery", "lottery_id")
        if not terms.grades:
            return _bad("must have a grade", "grades")
        if len({grade.name for grade in terms.grades}) < len(terms.grades):
            return _bad("must have different names", "grades")
        if terms.open_at_ms < now_ms:
            return _bad("must not be over: it is announced before it opens", "open_at_ms")
        if terms.close_at_ms <= terms.open_at_ms:
            return _bad("must be after open_at_ms", "close_at_ms")
        if self.eligibility.keyword and not fold_keyword(self.eligibility.keyword):
            return _bad("must have a character that can be seen", "eligibility.keyword")
        if not terms.are_consistent:
            return _bad("must have a round if it has a chain, and none if it has none", "beacon_round")
        chain = chains.get(terms.beacon_chain)
        if chain is not None:
            after_close = chain.time_ms(terms.beacon_round) - terms.close_at_ms
            if not MIN_BEACON_MS <= after_close <= MAX_BEACON_MS:
                return _bad("must be the number of a round 10 s to 1 h after close_at_ms", "beacon_round")
        return None


class LotteryConfig(NamedTuple):
    """A lottery that is announced. ``random``: 32 bytes; making the seed of the draw, which follows from them, public
    says nothing of the key of blind ids, which does too. ``announced_at``: Unix ms."""

    announced_at: int
    random: bytes
    new: NewLottery
    seed: bytes
    blind_key: bytes
    commitment: str
    keyword: str
    """As `fold_keyword` returns it."""
    round_ms: int | None
    """When the value of the beacon becomes public; None: there is none, or its chain is unknown."""

    @classmethod
    def from_fact(cls, data: tuple[Any, ...], chains: Mapping[str, DrandChain]) -> LotteryConfig:
        """Return what the data of a first fact say: plain tuples, as the ledger has unpacked them."""
        announced_at, random, terms, is_blind, max_entries, eligibility, bonuses = data
        terms = LotteryTerms(*terms)
        terms = terms._replace(grades=tuple(LotteryGrade(*grade) for grade in terms.grades))
        conditions = eligibility_of_fact(eligibility)
        new = NewLottery(terms, is_blind, max_entries, conditions, LotteryBonuses(*bonuses))
        seed = mac(random, label("roomcast/lottery/seed/1"))
        chain = chains.get(terms.beacon_chain)
        return cls(
            announced_at, random, new, seed, mac(random, label("roomcast/lottery/blind/1")),
            commitment(seed, terms).hex(), fold_keyword(conditions.keyword),
            None if chain is None else chain.time_ms(terms.beacon_round),
        )  # fmt: skip

    def as_fact(self) -> tuple[Any, ...]:
        """Return the data of the first fact."""
        return (self.announced_at, self.random, *self.new)

    @property
    def terms(self) -> LotteryTerms:
        return self.new.terms

    @property
    def latest_value_at(self) -> int:
        """Until when the value of the beacon may be handed in."""
        latest = self.round_ms if self.round_ms is not None else self.terms.close_at_ms + MAX_BEACON_MS
        return latest + MAX_VALUE_WAIT_MS

    @property
    def counts(self) -> list[int]:
        """Prizes by grade."""
        return [grade.count for grade in self.terms.grades]

    def entry_id(self, user: str) -> tuple[str, str]:
        """Return the id of a user's entry, and the salt that shows whose it is."""
        if not self.new.is_blind:
            return user, ""
        salt, id = blind_id(self.blind_key, self.terms.lottery_id, user)
        return id, salt

    def weight(self, requester: Requester) -> int:
        """Return what an entry of a user weighs now."""
        bonuses, attributes = self.new.bonuses, requester.attributes
        weight = 1 + bonuses.follow * attributes.follows
        weight += bonuses.watch * (attributes.watch_s // bonuses.watch_every_s)
        weight += bonuses.gift * (attributes.gift_cents // bonuses.gift_every_cents)
        return min(weight, self.terms.max_weight)

    def draw_key(self, root: bytes, entries: int, weight: int, signature: bytes) -> bytes:
        """Return what the winners follow from. ``signature``: of the beacon's round, empty without one."""
        value = beacon_value(signature) if signature else b""
        return draw_key(self.seed, self.terms, root, entries, weight, value)

    def drawn(self, signature: bytes, winners: tuple[tuple[str, ...], ...], at_ms: int) -> LotteryDrawn:
        """Return what the public hears of the draw."""
        shown: list[tuple[str, ...]] = []
        left = MAX_SHOWN_WINNERS
        for ids in winners:
            shown.append(ids[:left])
            left -= len(shown[-1])
        value = beacon_value(signature).hex() if signature else ""
        return LotteryDrawn(self.seed.hex(), signature.hex(), value, tuple(shown), sum(map(len, winners)), at_ms)

    def first_grades(self) -> tuple[LotteryGrade, ...]:
        """Return as many grades as may stand in a view."""
        left = MAX_GRADES_BYTES
        for number, grade in enumerate(self.terms.grades):
            left -= len(grade.name.encode()) + 24
            if left < 0:
                return self.terms.grades[:number]
        return self.terms.grades


def fold_keyword(text: str) -> str:
    """Return the form in which a message and a keyword are compared."""
    return unicodedata.normalize("NFKC", text).strip().casefold()


def _bad(rule: str, field: str) -> ActivityRefusal:
    return ActivityRefusal(ErrorCode.BAD_FIELD, rule, field)
