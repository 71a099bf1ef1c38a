"""Authentication of the generator's links: signed tokens, development names or guests."""

from __future__ import annotations

from broker.auth.grants import DEV_PREFIX
from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from protocol.codes import Role

__all__ = ["AUTH_METHODS", "TokenMaker"]

AUTH_METHODS = ("token", "dev", "guest")
"""``token``: HS256, checked by the broker at every connect; ``dev``: development names; ``guest``: no token."""


class TokenMaker:
    """Maker of the tokens that links send in AUTH. A token costs about 50 us, before anything is timed."""

    def __init__(self, method: str, secret: str | None) -> None:
        if method not in AUTH_METHODS:
            raise ValueError(f"auth is one of {', '.join(AUTH_METHODS)}, not {method!r}")
        self._method = method
        self._issuer = Authenticator(AuthConfig(secret=secret)) if method == "token" else None

    def viewer(self, user_id: str) -> str | None:
        """Return the token of a viewer, None for a guest."""
        return None if self._method == "guest" else self.user(user_id, Role.VIEWER)

    def user(self, user_id: str, role: Role) -> str:
        """Return the token of a user who posts, also where viewers are guests."""
        if self._issuer is not None:
            return self._issuer.issue(user_id, "", role)
        return f"{DEV_PREFIX}{user_id}:{role.name.lower()}"
