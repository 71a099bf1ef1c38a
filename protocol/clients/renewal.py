"""Renewal of a client's token on an open link, so that the end of a token does not end the link.

Only a token that the application returns from a call is renewed. When a renewal fails in any way, the link lasts until
the end of its old token, and the client reconnects with a new one.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from ..messages import ErrorReply, Pong
from ..reconnect import backoff_s
from .link import Ending, Link

__all__ = ["RenewalOwner", "TokenRenewal"]

EARLIEST, LATEST = 0.75, 0.95
"""Part of the token's remaining time after which it is renewed, at random: clients of one event are spread."""


class RenewalOwner(Protocol):
    """Interface of the client to the renewal of its token."""

    def server_ms(self) -> int:
        """Return the estimated time of the broker in Unix milliseconds."""

    def next_sequence(self) -> int:
        """Return a request number."""


class TokenRenewal:
    """Renewal for one client. ``new_token`` calls the application; an `Ending` says why there is no token."""

    __slots__ = (
        "_answered", "_changed", "_changed_to_ms", "_expires_at_ms", "_new_token", "_owner", "_rng", "_sequence",
    )  # fmt: skip

    def __init__(
        self, owner: RenewalOwner, new_token: Callable[[], Awaitable[str | Ending | None]], rng: random.Random
    ) -> None:
        self._owner = owner
        self._new_token = new_token
        self._rng = rng
        self._sequence = 0
        self._answered = trio.Event()
        self._expires_at_ms = 0
        self._changed = trio.Event()
        self._changed_to_ms = 0

    async def run(self, link: Link, expires_at_ms: int, timeout_s: float) -> None:
        """Renew the token of ``link`` before each of its ends. ``timeout_s``: how long to wait for an answer."""
        failures = 0
        self._changed = trio.Event()
        while expires_at_ms:
            left_s = (expires_at_ms - self._owner.server_ms()) / 1000
            if left_s <= 0:
                return
            with trio.move_on_after(min(left_s * self._rng.uniform(EARLIEST, LATEST), MAX_SLEEP_S)):
                await self._changed.wait()
                self._changed, expires_at_ms = trio.Event(), self._changed_to_ms
                continue
            if left_s > MAX_SLEEP_S:
                continue
            token = await self._new_token()
            if token is None or isinstance(token, Ending):
                await trio.sleep(backoff_s(failures, self._rng))
                failures += 1
                continue
            failures = 0
            self._answered, self._expires_at_ms = trio.Event(), 0
            self._sequence = self._owner.next_sequence()
            link.renew_token(token, self._sequence)
            with trio.move_on_after(timeout_s):
                await self._answered.wait()
            if self._expires_at_ms <= expires_at_ms:
                return
            expires_at_ms = self._expires_at_ms

    def on_pong(self, pong: Pong) -> bool:
        """Process a PONG; True if it contains the answer to a renewal."""
        if not pong.expires_at_ms or self._answered.is_set():
            return False
        self._expires_at_ms = pong.expires_at_ms
        self._answered.set()
        return True

    def on_changed(self, expires_at_ms: int) -> None:
        """The application has changed the token of the link: from now on it ends then."""
        self._changed_to_ms = expires_at_ms
        self._changed.set()

    def on_error(self, sequence: int, error: ErrorReply) -> bool:
        """Process an ERROR; False if it does not answer a renewal."""
        if sequence != self._sequence or self._answered.is_set():
            return False
        self._answered.set()
        return True


MAX_SLEEP_S = 86_400.0
"""A token of years is checked once a day: clocks drift."""
