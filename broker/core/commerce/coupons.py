"""Pools of coupon codes: each code is issued once, and a user gets one of a pool, the same however often it asks.

Derived codes follow from a secret key of the pool, in the order in which they are issued; uploaded ones are issued in
the order of their upload. A fact holds the code, so that a fold derives nothing. Memory: about 400 bytes for each code
that is uploaded or issued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    move_to_pseudonym,
    refused,
)
from broker.core.commerce.coupon_codes import derived_code, read_code, shown_code
from broker.core.commerce.eligibility import eligibility_of_fact, ineligible
from protocol.activities.coupons import (
    CouponExhaustedData,
    CouponIssued,
    CouponIssuedData,
    OwnCoupon,
    PoolClosed,
    PoolExhausted,
    PoolOpened,
    PoolRefilled,
    PoolState,
    PoolView,
)
from protocol.activities.eligibility import Eligibility
from protocol.codes import ErrorCode
from protocol.direct_batches import fields_of, fill
from protocol.operations.coupons import (
    CheckCoupon,
    CheckedCoupon,
    ClaimCoupon,
    ClosedPool,
    ClosePool,
    CouponCode,
    CouponKind,
    CreatedPool,
    CreatePool,
    IssueCoupon,
    IssueCoupons,
    IssuedCoupons,
    MyCoupon,
    MyCouponCode,
    UploadedCodes,
    UserCoupon,
)
from protocol.primitives import digest, pack_text

__all__ = ["CouponPool", "Upload"]

T = TypeVar("T")

CODES_PER_FACT = 4
"""An upload of 1,000 codes is 251 facts, so that a batch takes two uploads at most: its body is bounded."""


class Upload(NamedTuple):
    """Add codes. ``request``: the caller's key; the same one with the same codes adds nothing more."""

    request: str
    codes: tuple[str, ...]


class _Issued(NamedTuple):
    user: str
    code: str
    at_ms: int


