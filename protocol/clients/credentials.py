"""Credentials: what a client sends in AUTH on each new link: a fixed token, a token of the application, or a ticket.

A token that the application returns from a call is requested as rarely as possible. A client reconnects with a ticket
of the broker, so that a restarted broker does not make all clients ask their platform at once; and a token that no
broker has answered yet, because no link was established, is sent again.

A refused ticket says nothing about the user, an expired token leads to a new call, and only two tokens of the
application that are refused in a row end the client.

Nothing here reads a clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from math import inf

from ..codes import CloseCode
from ..messages import Authenticated
from ..reconnect import Signal
from .link import Ending

__all__ = ["GUEST_TOKEN", "Credentials", "TokenSource", "new_guest_token"]

TokenSource = Callable[[], Awaitable[str | None]]
"""Async function of the application that returns a token; an exception fails only this attempt."""


def new_guest_token() -> str:
    """Return the token of a new guest. An application that keeps it has the same guest after a restart."""
    return f"guest:{secrets.token_urlsafe(18)}"


GUEST_TOKEN = new_guest_token()
"""Token of every client of this process that has no other: reconnects and reloads are one guest."""

_WANT_A_TOKEN = (CloseCode.AUTH_FAILED, CloseCode.TOKEN_EXPIRED, CloseCode.TOKEN_REVOKED)
"""Ends after which another token may be accepted."""
REFUSALS = 2
"""Tokens of the application that are refused in a row before the client ends."""


class Credentials:
    """Credentials of one client. ``token``: text, an async function that returns one, or None for this process's guest.

    An async function may return None, which asks for a new guest on each link.
    """

    __slots__ = (
        "_is_ticket",
        "_is_untested",
        "_refusals",
        "_source",
        "_ticket",
        "_ticket_s",
        "_ticket_until",
        "_token",
    )

    def __init__(self, token: str | TokenSource | None) -> None:
        self._token = GUEST_TOKEN if token is None else None if callable(token) else token
        self._source = token if callable(token) else None
        self._ticket = ""
        self._ticket_s = 0.0
        self._ticket_until = -inf
        self._is_ticket = False
        self._is_untested = False
        """Whether no broker has accepted or refused the application's token yet."""
        self._refusals = 0

    @property
    def wants_tickets(self) -> bool:
        """Whether the client uses tickets: only with an async function, since a fixed token costs nothing."""
        return self._source is not None

    async def next(self, now: float) -> str | None:
        """Return the token for the next link; raises what the application's call raises. ``now``: monotonic seconds."""
        self._is_ticket = self._ticket != "" and now < self._ticket_until
        if self._is_ticket:
            return self._ticket
        if self._source is not None and not self._is_untested:
            self._token = await self._source()
            self._is_untested = True
        return self._token

    def accepted(self, user: Authenticated, now: float) -> None:
        """Process the broker's acceptance, which may contain a ticket."""
        self._refusals = 0
        self._is_untested = False
        self._ticket_s = user.ticket_ms / 1000
        self.on_ticket(user.ticket, now)

    def on_ticket(self, ticket: str, now: float) -> None:
        """Store a ticket of the broker; "" is none."""
        if ticket and self._source is not None:
            self._ticket = ticket
            self._ticket_until = now + self._ticket_s

    async def newer(self) -> str | None:
        """Return a new token for an open link: None without a call of the application, which may raise anything."""
        if self._source is None:
            return None
        self._token = await self._source()
        self._is_untested = True
        return self._token

    def renewed(self) -> None:
        """Process the broker's acceptance of a token on an open link."""
        self._refusals = 0
        self._is_untested = False

    def changed(self, token: str) -> None:
        """Send another token on the next links, which the broker has accepted on an open one. An async function of the
        application is called again where a ticket does not serve."""
        self._token = token
        self._is_untested = False

    def renew_at(self) -> float:
        """Return when to request a new ticket (monotonic seconds): at half of its time; inf without one."""
        return self._ticket_until - self._ticket_s / 2 if self._ticket and self._ticket_s else inf

    def classify(self, ending: Ending) -> Ending:
        """Return the ending for the reconnect machine: LOST without a code where another token may be accepted."""
        if self._source is None or ending.code not in _WANT_A_TOKEN:
            return ending
        self._ticket = ""
        if self._is_ticket:
            return Ending(Signal.LOST, None, f"the broker refused the ticket: {ending.reason}")
        self._is_untested = False
        if ending.code != CloseCode.TOKEN_EXPIRED:
            self._refusals += 1
            if self._refusals >= REFUSALS:
                return ending
        return Ending(Signal.LOST, None, f"the broker wants a new token: {ending.reason}")
