"""The product list of a room: versions, one explained product and the log of it, clicks.

A product has a version that the platform chooses, and so has the arrangement; what is older than the state is refused
as STALE, so that updates end in the newest state in whatever order they arrive. A removed product leaves a tombstone
with its version for as long as the room's stream goes on. An arrangement stands before the positions of the products
themselves, whichever of the two arrives last.

Clicks wait for at most `CLICK_WINDOW_MS`, then they are counted by facts of at most `CLICKS_OF_A_FACT` reports, one a
batch, and their answers follow its commit. Bounds: `MAX_PRODUCTS` listed, `MAX_KNOWN` with tombstones.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, ClassVar, NamedTuple, TypeVar

from broker.core.commerce.activity import (
    Activity,
    ActivityRefusal,
    ActivityStep,
    ErasedUser,
    Fact,
    Requester,
    RoomEvent,
    move_to_pseudonym,
    refused,
)
from protocol.activities.products import (
    MAX_CLICKED,
    MAX_LISTED_PRODUCTS,
    MAX_PRODUCTS,
    Explaining,
    Product,
    ProductClicks,
    ProductListed,
    ProductPosition,
    ProductRemoved,
    ProductRow,
    ProductsArranged,
    ProductsClicked,
    ProductsView,
)
from protocol.codes import ErrorCode
from protocol.frames import pack_body
from protocol.json_values import as_json
from protocol.operations.products import Arrangement, ClicksReported, ExplainingPeriod, ListedProduct, ProductVersion

__all__ = [
    "CLICKS_OF_A_FACT",
    "CLICK_WINDOW_MS",
    "MAX_EXPLAININGS",
    "MAX_KNOWN",
    "REMOVED_CLICKS_MS",
    "ArrangeProductsCommand",
    "ExplainProductCommand",
    "ProductList",
    "PutProductCommand",
    "RemoveProductCommand",
    "ReportClicksCommand",
    "StopExplainingCommand",
]

T = TypeVar("T")

MAX_KNOWN = 10_000
"""Products of one room, removed ones included."""
MAX_EXPLAININGS = 10_000
"""Entries of the log of explained products."""
MAX_REPORTERS = 1_000_000
"""Users whose clicks are counted."""
MAX_WAITING_CLICKS = 100_000
MAX_WAITING_CLICKS_OF_ONE = 8
CLICK_WINDOW_MS = 1000
CLICKS_OF_A_FACT = 256
REMOVED_CLICKS_MS = 60_000
"""How long clicks on a removed product are counted: its card is still on screens."""
MAX_VIEW_BYTES = 5 * 1024
MAX_ARRANGEMENT_BYTES = 16 * 1024
"""Ids of one arrangement."""
_UNDOABLE = 1024
"""Replaced states that `undo` may need: the facts of one batch."""


class PutProductCommand(NamedTuple):
    """List a product, or replace it by a newer version."""

    product: Product


class RemoveProductCommand(NamedTuple):
    """Remove a product from the list. ``version``: above that of the product; a put of up to it stays out."""

    id: str
    version: int


class ArrangeProductsCommand(NamedTuple):
    """Replace the arrangement by a newer version."""

    version: int
    positions: tuple[ProductPosition, ...]


class ExplainProductCommand(NamedTuple):
    """Explain a product. ``request``: the caller's idempotency key, empty = none."""

    id: str
    request: str = ""


class StopExplainingCommand(NamedTuple):
    """Explain no product any more. ``request``: as in `ExplainProductCommand`."""

    request: str = ""


class ReportClicksCommand(NamedTuple):
    """Clicks of one user. ``report``: above those of its earlier reports in the room; others are not counted."""

    id: str
    clicks: int
    report: int


class _Entry(NamedTuple):
    """One known product. ``product``: None = removed at ``removed_at_ms``."""

    version: int
    product: Product | None
    removed_at_ms: int = 0


class _Period(NamedTuple):
    """One entry of the log. ``product``: None = nothing was explained; ``user`` and ``request``: of who asked."""

    product: str | None
    at_ms: int
    user: str
    request: str


