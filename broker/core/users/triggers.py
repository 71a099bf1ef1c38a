"""Rules of triggered marketing: what the platform reports of a user starts an offer, now or later. Pure: no I/O.

An offer that waits is one of a user, a rule and a subject, a product for example; a later report takes its place. What
``cancelled_by`` of the rule names ends it before it is sent. Whether it is sent is not decided here: the ledger knows
preferences, caps and quiet hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["MAX_RULES", "MAX_WAITING", "MAX_WAITING_OF_USER", "OfferId", "ReportDecision", "TriggerTable", "UserOffer"]

MAX_RULES = 200
"""Rules of one tenant."""
MAX_WAITING = 200_000
"""Offers of all users that wait; some 500 B each."""
MAX_WAITING_OF_USER = 20


class Rule(Protocol):
    """What is asked of a rule."""

    @property
    def id(self) -> str: ...
    @property
    def trigger(self) -> str: ...
    @property
    def cancelled_by(self) -> str: ...
    @property
    def delay_s(self) -> int: ...


R = TypeVar("R", bound=Rule)


class OfferId(NamedTuple):
    """Whose offer it is (qualified id), of which rule, and about what."""

    user: str
    rule: str
    subject: str


class UserOffer(NamedTuple):
    """An offer. ``due_ms``: when it is to be sent; ``conversation``: plain id of where it is shown, "" = anywhere;
    ``values``: of the fields of the rule's texts."""

    id: OfferId
    due_ms: int
    conversation: str
    values: Mapping[str, str]


class ReportDecision(NamedTuple, Generic[R]):
    """What a report brings about. ``now``: rules whose offer is sent at once; ``later``: offers that wait from now on;
    ``cancelled``: offers that wait no more; ``refused``: offers for which there is no room."""

    now: tuple[R, ...]
    later: tuple[UserOffer, ...]
    cancelled: tuple[OfferId, ...]
    refused: int


class TriggerTable(Generic[R]):
    """Rules by tenant and id, and the offers that wait."""

    def __init__(self, max_waiting: int = MAX_WAITING, max_of_user: int = MAX_WAITING_OF_USER) -> None:
        self._max_waiting = max_waiting
        self._max_of_user = max_of_user
        self._rules: dict[str, dict[str, R]] = {}
        self._waiting: dict[str, dict[OfferId, UserOffer]] = {}
        """By user."""
        self._due: list[tuple[int, OfferId]] = []
        """Heap; one whose time is not that of the offer (any more) is passed over."""
        self._count = 0

    def __len__(self) -> int:
        """Return how many offers wait."""
        return self._count

    def rules(self, tenant: str) -> list[R]:
        """Return the rules of a tenant, by id."""
        return [rule for _, rule in sorted(self._rules.get(tenant, {}).items())]

    def rule(self, tenant: str, id: str) -> R | None:
        """Return a rule."""
        return self._rules.get(tenant, {}).get(id)

    def has_room(self, tenant: str, id: str) -> bool:
        """Return whether a rule of this id may be put."""
        rules = self._rules.get(tenant, {})
        return id in rules or len(rules) < MAX_RULES

    def put(self, tenant: str, rule: R) -> None:
        """Add a rule, or replace the one of its id; offers that wait are sent with the texts of the new one."""
        self._rules.setdefault(tenant, {})[rule.id] = rule

    def remove(self, tenant: str, id: str) -> bool:
        """Remove a rule; its offers that wait are not sent. Returns whether there was one."""
        return self._rules.get(tenant, {}).pop(id, None) is not None

    def decide(
        self, tenant: str, user: str, trigger: str, subject: str, conversation: str, values: Mapping[str, str],
        now_ms: int,
    ) -> ReportDecision[R]:  # fmt: skip
        """Return what a report of a user (qualified id) brings about; nothing is changed. ``subject`` "" ends offers
        about anything."""
        own = self._waiting.get(user, {})
        rules = self._rules.get(tenant, {})
        cancelled = tuple(
            id for id in own
            if (rule := rules.get(id.rule)) is not None and rule.cancelled_by == trigger
            and (not subject or id.subject == subject)
        )  # fmt: skip
        started = [rule for _, rule in sorted(rules.items()) if rule.trigger == trigger]
        later: list[UserOffer] = []
        refused = 0
        free = min(self._max_of_user - len(own), self._max_waiting - self._count) + len(cancelled)
        for rule in started:
            id = OfferId(user, rule.id, subject)
            if not rule.delay_s:
                continue
            is_new = id not in own or id in cancelled
            if is_new and free <= 0:
                refused += 1
                continue
            free -= is_new
            later.append(UserOffer(id, now_ms + rule.delay_s * 1000, conversation, dict(values)))
        return ReportDecision(tuple(rule for rule in started if not rule.delay_s), tuple(later), cancelled, refused)

    def wait(self, offer: UserOffer) -> None:
        """Let an offer wait, in place of the one of its id."""
        own = self._waiting.setdefault(offer.id.user, {})
        self._count += offer.id not in own
        own[offer.id] = offer
        heappush(self._due, (offer.due_ms, offer.id))

    def drop(self, id: OfferId) -> None:
        """Let an offer wait no more; nothing happens where it does not."""
        own = self._waiting.get(id.user, {})
        self._count -= own.pop(id, None) is not None
        if not own:
            self._waiting.pop(id.user, None)

    def take_due(self, now_ms: int) -> UserOffer | None:
        """Return the next offer whose time has come, each once; it waits until `drop`, or for a new time."""
        while self._due and self._due[0][0] <= now_ms:
            due_ms, id = heappop(self._due)
            offer = self._waiting.get(id.user, {}).get(id)
            if offer is not None and offer.due_ms == due_ms:
                return offer
        return None

    def forget(self, user: str) -> None:
        """Forget a user (qualified id) who is erased."""
        self._count -= len(self._waiting.pop(user, {}))