class CouponPool(Activity[T]):
    """One pool. Commands: `Upload` and the requests of `protocol.operations.coupons` but that of an upload.

    ``rng``: returns 32 bytes, the key of the codes.
    """

    kind = "coupons"

    def __init__(self, id: str, rng: Callable[[], bytes]) -> None:
        super().__init__(id)
        self._rng = rng
        self._config: CreatePool | None = None
        self._key = b""
        self._states: list[tuple[PoolState, int]] = []
        """States and since when, the present one last."""
        self._issued: list[_Issued] = []
        """By number of the code."""
        self._numbers: dict[str, int] = {}
        """Numbers of the codes by user."""
        self._codes: dict[str, int] = {}
        """Numbers by code, as it is shown: of all that are uploaded, or that have been derived."""
        self._uploaded: list[str] = []
        self._uploads: dict[str, tuple[bytes, int]] = {}
        """By request: digest of the codes, and how many were uploaded then."""
        self._is_exhausted = False

    @property
    def exists(self) -> bool:
        """Whether it has been created."""
        return self._config is not None

    @property
    def state(self) -> PoolState:
        """Its state."""
        return self._states[-1][0]

    @property
    def config(self) -> CreatePool:
        """What it was created with; the room is empty."""
        if self._config is None:
            raise ValueError("the pool does not exist")
        return self._config

    @property
    def issued(self) -> int:
        """How many codes are issued."""
        return len(self._issued)

    @property
    def left(self) -> int:
        """How many codes can be issued."""
        is_derived = self.config.kind is CouponKind.DERIVED
        return (self.config.count if is_derived else len(self._uploaded)) - len(self._issued)

    # ---- commands

    # Any: as in `Activity`.
    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T]:
        """Judge a command."""
        if isinstance(command, CreatePool):
            return self._create(command, now_ms)
        if self._config is None:
            return refused(ErrorCode.UNKNOWN_ACTIVITY, "names no pool of the room", "id")
        if isinstance(command, ClaimCoupon):
            return self._claim(command, requester, now_ms)
        if isinstance(command, IssueCoupon):
            return self._issue(command.user, now_ms)
        if isinstance(command, IssueCoupons):
            return self._issue_many(command.users, now_ms)
        if isinstance(command, Upload):
            return self._upload(command, now_ms)
        if isinstance(command, ClosePool):
            answer = ClosedPool(self.issued, self.left)
            return self._close("closed", now_ms)._replace(answer=answer)
        if isinstance(command, CheckCoupon):
            return ActivityStep(answer=self._check(command.code, now_ms))
        assert isinstance(command, MyCoupon), command
        return ActivityStep(answer=MyCouponCode(self._own(requester.user, now_ms)))

    def _create(self, command: CreatePool, now_ms: int) -> ActivityStep[T]:
        if self._config is not None:
            if command._replace(room="") == self._config:
                return ActivityStep(answer=CreatedPool(self.id))
            return refused(ErrorCode.KEY_REUSED, "was created with other content", "id")
        if command.expire_at_ms and command.expire_at_ms <= now_ms:
            return refused(ErrorCode.BAD_FIELD, "must be later than now", "expire_at_ms")
        if fields_of(command.template) - {"code"} or command.template.count("{code}") > 1:
            return refused(ErrorCode.BAD_FIELD, "must have {code} once at most, and no other field", "template")
        key = self._rng() if command.kind is CouponKind.DERIVED else b""
        content = (*command[2:-1], tuple(command.eligibility))
        opened = PoolOpened(command.title, command.expire_at_ms, command.eligibility)
        return ActivityStep(
            (Fact("created", (now_ms, key, content)),),
            CreatedPool(self.id),
            event=RoomEvent("coupons.opened", opened) if command.claims else None,
        )

    def _is_over(self, now_ms: int) -> bool:
        expire_at_ms = self.config.expire_at_ms
        return self.state is not PoolState.OPEN or bool(expire_at_ms and now_ms >= expire_at_ms)

    def _own(self, user: str, now_ms: int) -> CouponCode | None:
        number = self._numbers.get(user)
        if number is None:
            return None
        return CouponCode(self._issued[number].code, self.config.expire_at_ms, self._is_over(now_ms))

    def _claim(self, command: ClaimCoupon, requester: Requester, now_ms: int) -> ActivityStep[T]:
        if requester.user not in self._numbers and not self._is_over(now_ms):
            if not self.config.claims:
                return refused(ErrorCode.NOT_ALLOWED, "is issued by the platform alone", "id")
            refusal = ineligible(self.config.eligibility, requester, command.keyword)
            if refusal is not None:
                return ActivityStep(answer=refusal)
        return self._issue(requester.user, now_ms)

    def _issue(self, user: str, now_ms: int) -> ActivityStep[T]:
        own = self._own(user, now_ms)
        if own is not None:
            return ActivityStep(answer=own)
        if self._is_over(now_ms):
            return refused(ErrorCode.CLOSED, "issues no more codes", "id")
        if not self.left:
            refusal = ActivityRefusal(ErrorCode.EXHAUSTED, "has no code left", "id")
            return self._exhaust(now_ms)._replace(answer=refusal)
        step = self._issue_codes([user], now_ms)
        return step._replace(answer=CouponCode(step.facts[0].data[2], self.config.expire_at_ms))

    def _issue_many(self, users: Sequence[str], now_ms: int) -> ActivityStep[T]:
        wanted = tuple(dict.fromkeys(users))
        fresh = [user for user in wanted if user not in self._numbers]
        if fresh and self._is_over(now_ms):
            return refused(ErrorCode.CLOSED, "issues no more codes", "id")
        left_out = fresh[self.left :]
        step = self._issue_codes(fresh[: self.left], now_ms)
        codes = {fact.data[1]: fact.data[2] for fact in step.facts}
        codes |= {user: self._issued[self._numbers[user]].code for user in wanted if user in self._numbers}
        items = tuple(UserCoupon(user, codes[user]) for user in wanted if user in codes)
        step = step._replace(answer=IssuedCoupons(items, tuple(left_out)))
        if not left_out:
            return step
        exhausted = self._exhaust(now_ms, self.issued + len(step.facts))
        return step._replace(
            facts=step.facts + exhausted.facts, event=exhausted.event, reports=step.reports + exhausted.reports
        )

    def _issue_codes(self, users: Sequence[str], now_ms: int) -> ActivityStep[T]:
        """Issue one code to each user, none of whom has one; there are enough."""
        facts: list[Fact] = []
        messages: list[UserMessage] = []
        reports: list[ActivityReport] = []
        made: set[str] = set()
        for number, user in enumerate(users, len(self._issued)):
            code = self._code(number, made)
            made.add(code)
            facts.append(Fact("issued", (number, user, code, now_ms)))
            text = fill(self.config.template, {"code": code})
            messages.append(UserMessage(user, "coupons.issued", CouponIssued(code, text, self.config.expire_at_ms)))
            reports.append(ActivityReport("coupon.issued", CouponIssuedData(self.id, number, user, code)))
        return ActivityStep(tuple(facts), messages=tuple(messages), reports=tuple(reports))

    def _code(self, number: int, made: set[str]) -> str:
        """Return code ``number``, as it is shown. ``made``: codes that are not issued yet and have smaller numbers."""
        config = self.config
        if config.kind is CouponKind.UPLOADED:
            return self._uploaded[number]
        attempt = 0
        while True:
            code = shown_code(config.prefix, derived_code(self._key, self.id, number, attempt, config.length))
            if code not in self._codes and code not in made:
                return code
            attempt += 1

    def _exhaust(self, now_ms: int, issued: int | None = None) -> ActivityStep[T]:
        """Report, once, that no code is left. ``issued``: how many are issued, None = those that the state has."""
        if self._is_exhausted:
            return ActivityStep()
        issued = self.issued if issued is None else issued
        return ActivityStep(
            (Fact("exhausted", (now_ms,)),),
            event=RoomEvent("coupons.exhausted", PoolExhausted(issued)) if self.config.claims else None,
            reports=(ActivityReport("coupon.exhausted", CouponExhaustedData(self.id, issued)),),
        )

    def _upload(self, command: Upload, now_ms: int) -> ActivityStep[T]:
        if self.config.kind is not CouponKind.UPLOADED:
            return refused(ErrorCode.BAD_FIELD, "makes its codes itself", "id")
        fingerprint = digest(b"".join(map(pack_text, command.codes)))
        known = self._uploads.get(command.request)
        if known is not None:
            if known[0] != fingerprint:
                return refused(ErrorCode.KEY_REUSED, "was used before with other codes", "key")
            return ActivityStep(answer=UploadedCodes(known[1]))
        if self._is_over(now_ms):
            return refused(ErrorCode.CLOSED, "takes no more codes", "id")
        seen: set[str] = set()
        for place, code in enumerate(command.codes):
            if code in seen or code in self._codes:
                return refused(ErrorCode.BAD_FIELD, "must not be in the pool twice", f"codes[{place}]")
            seen.add(code)
        uploaded = len(self._uploaded) + len(command.codes)
        if uploaded > self.config.count:
            return refused(ErrorCode.BAD_FIELD, f"must have at most {self.config.count} codes in all", "codes")
        facts = [Fact("uploaded", (command.request, fingerprint, uploaded))]
        facts += [
            Fact("codes", command.codes[start : start + CODES_PER_FACT])
            for start in range(0, len(command.codes), CODES_PER_FACT)
        ]
        event = None
        if self._is_exhausted and command.codes:
            facts.append(Fact("refilled", (now_ms,)))
            if self.config.claims:
                event = RoomEvent("coupons.refilled", PoolRefilled(uploaded - self.issued))
        return ActivityStep(tuple(facts), UploadedCodes(uploaded), event=event)

    def _check(self, typed: str, now_ms: int) -> CheckedCoupon | ActivityRefusal:
        config = self.config
        shown = typed.strip()
        if config.kind is CouponKind.DERIVED:
            code = read_code(typed, config.prefix, config.length)
            shown = "" if code is None else shown_code(config.prefix, code)
        number = self._codes.get(shown)
        if number is None:
            return ActivityRefusal(ErrorCode.BAD_CODE, "is no code of this pool", "code")
        if number >= self.issued:
            return CheckedCoupon(shown, None, 0, self._is_over(now_ms))
        found = self._issued[number]
        return CheckedCoupon(shown, found.user, found.at_ms, self._is_over(now_ms))

    def _close(self, fact: str, now_ms: int) -> ActivityStep[T]:
        if self.state is not PoolState.OPEN:
            return ActivityStep()
        event = RoomEvent("coupons.closed", PoolClosed(fact == "expired")) if self.config.claims else None
        return ActivityStep((Fact(fact, (now_ms,)),), event=event)

    # ---- time

    def next_due(self) -> int | None:
        """Return when it expires."""
        if self._config is None or self.state is not PoolState.OPEN:
            return None
        return self._config.expire_at_ms or None

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        """End it when its time is over."""
        due_ms = self.next_due()
        return None if due_ms is None or now_ms < due_ms else self._close("expired", now_ms)

    @property
    def removable_at(self) -> int | None:
        """When it has expired or was closed."""
        return self._states[-1][1] if self._states and self.state is not PoolState.OPEN else None

    # ---- state

    def apply(self, fact: Fact) -> None:
        """Change the state by a fact."""
        if fact.name == "created":
            at_ms, self._key, content = fact.data
            config = CreatePool._make(("", self.id, *content[:-1], eligibility_of_fact(content[-1])))
            self._config = config._replace(kind=CouponKind(config.kind))
            self._states.append((PoolState.OPEN, at_ms))
        elif fact.name == "issued":
            number, user, code, at_ms = fact.data
            self._issued.append(_Issued(user, code, at_ms))
            self._numbers[user] = number
            self._codes[code] = number
        elif fact.name == "uploaded":
            request, fingerprint, uploaded = fact.data
            self._uploads[request] = fingerprint, uploaded
        elif fact.name == "codes":
            for code in fact.data:
                self._codes[code] = len(self._uploaded)
                self._uploaded.append(code)
        elif fact.name in _STATE_AFTER:
            self._states.append((_STATE_AFTER[fact.name], fact.data[0]))
        else:
            self._is_exhausted = fact.name == "exhausted"

    def undo(self, fact: Fact) -> None:
        """Take back the newest fact."""
        if fact.name == "created":
            self._config = None
            self._states.pop()
        elif fact.name == "issued":
            user, code, _ = self._issued.pop()
            del self._numbers[user]
            if self.config.kind is CouponKind.DERIVED:
                del self._codes[code]
        elif fact.name == "uploaded":
            del self._uploads[fact.data[0]]
        elif fact.name == "codes":
            for code in fact.data:
                del self._codes[code]
                self._uploaded.pop()
        elif fact.name in _STATE_AFTER:
            self._states.pop()
        else:
            self._is_exhausted = fact.name != "exhausted"

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        """Return a fact without a user: only that of an issued code names one."""
        if fact.name != "issued" or fact.data[1] != erased.user:
            return fact
        number, _, *code = fact.data
        return Fact(fact.name, (number, erased.pseudonym, *code))

    def erase(self, erased: ErasedUser) -> None:
        """Give the code of a user to its pseudonym."""
        number = self._numbers.get(erased.user)
        if number is not None:
            self._issued[number] = self._issued[number]._replace(user=erased.pseudonym)
            move_to_pseudonym(self._numbers, erased)

    def dump(self) -> tuple[Any, ...]:
        """Return the state."""
        if self._config is None:
            return ()
        return (
            self._config, self._key, tuple(self._states), tuple(self._issued), tuple(sorted(self._numbers.items())),
            tuple(sorted(self._codes.items())), tuple(self._uploaded), tuple(sorted(self._uploads.items())),
            self._is_exhausted,
        )  # fmt: skip

    # ---- what members see

    @property
    def amounts(self) -> Mapping[str, int]:
        return {"issued": self.issued, "left": self.left if self.state is PoolState.OPEN else 0}

    def view(self, is_staff: bool) -> PoolView | None:
        """Return the pool while users can claim its codes."""
        if self._config is None or self.state is not PoolState.OPEN or not self._config.claims:
            return None
        config = self._config
        conditions = None if config.eligibility == Eligibility() else config.eligibility
        return PoolView(config.title, self._is_exhausted, config.expire_at_ms, conditions)

    def own_view(self, user: str) -> OwnCoupon | None:
        """Return the user's code."""
        number = self._numbers.get(user)
        return None if number is None else OwnCoupon(self._issued[number].code, self.state is not PoolState.OPEN)


_STATE_AFTER = {"expired": PoolState.EXPIRED, "closed": PoolState.CLOSED}