class _Click(NamedTuple):
    """A report that waits. Any: the caller's ticket."""

    user: str
    id: str
    clicks: int
    report: int
    ticket: Any


class ProductList(Activity[T]):
    """Ordered list of products, at most one of which is explained."""

    kind: ClassVar[str] = "products"

    def __init__(self, id: str = "") -> None:
        super().__init__(id)
        self._entries: dict[str, _Entry] = {}
        self._listed = 0
        self._arrangement = 0
        self._arranged: dict[str, int] = {}
        self._log: list[_Period] = []
        self._requests: dict[tuple[str, str, bool], int] = {}
        """Numbers of explainings by user and request, and whether one was stopped."""
        self._clicks: dict[str, int] = {}
        self._total_clicks = 0
        self._reports: dict[str, int] = {}
        """Last counted report by user."""
        self._replaced: deque[Any] = deque(maxlen=_UNDOABLE)
        self._waiting: deque[_Click] = deque()
        self._waiting_of: Counter[str] = Counter()
        self._count_at_ms: int | None = None
        self._view: ProductsView | None = None
        self._counter: RoomEvent | None = None

    # ---- state

    @property
    def exists(self) -> bool:
        return bool(self._entries) or self._arrangement > 0

    @property
    def explaining(self) -> Explaining:
        """What is explained now."""
        if not self._log:
            return Explaining(None, 0, 0)
        last = self._log[-1]
        return Explaining(last.product, len(self._log), last.at_ms)

    @property
    def total_clicks(self) -> int:
        """Sum of all counted reports."""
        return self._total_clicks

    def listing(self, after: tuple[int, str] | None, limit: int, *, with_clicks: bool) -> list[ListedProduct]:
        """Return the products behind a position and id, in the order of the list."""
        found = (entry for entry in self._in_order() if after is None or self._place(entry) > after)
        return [
            ListedProduct(
                product,
                self._arranged.get(product.id),
                self._clicks.get(product.id, 0) if with_clicks else None,
            )
            for product, _ in zip(found, range(limit), strict=False)
        ]

    def periods(self, after: int, limit: int) -> tuple[list[ExplainingPeriod], int | None]:
        """Return entries of the log behind the number ``after``, and the number to go on behind; None = the end."""
        log = self._log
        found: list[ExplainingPeriod] = []
        for number in range(after, len(log)):
            product, from_ms, _, _ = log[number]
            if product is None:
                continue
            if len(found) == limit:
                return found, number
            to_ms = log[number + 1].at_ms if number + 1 < len(log) else None
            found.append(ExplainingPeriod(product, from_ms, to_ms))
        return found, None

    def _place(self, product: Product) -> tuple[int, str]:
        return self._arranged.get(product.id, product.position), product.id

    def _in_order(self) -> list[Product]:
        listed = [entry.product for entry in self._entries.values() if entry.product is not None]
        return sorted(listed, key=self._place)

    # ---- commands

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T] | None:
        if isinstance(command, ReportClicksCommand):
            return self._report(command, requester.user, ticket, now_ms)
        if isinstance(command, PutProductCommand):
            return self._put(command.product)
        if isinstance(command, RemoveProductCommand):
            return self._remove(command, requester.user, now_ms)
        if isinstance(command, ArrangeProductsCommand):
            return self._arrange(command)
        if isinstance(command, ExplainProductCommand):
            return self._explain(command.id, command.request, requester.user, now_ms)
        return self._explain(None, command.request, requester.user, now_ms)

    def _put(self, product: Product) -> ActivityStep[T]:
        entry = self._entries.get(product.id)
        if entry is not None:
            if product == entry.product:
                return ActivityStep(answer=ProductVersion(product.id, product.version, listed=True))
            if product.version == entry.version and entry.product is not None:
                return refused(ErrorCode.KEY_REUSED, "has other content", "version")
            if product.version <= entry.version:
                return _stale(entry.version)
        if self._is_full(entry):
            return refused(ErrorCode.OUT_OF_STATE, f"has {MAX_KNOWN} products, removed ones included", "room")
        if self._listed == MAX_PRODUCTS and (entry is None or entry.product is None):
            return refused(ErrorCode.OUT_OF_STATE, f"has {MAX_PRODUCTS} products", "room")
        return ActivityStep(
            (Fact("put", tuple(product)),),
            ProductVersion(product.id, product.version, listed=True),
            event=RoomEvent("products.put", ProductListed(product)),
        )

    def _remove(self, command: RemoveProductCommand, user: str, now_ms: int) -> ActivityStep[T]:
        id, version = command
        answer = ProductVersion(id, version, listed=False)
        entry = self._entries.get(id)
        if entry is not None and version <= entry.version:
            if version == entry.version and entry.product is None:
                return ActivityStep(answer=answer)
            return _stale(entry.version)
        if self._is_full(entry):
            return refused(ErrorCode.OUT_OF_STATE, f"has {MAX_KNOWN} products, removed ones included", "room")
        removed = Fact("removed", (id, version, now_ms))
        if entry is None or entry.product is None:
            return ActivityStep((removed,), answer)
        if self.explaining.product != id:
            return ActivityStep((removed,), answer, event=RoomEvent("products.removed", ProductRemoved(id, version)))
        stopped = Explaining(None, len(self._log) + 1, now_ms)
        return ActivityStep(
            (Fact("explaining", (None, now_ms, user, "")), removed),
            answer,
            event=RoomEvent("products.removed", ProductRemoved(id, version, stopped)),
        )

    def _is_full(self, entry: _Entry | None) -> bool:
        return entry is None and len(self._entries) >= MAX_KNOWN

    def _arrange(self, command: ArrangeProductsCommand) -> ActivityStep[T]:
        version, positions = command
        answer = Arrangement(version)
        arranged = dict(positions)
        if version <= self._arrangement:
            if version < self._arrangement:
                return _stale(self._arrangement)
            if arranged == self._arranged:
                return ActivityStep(answer=answer)
            return refused(ErrorCode.KEY_REUSED, "has other content", "version")
        if len(arranged) < len(positions):
            return refused(ErrorCode.BAD_FIELD, "must name each product once", "positions")
        if sum(len(id.encode()) for id in arranged) > MAX_ARRANGEMENT_BYTES:
            return refused(ErrorCode.BAD_FIELD, f"must have at most {MAX_ARRANGEMENT_BYTES} bytes of ids", "positions")
        return ActivityStep(
            (Fact("arranged", (version, tuple(arranged.items()))),),
            answer,
            event=RoomEvent("products.arranged", ProductsArranged(version, positions)),
        )

    def _explain(self, id: str | None, request: str, user: str, now_ms: int) -> ActivityStep[T]:
        number = self._requests.get((user, request, id is None)) if request else None
        if number is not None:
            first = self._log[number - 1]
            if first.product != id:
                return refused(ErrorCode.KEY_REUSED, "was used before with other content", "key")
            return ActivityStep(answer=Explaining(first.product, number, first.at_ms))
        if id is not None:
            entry = self._entries.get(id)
            if entry is None or entry.product is None:
                return _unknown()
            if len(self._log) >= MAX_EXPLAININGS:
                return refused(ErrorCode.OUT_OF_STATE, f"has explained {MAX_EXPLAININGS} times", "room")
        if self.explaining.product == id:
            return ActivityStep(answer=self.explaining)
        explaining = Explaining(id, len(self._log) + 1, now_ms)
        return ActivityStep(
            (Fact("explaining", (id, now_ms, user, request)),),
            explaining,
            event=RoomEvent("products.explaining", explaining),
        )

    # ---- clicks

    def _report(self, command: ReportClicksCommand, user: str, ticket: T, now_ms: int) -> ActivityStep[T] | None:
        id, clicks, report = command
        entry = self._entries.get(id)
        if entry is None or (entry.product is None and now_ms >= entry.removed_at_ms + REMOVED_CLICKS_MS):
            return _unknown()
        waiting = self._waiting_of[user]
        last = self._reports.get(user)
        if last is not None and report <= last and not waiting:
            return ActivityStep(answer=ClicksReported(last, counted=False))
        if last is None and not waiting and len(self._reports) >= MAX_REPORTERS:
            return refused(ErrorCode.OUT_OF_STATE, f"has clicks of {MAX_REPORTERS} users", "room")
        if waiting >= MAX_WAITING_CLICKS_OF_ONE or len(self._waiting) >= MAX_WAITING_CLICKS:
            return ActivityStep(
                answer=ActivityRefusal(ErrorCode.OVERLOADED, "too many reports wait", "", CLICK_WINDOW_MS)
            )
        self._waiting.append(_Click(user, id, clicks, report, ticket))
        self._waiting_of[user] += 1
        if self._count_at_ms is None:
            self._count_at_ms = now_ms + CLICK_WINDOW_MS
        return None

    def _count_clicks(self) -> ActivityStep[T]:
        """Return the first reports that wait as one fact, with their answers."""
        last: dict[str, int] = {}
        sums: Counter[str] = Counter()
        reports: list[tuple[str, int, int]] = []
        answers: list[tuple[T, Any]] = []
        while self._waiting and len(answers) < CLICKS_OF_A_FACT:
            user, id, clicks, report, ticket = self._waiting.popleft()
            self._waiting_of[user] -= 1
            if not self._waiting_of[user]:
                del self._waiting_of[user]
            before = last.setdefault(user, self._reports.get(user, -1))
            is_counted = report > before
            if is_counted:
                last[user] = report
                sums[id] += clicks
                reports.append((user, report, before))
            answers.append((ticket, ClicksReported(last[user], is_counted)))
        if not self._waiting:
            self._count_at_ms = None
        facts = (Fact("clicked", (tuple(sums.items()), tuple(reports))),) if reports else ()
        return ActivityStep(facts, answers=tuple(answers), weight=len(answers))

    def next_due(self) -> int | None:
        return self._count_at_ms

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        if self._count_at_ms is None or now_ms < self._count_at_ms:
            return None
        return self._count_clicks()

    def ended(self, now_ms: int) -> ActivityStep[T] | None:
        """End the explaining; reports that wait are refused."""
        gone = ActivityRefusal(ErrorCode.ROOM_ENDED, "has ended", "room")
        answers = tuple((each.ticket, gone) for each in self._waiting)
        self._waiting.clear()
        self._waiting_of.clear()
        self._count_at_ms = None
        is_explaining = self.explaining.product is not None
        facts = (Fact("explaining", (None, now_ms, "", "")),) if is_explaining else ()
        return ActivityStep(facts, answers=answers)

    # ---- facts

    def apply(self, fact: Fact) -> None:
        self._view = self._counter = None
        data = fact.data
        if fact.name == "put":
            self._replace_entry(data[0], _Entry(data[1], Product(*data)))
        elif fact.name == "removed":
            self._replace_entry(data[0], _Entry(data[1], None, data[2]))
        elif fact.name == "arranged":
            self._replaced.append((self._arrangement, self._arranged))
            self._arrangement, self._arranged = data[0], dict(data[1])
        elif fact.name == "explaining":
            period = _Period(*data)
            self._log.append(period)
            if period.request:
                self._requests[period.user, period.request, period.product is None] = len(self._log)
        else:
            for id, count in data[0]:
                self._clicks[id] = self._clicks.get(id, 0) + count
                self._total_clicks += count
            for user, report, _ in data[1]:
                self._reports[user] = report

    def undo(self, fact: Fact) -> None:
        self._view = self._counter = None
        data = fact.data
        if fact.name in ("put", "removed"):
            before: _Entry | None = self._replaced.pop()
            self._listed += _is_listed(before) - _is_listed(self._entries[data[0]])
            if before is None:
                del self._entries[data[0]]
            else:
                self._entries[data[0]] = before
        elif fact.name == "arranged":
            self._arrangement, self._arranged = self._replaced.pop()
        elif fact.name == "explaining":
            period = self._log.pop()
            self._requests.pop((period.user, period.request, period.product is None), None)
        else:
            for id, count in data[0]:
                self._clicks[id] -= count
                self._total_clicks -= count
                if not self._clicks[id]:
                    del self._clicks[id]
            for user, _, last in reversed(data[1]):
                if last < 0:
                    del self._reports[user]
                else:
                    self._reports[user] = last

    def _replace_entry(self, id: str, entry: _Entry) -> None:
        before = self._entries.get(id)
        self._replaced.append(before)
        self._listed += _is_listed(entry) - _is_listed(before)
        self._entries[id] = entry

    def without(self, fact: Fact, erased: ErasedUser) -> Fact:
        data = fact.data
        if fact.name == "explaining" and data[2] == erased.user:
            return Fact(fact.name, (*data[:2], erased.pseudonym, ""))
        if fact.name == "clicked":
            reports = tuple((erased.renamed(user), *report) for user, *report in data[1])
            return Fact(fact.name, (data[0], reports))
        return fact

    def erase(self, erased: ErasedUser) -> None:
        """Give what a user has explained and clicked to its pseudonym; the keys of its requests go."""
        for place, period in enumerate(self._log):
            if period.user == erased.user:
                self._log[place] = period._replace(user=erased.pseudonym, request="")
        self._requests = {key: number for key, number in self._requests.items() if key[0] != erased.user}
        move_to_pseudonym(self._reports, erased)
        if self._waiting_of.pop(erased.user, 0):
            for place, click in enumerate(self._waiting):
                if click.user == erased.user:
                    self._waiting[place] = click._replace(user=erased.pseudonym)
                    self._waiting_of[erased.pseudonym] += 1

    def dump(self) -> tuple[Any, ...]:
        return (
            tuple(sorted(self._entries.items())),
            self._listed,
            self._arrangement,
            tuple(sorted(self._arranged.items())),
            tuple(self._log),
            tuple(sorted(self._requests.items())),
            tuple(sorted(self._clicks.items())),
            self._total_clicks,
            tuple(sorted(self._reports.items())),
        )

    # ---- what members see

    def view(self, is_staff: bool) -> ProductsView:
        if self._view is None:
            self._view = self._make_view()
        return self._view

    def _make_view(self) -> ProductsView:
        listed = self._in_order()
        explaining = self.explaining
        card = None if explaining.product is None else self._entries[explaining.product].product
        view = ProductsView(explaining, card, (), self._arrangement, more=True)
        left = MAX_VIEW_BYTES - _bytes_of(view)
        rows: list[ProductRow] = []
        for product in listed[:MAX_LISTED_PRODUCTS]:
            id, version, title, price_cents, position = product[:5]
            row = ProductRow(id, version, title, price_cents, position, self._arranged.get(id))
            left -= _bytes_of(row)
            if left < 0:
                break
            rows.append(row)
        return view._replace(products=tuple(rows), more=len(rows) < len(listed))

    def counter(self) -> RoomEvent | None:
        if self._counter is None and self._total_clicks:
            most = sorted(self._clicks.items(), key=lambda item: (-item[1], item[0]))[:MAX_CLICKED]
            clicks = tuple(ProductClicks(id, count) for id, count in most)
            self._counter = RoomEvent("products.clicked", ProductsClicked(self._total_clicks, clicks))
        return self._counter


def _bytes_of(record: Any) -> int:
    return len(pack_body(as_json(record)))


def _is_listed(entry: _Entry | None) -> bool:
    return entry is not None and entry.product is not None


def _stale(version: int) -> ActivityStep[Any]:
    return refused(ErrorCode.STALE, f"is older than the version {version}", "version")


def _unknown() -> ActivityStep[Any]:
    return refused(ErrorCode.UNKNOWN_ACTIVITY, "names no product of the room", "id")
