"""Credentials: what a client shows in AUTH on each new link: its token, the application's newest one, or a ticket.

A token that the application gives by a call is asked for as rarely as possible: a ticket of the broker's own brings a
client back without it, so that a platform is not asked by everybody at once when a broker restarts; and a token that
no broker has judged yet, because there was no link, is shown again. The rule for what
the broker says of them is one sentence: a refused ticket says nothing about the user, a token that is over asks for the
next one, and only two tokens of the application refused in a row are a refusal of the user.

Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

from ..codes import CloseCode
from ..messages import Authenticated
from ..reconnect import Signal
from .link import Ending

__all__ = ["Credentials", "TokenSource"]

TokenSource = Callable[[], Awaitable[str | None]]
"""Asks the application for a token; may raise anything, which costs no more than this attempt."""

REFUSALS = 2
"""Tokens of the application refused in a row after which the broker's no is taken for a no."""


class Credentials:
    """One client's. ``token``: text, None for a guest, or a call that gets one whenever it is needed."""

    __slots__ = (
        "_is_ticket",
        "_is_unjudged",
        "_refusals",
        "_source",
        "_ticket",
        "_ticket_s",
        "_ticket_until",
        "_token",
    )

    def __init__(self, token: str | TokenSource | None) -> None:
        self._token = None if callable(token) else token
        self._source = token if callable(token) else None
        self._ticket = ""
        self._ticket_s = 0.0
        self._ticket_until = -inf
        self._is_ticket = False
        self._is_unjudged = False
        """Whether the application's token has been accepted by nobody and refused by nobody."""
        self._refusals = 0

    @property
    def wants_tickets(self) -> bool:
        """Whether tickets are of use: a token that is at hand needs none."""
        return self._source is not None

    async def next(self, now: float) -> str | None:
        """What to show on the next link, at ``now`` (monotonic seconds). Raises what the application's call raises."""
        self._is_ticket = self._ticket != "" and now < self._ticket_until
        if self._is_ticket:
            return self._ticket
        if self._source is not None and not self._is_unjudged:
            self._token = await self._source()
            self._is_unjudged = True
        return self._token

    def welcomed(self, user: Authenticated, now: float) -> None:
        """The broker has accepted what was shown, and perhaps given a ticket."""
        self._refusals = 0
        self._is_unjudged = False
        self._ticket_s = user.ticket_ms / 1000
        self.renewed(user.ticket, now)

    def renewed(self, ticket: str, now: float) -> None:
        """The broker has given a ticket, or none."""
        if ticket and self._source is not None:
            self._ticket = ticket
            self._ticket_until = now + self._ticket_s

    def renew_at(self) -> float:
        """When to ask for a new ticket: at half time; never where there is none."""
        return self._ticket_until - self._ticket_s / 2 if self._ticket and self._ticket_s else inf

    def judge(self, ending: Ending) -> Ending:
        """How the reconnect machine should take the end of a link: a lost one where another token may help."""
        if self._source is None or ending.code not in (CloseCode.AUTH_FAILED, CloseCode.TOKEN_EXPIRED):
            return ending
        self._ticket = ""
        if self._is_ticket:
            return Ending(Signal.LOST, None, f"the broker did not take our ticket: {ending.reason}")
        self._is_unjudged = False
        if ending.code == CloseCode.AUTH_FAILED:
            self._refusals += 1
            if self._refusals >= REFUSALS:
                return ending
        return Ending(Signal.LOST, None, f"the broker wants a new token: {ending.reason}")
