"""Who the generator's links say they are: signed tokens, development names or guests."""

from __future__ import annotations

from broker.auth.grants import DEV_PREFIX
from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from protocol.codes import Role

__all__ = ["AUTH_MANNERS", "TokenMaker"]

AUTH_MANNERS = ("token", "dev", "guest")
"""``token``: HS256, checked by the broker at every connect; ``dev``: development names; ``guest``: no token."""


class TokenMaker:
    """Makes what a link shows in AUTH. A token costs about 50 us, before anything is timed."""

    def __init__(self, manner: str, secret: str | None) -> None:
        if manner not in AUTH_MANNERS:
            raise ValueError(f"auth is one of {', '.join(AUTH_MANNERS)}, not {manner!r}")
        self._manner = manner
        self._issuer = Authenticator(AuthConfig(secret=secret)) if manner == "token" else None

    def viewer(self, user_id: str) -> str | None:
        """For one who watches."""
        return None if self._manner == "guest" else self.user(user_id, Role.VIEWER)

    def user(self, user_id: str, role: Role) -> str:
        """For one who posts; also where viewers are guests."""
        if self._issuer is not None:
            return self._issuer.issue(user_id, "", role)
        return f"{DEV_PREFIX}{user_id}:{role.name.lower()}"
