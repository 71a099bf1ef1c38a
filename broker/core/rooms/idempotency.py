"""Idempotency in memory: a repeated operation is answered with the result of the first time.

A key names one operation and carries a fingerprint of its content. The same key with other content is another
operation under a known name: it is refused (KEY_REUSED), and nothing changes.

A key is *open* from the moment its operation is taken in until it has a result; a repetition meanwhile waits for the
same result. A *completed* key answers at once, for ten minutes (Centrifugo keeps 5). A key whose operation failed is
forgotten, so that it can be tried again.

Bounds: open keys are bounded by what may be under way (the caller's queues), those who wait for one by
`MAX_WAITING`, completed keys by ``max_keys``: a full table forgets the oldest early and counts them in ``forgotten``. A
ledger, where there is one, knows completed keys for longer and across restarts; this table only spares it the asking.
"""

from __future__ import annotations

from hashlib import sha256
from math import inf
from typing import Any, Generic, NamedTuple, TypeVar

from broker.core.commerce.gifts import GiftOrder
from broker.core.tenants.names import qualify, tenant_of
from protocol.activities.audiences import Audience
from protocol.codes import ErrorCode, Outcome
from protocol.frames import pack_body
from protocol.messages import Post

__all__ = [
    "KEY_REUSED",
    "MAX_ORDERS",
    "MAX_WAITING",
    "ORDER_WINDOW_S",
    "WINDOW_S",
    "FirstUse",
    "IdempotencyTable",
    "OperationKey",
    "StoredResult",
    "call_id",
    "call_key",
    "order_key",
    "post_key",
    "shown_id",
]

T = TypeVar("T")

_CALL_MARK = "\0"
WINDOW_S = 600.0
MAX_WAITING = 16
"""Repetitions that wait for one open key; a client that repeats it more often is LIMITED for a second."""


ORDER_WINDOW_S = 86_400.0
"""How long a broker remembers an order without asking a ledger."""
MAX_ORDERS = 100_000
"""Orders that a broker remembers so, about 300 bytes each."""


class FirstUse(NamedTuple):
    """Where the operation took effect that used a key first."""

    room: str
    epoch: int
    offset: int


class StoredResult(NamedTuple):
    """What came of an operation; ``detail`` as in `AckResult`. ``first`` makes it the answer to a repetition."""

    outcome: Outcome
    detail: int
    first: FirstUse | None = None


KEY_REUSED = StoredResult(Outcome.REJECTED, ErrorCode.KEY_REUSED)
"""Answer to a known key with other content; it is never stored."""


class OperationKey(NamedTuple):
    """Name of one operation, and what it does."""

    parts: tuple[str, ...]
    """Kind, user, type, id: as many as name it. A tuple, so that no two operations share a name."""
    fingerprint: bytes
    """Of the content."""

    @property
    def is_in_all_rooms(self) -> bool:
        """Whether it names one operation in all rooms, and its room is part of its content."""
        return self.parts[0] in ("order", "call")

    @property
    def is_order(self) -> bool:
        """Whether it names an order, which is one order in all rooms."""
        return self.parts[0] == "order"


