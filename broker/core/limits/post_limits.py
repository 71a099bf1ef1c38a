"""Rates of posts in one room, per user: danmaku, likes, what staff and the app post, and custom types.

The app has one rate for everything of the lanes 0 to 2 except gifts, custom types included: a rate of a custom type is
for people. Gifts have none: they are paid for, and `gifts.ComboPacer` paces them.
"""

from __future__ import annotations

from collections.abc import Iterable

from broker.core.limits.rate_limit import Gcra, Rate
from protocol.codes import Lane, Role

__all__ = ["PostLimits"]


class PostLimits:
    """The limiters of one room."""

    __slots__ = ("_app", "_custom", "_removed_refusals", "_staff", "chat", "likes")

    def __init__(
        self, chat: Rate, likes: Rate, staff: Rate, app: Rate, custom: Iterable[tuple[int, Lane, Rate]] = ()
    ) -> None:
        """``custom``: as in `use_custom`."""
        self.chat = Gcra(chat)
        self.likes = Gcra(likes)
        self._staff = Gcra(staff)
        self._app = Gcra(app)
        self._custom: dict[int, tuple[Lane, Gcra]] = {}
        self._removed_refusals = 0
        self.use_custom(custom)

    def use_custom(self, custom: Iterable[tuple[int, Lane, Rate]]) -> None:
        """Take other custom types: number, lane and rate of each. A limiter whose rate is the same keeps what it knows
        of its users."""
        before, self._custom = self._custom, {}
        for type, lane, rate in custom:
            known = before.pop(type, None)
            self._custom[type] = lane, Gcra(rate) if known is None else known[1].at_rate(rate)
        self._removed_refusals += sum(limit.full_refusals for _, limit in before.values())

    def use_rates(self, chat: Rate, likes: Rate, staff: Rate, app: Rate) -> None:
        """Apply other rates from now on. A limiter whose rate is the same keeps what it knows of its users."""
        self.chat, self.likes = self.chat.at_rate(chat), self.likes.at_rate(likes)
        self._staff, self._app = self._staff.at_rate(staff), self._app.at_rate(app)

    def of_staff(self, role: Role) -> Gcra:
        """Return the limiter of MODERATOR and above."""
        return self._app if role is Role.APP else self._staff

    def of_custom(self, type: int, role: Role) -> Gcra:
        """Return the limiter of a custom type for a role."""
        lane, limit = self._custom[type]
        return self._app if role is Role.APP and lane <= Lane.PAID else limit

    def wait_s(self, type: int, role: Role, user_id: str, now: float) -> float:
        """Return the seconds until a danmaku or custom message of a user may pass, and take nothing; 0.0 = now."""
        if type in self._custom:
            return self.of_custom(type, role).wait_s(user_id, now)
        return (self.of_staff(role) if role >= Role.MODERATOR else self.chat).wait_s(user_id, now)

    @property
    def full_refusals(self) -> int:
        """Posts refused because a limiter's table of users was full."""
        found = (
            self._removed_refusals
            + self.chat.full_refusals
            + self.likes.full_refusals
            + self._staff.full_refusals
            + self._app.full_refusals
        )
        return found + sum([limit.full_refusals for _, limit in self._custom.values()]) if self._custom else found

    def sweep(self, now: float) -> None:
        """Forget keys that no longer matter; cheap, call it now and then."""
        for limit in self._all():
            limit.sweep(now)

    def _all(self) -> list[Gcra]:
        return [self.chat, self.likes, self._staff, self._app, *(limit for _, limit in self._custom.values())]
