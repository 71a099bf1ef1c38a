"""Idempotency in memory: whoever repeats an operation hears what came of it the first time.

A key is *open* from the moment its operation is taken in until it is settled; a repetition meanwhile waits for the
same result. A *settled* key answers at once, for ten minutes (Centrifugo keeps 5). A key whose operation failed is
forgotten, so that it can be tried again.

Bounds: open keys are bounded by what may be under way (the caller's queues), those who wait for one by
`MAX_WAITING`, settled keys by ``max_keys``: a full table forgets the oldest early and counts them in ``forgotten``. A
ledger, where there is one, knows settled keys for longer and across restarts; this table only spares it the asking.
"""

from __future__ import annotations

from math import inf
from typing import Generic, NamedTuple, TypeVar

from protocol.codes import Outcome

__all__ = ["MAX_WAITING", "WINDOW_S", "IdempotencyTable", "StoredResult"]

T = TypeVar("T")

WINDOW_S = 600.0
MAX_WAITING = 16
"""Repetitions that wait for one open key; a client that asks oftener is told to wait a second."""


class StoredResult(NamedTuple):
    """What came of an operation; ``detail`` as in `AckResult`."""

    outcome: Outcome
    detail: int


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
        self._open: dict[str, list[T]] = {}
        # Two generations, as in `recent`: a result lives for one to two windows, whichever way it is turned.
        self._young: dict[str, StoredResult] = {}
        self._old: dict[str, StoredResult] = {}

    def __len__(self) -> int:
        """Results held."""
        return len(self._young) + len(self._old)

    @property
    def open(self) -> int:
        """Operations under way."""
        return len(self._open)

    def result(self, key: str, now: float) -> StoredResult | None:
        """What came of ``key``, if that is known."""
        if now >= self._turn_at:
            self._turn(now)
        return self._young.get(key) or self._old.get(key)

    def wait(self, key: str, ticket: T) -> bool | None:
        """Let ``ticket`` wait if ``key`` is open: True. None: it is not open. False: too many wait already."""
        waiting = self._open.get(key)
        if waiting is None:
            return None
        if len(waiting) >= MAX_WAITING:
            return False
        waiting.append(ticket)
        return True

    def begin(self, key: str) -> None:
        """An operation is taken in. ValueError (a bug of the caller) if it is open already."""
        if key in self._open:
            raise ValueError(f"{key!r} is under way")
        self._open[key] = []

    def settle(self, key: str, result: StoredResult, now: float) -> list[T]:
        """It is done; returns who waited for the same result."""
        if now >= self._turn_at:
            self._turn(now)
        elif len(self._young) >= self._half and key not in self._young:
            self.forgotten += len(self._old)
            self._old, self._young = self._young, {}
            self._turn_at = now + self._window_s
        self._young[key] = result
        return self._open.pop(key, [])

    def forget(self, key: str) -> list[T]:
        """It has failed and may be tried again; returns who waited."""
        return self._open.pop(key, [])

    def _turn(self, now: float) -> None:
        in_time = now < self._turn_at + self._window_s
        self._old = self._young if in_time else {}
        self._young = {}
        self._turn_at = (self._turn_at if in_time else now) + self._window_s