class IdempotencyTable(Generic[T]):
    """Results by key, for ``window_s`` (> 0) seconds, at most ``max_keys`` (>= 2). ``T`` is a reply address."""

    __slots__ = ("_half", "_old", "_open", "_turn_at", "_window_s", "_young", "forgotten")

    def __init__(self, window_s: float = WINDOW_S, max_keys: int = 20_000) -> None:
        if not window_s > 0 or max_keys < 2:
            raise ValueError(f"not a window of results: {window_s=} {max_keys=}")
        self.forgotten = 0
        """Results forgotten before their time."""
        self._window_s = window_s
        self._half = max_keys // 2
        self._turn_at = -inf
        self._open: dict[tuple[str, ...], tuple[bytes, list[T]]] = {}
        # Two generations, as in `recent`: a result is kept for one to two windows.
        self._young: dict[tuple[str, ...], tuple[bytes, StoredResult]] = {}
        self._old: dict[tuple[str, ...], tuple[bytes, StoredResult]] = {}

    def __len__(self) -> int:
        """Results held."""
        return len(self._young) + len(self._old)

    @property
    def open(self) -> int:
        """Operations under way."""
        return len(self._open)

    def result(self, key: OperationKey, now: float) -> StoredResult | None:
        """Return the result of ``key`` if it is known, `KEY_REUSED` (and of which use) if its content is another."""
        if now >= self._turn_at:
            self._turn(now)
        parts, fingerprint = key
        found = self._young.get(parts) or self._old.get(parts) or self._open.get(parts)
        if found is None:
            return None
        result = found[1] if type(found[1]) is StoredResult else None
        if found[0] != fingerprint:
            return KEY_REUSED if result is None else KEY_REUSED._replace(first=result.first)
        return result

    def wait(self, key: OperationKey, ticket: T) -> bool | None:
        """Let ``ticket`` wait if ``key`` is open: True. None: it is not open. False: too many wait already."""
        found = self._open.get(key.parts)
        if found is None:
            return None
        _, waiting = found
        if len(waiting) >= MAX_WAITING:
            return False
        waiting.append(ticket)
        return True

    def begin(self, key: OperationKey) -> None:
        """Open the key of an operation that is taken in. ValueError (a bug of the caller) if it is open already."""
        if key.parts in self._open:
            raise ValueError(f"{key.parts!r} is in flight")
        self._open[key.parts] = key.fingerprint, []

    def complete(self, key: OperationKey, result: StoredResult, now: float) -> list[T]:
        """Store the result of an operation; return the tickets that waited for it."""
        parts, fingerprint = key
        if now >= self._turn_at:
            self._turn(now)
        elif len(self._young) >= self._half and parts not in self._young:
            self.forgotten += len(self._old)
            self._old, self._young = self._young, {}
            self._turn_at = now + self._window_s
        self._young[parts] = fingerprint, result
        return self.forget(key)

    def forget(self, key: OperationKey) -> list[T]:
        """Close the key of an operation that has failed and may be tried again; return the tickets that waited."""
        parts, fingerprint = key
        found = self._open.get(parts)
        if found is None or found[0] != fingerprint:
            return []  # it was forgotten before, and may be open again with other content
        del self._open[parts]
        return found[1]

    def _turn(self, now: float) -> None:
        in_time = now < self._turn_at + self._window_s
        self._old = self._young if in_time else {}
        self._young = {}
        self._turn_at = (self._turn_at if in_time else now) + self._window_s


def call_id(name: str, fingerprint: bytes) -> str:
    """Return what stands for ``client_msg_id`` in the post of a call that has an idempotency key.

    ``name``: of the call, unique; ``fingerprint``: of its request, 8 bytes. It begins with a control character, which
    no client's ``client_msg_id`` may hold: what a client sends is never taken for the key of a call.
    """
    return f"{_CALL_MARK}{fingerprint.hex()}{name}"


def shown_id(client_msg_id: str) -> str:
    """Return the id of a post as others see it, "" for one that stands for the key of a call."""
    return "" if client_msg_id.startswith(_CALL_MARK) else client_msg_id


def call_key(name: str, fingerprint: bytes) -> OperationKey:
    """Return the key of a call, which `post_key` makes of its `call_id`."""
    return OperationKey(("call", name), fingerprint)


def post_key(user_id: str, post: Post, audience: Audience | None = None) -> OperationKey | None:
    """Return the key of a POST, None if its client gave none. The type is part of the name, the audience of the
    content."""
    if not post.client_msg_id:
        return None
    if post.client_msg_id[0] == _CALL_MARK:
        return call_key(post.client_msg_id[17:], bytes.fromhex(post.client_msg_id[1:17]))
    parts = "post", user_id, str(int(post.type)), post.client_msg_id
    return OperationKey(parts, _fingerprint((post.payload,) if audience is None else (post.payload, audience)))


def order_key(order: GiftOrder, room: str, text: str = "") -> OperationKey:
    """Return the key of an order in ``room`` (its qualified name): an order is one order, in every room of the tenant
    and by every sender. ``text``: of a highlight.

    The display name is no part of what is bought, as it may have changed when the platform repeats the order; nor is
    how the gift is shown.
    """
    order_id, user_id, _, gift_id, count, price_cents, target = order
    content = (room, order_id, user_id, "", gift_id, count, price_cents, target)
    return OperationKey(
        ("order", qualify(tenant_of(room), order_id)), _fingerprint((*content, text) if text else content)
    )


def _fingerprint(content: tuple[Any, ...]) -> bytes:
    return sha256(pack_body(content)).digest()[:8]
