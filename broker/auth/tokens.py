"""Verification and issue of tokens.

A token is a JWT signed with the secret that the platform shares with this broker (HS256), or with a private key whose
public one the broker has (RS256, ES256, EdDSA; `broker.auth.keys`). Claims: ``exp`` (Unix seconds) and ``aud`` (must
name this broker's audience) are required, ``nbf``, ``iat``, ``iss`` as in RFC 7519; those of `broker.auth.grants` say
who the user is; other claims are ignored.

A guest has no token, or ``guest:KEY`` with a random key that its client keeps: the same key gives the same user id,
so that a page that is loaded again is not a new viewer.

Development mode (no secret and no keys; `broker.config.schema` then binds loopback only) has a random secret of its
own, admits a connection without a token as a guest, and accepts ``dev:USER`` and ``dev:USER:ROLE`` in place of a token.

Whatever is wrong with a token, the client gets the same text: the reason is for the log alone. The algorithm and the
key are never taken from the token; nothing is fetched and nothing waits; no error holds a token or a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from broker.auth.grants import (
    DEV_PREFIX,
    GUEST_PREFIX,
    AuthError,
    Grant,
    GrantReader,
    KeysPending,
    RoomGrant,
    TokenRevoked,
    development_grant,
    entry_claim,
    guest_grant,
    returning_guest_grant,
    seconds_claim,
)
from broker.auth.jws import BadToken, Hs256Key, PublicKey
from broker.auth.keys import Keyring, UnknownKey, read_public_keys
from broker.auth.tenant_keys import TenantKeys
from broker.auth.ticket_keys import TicketKeys
from broker.auth.tickets import MAX_TOKEN_BYTES, Tickets
from broker.config.schema import MIN_SECRET_BYTES, AuthConfig
from protocol.codes import Role

__all__ = ["Authenticator"]


VOUCHED_S = 86_400
"""How long a connection may last that the platform has vouched for without saying how long."""


class Authenticator:
    """Verifies tokens and issues them.

    ``clock`` gives Unix seconds (tokens speak of wall time); ``rng`` draws guests' names. Counters ``verified``
    (signatures checked and good), ``from_cache``, ``from_tickets``, ``guests`` and ``refused`` only grow.
    """

    def __init__(
        self,
        config: AuthConfig,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        request_keys: Callable[[], bool] = lambda: False,
        tenants: TenantKeys | None = None,
        is_revoked: Callable[[str, str, int, str], bool] = lambda tenant, user_id, issued_at_s, jti: False,
    ) -> None:
        """``request_keys``: called when a token names an unknown key; returns whether newer keys may come soon, for
        `use_url_keys`. ``tenants``: those that tokens may name; None: any. ``is_revoked``: of a tenant, a
        qualified user id, the Unix seconds at which a token was issued, and its id.

        ValueError if a configured secret is missing or short (`broker.config.schema.load` prevents it), KeyProblem
        if the file of keys cannot be used."""
        self.verified = self.from_cache = self.from_tickets = self.guests = self.refused = 0
        self.development = config.development
        secret = (config.secret or "").encode() or (secrets.token_bytes(MIN_SECRET_BYTES) if self.development else b"")
        self._guest_secret = secret or secrets.token_bytes(MIN_SECRET_BYTES)
        self._request_keys = request_keys
        self._is_revoked = is_revoked
        self._url_keys: tuple[PublicKey, ...] = ()
        self.use(config, self.keyring_of(config), tenants)
        self._clock = clock
        self._rng = rng or secrets.SystemRandom()
        self._grants = GrantReader()
        self._tickets = Tickets(secret, config.audience, config.ticket_s, self._grants)

    def keyring_of(self, config: AuthConfig) -> Keyring:
        """Return the keys of a configuration, for `use`; its file of keys is read. ValueError as the constructor."""
        if config.development != self.development:
            raise ValueError("a broker does not enter or leave development mode while it runs")
        if self.development:
            return Keyring([self._guest_secret])
        if config.secret is None and config.secret_file is not None:
            raise ValueError("the secret file has not been read: use broker.config.schema.load")
        shared = [secret.encode() for secret in (config.secret, config.previous_secret) if secret is not None]
        if any(len(secret) < MIN_SECRET_BYTES for secret in shared):
            raise ValueError(f"an HS256 secret has at least {MIN_SECRET_BYTES} bytes")
        public = () if config.keys_file is None else read_public_keys(config.keys_file)
        return Keyring(shared, public, self._url_keys, has_url=config.jwks_url is not None)

    def use(self, config: AuthConfig, keyring: Keyring, tenants: TenantKeys | None = None) -> None:
        """Check tokens by another configuration from now on, with its keys (`keyring_of`) and its tenants.

        Tokens that were verified before are verified again; connections and tickets stay as they are.
        """
        patterns = ("*",) if self.development else config.guest_access
        self._guest_rooms = tuple(RoomGrant(pattern, Role.GUEST) for pattern in patterns)
        if config.secret is not None:
            self._guest_secret = config.secret.encode()
        self._signer = Hs256Key(self._guest_secret) if config.secret is not None or self.development else None
        self._keyring = keyring
        self._tenants = tenants
        self._config = config
        self._cache: dict[int, Grant] = {}

    def use_url_keys(self, keys: tuple[PublicKey, ...]) -> None:
        """Take the keys of ``auth.jwks_url`` in place of those before; tokens verified before are verified again."""
        self._url_keys = keys
        self._keyring = self._keyring.with_url_keys(keys)
        self._cache.clear()

    @property
    def keys(self) -> int:
        """Secrets and public keys that verify tokens."""
        return len(self._keyring)

    @property
    def cached(self) -> int:
        """Verified tokens in the cache."""
        return len(self._cache)

    @property
    def gives_tickets(self) -> bool:
        """Whether connections may have tickets at all."""
        return self._tickets.are_issued

    @property
    def ticket_s(self) -> float:
        """How long a ticket is good, in seconds."""
        return self._config.ticket_s

    def use_ticket_keys(self, keys: TicketKeys) -> None:
        """Sign tickets with these keys of the broker from now on; before that they are random ones of this process.

        Without a secret of the platform, the ids of returning guests come from the base key.
        """
        self._tickets.use_keys(keys)
        if self._config.secret is None:
            self._guest_secret = hmac.digest(keys.base, b"guests", "sha256")

    def ticket(self, grant: Grant) -> tuple[str, int]:
        """Return a ticket for ``grant`` and its lifetime in milliseconds; ("", 0) if there is none."""
        return self._tickets.issue(grant, int(self._clock()))

    def verify(self, token: str | None) -> Grant:
        """Return the grant of ``token``; None and ``guest:KEY`` ask for a guest's.

        AuthError in every other case, whatever the bytes. Never waits: about 13 us for a new token of HS256, 50 to
        200 us with a public key, 1.3 us for one that was verified before. The cache holds ``cache_tokens`` grants by
        digest, never tokens; when full the oldest goes.
        """
        try:
            grant = self._verify(token)
            if grant.expires_at and self._is_revoked(grant.tenant, grant.user_id, grant.issued_at, grant.jti):
                raise TokenRevoked("the token was revoked")
            return grant
        except AuthError:
            self.refused += 1
            raise

    def knows(self, token: str | None) -> bool:
        """Return whether `verify` needs no check of a signature: a guest, or a token that is in the cache."""
        return token is None or (
            type(token) is str and (token.startswith(GUEST_PREFIX) or _cache_key(token) in self._cache)
        )

    def grant_of(self, claims: Mapping[str, Any]) -> Grant:
        """Return the grant of a user that the platform itself vouches for, by claims as in a token; AuthError.

        ``rooms`` and ``sub`` are required as there; without ``exp`` it holds for a day, without ``iat`` it is issued
        now: a revocation before does not end its tickets.
        """
        now = int(self._clock())
        try:
            grant = self._grants.read({"exp": now + VOUCHED_S, "iat": now, **claims})
        except KeyError as error:
            raise AuthError(f"claim {error.args[0]} is missing") from None
        self._check_tenant(grant)
        if self._tenants is not None and self._tenants.own(grant.tenant) is not None:
            raise AuthError("claim tenant: the tenant has keys of its own, and trusts no others")
        if self.seconds_left(grant) <= 0:
            raise AuthError("claim exp: is over")
        return grant

    def is_ticket(self, token: str | None) -> bool:
        """Return whether ``token`` is, by its form, a ticket of a broker: the platform cannot know it."""
        return token is not None and self._tickets.is_ticket(token)

    def issue(
        self,
        user_id: str,
        name: str = "",
        role: Role = Role.VIEWER,
        rooms: Sequence[RoomGrant] | None = None,
        ttl_s: float = 86_400.0,
        tenant: str = "",
        tags: Sequence[str] = (),
        jti: str = "",
    ) -> str:
        """Return a token that `verify` accepts for ``ttl_s`` from now; ``rooms`` None = every room in ``role``.

        ValueError if a field breaks the rules for claims, the token would be too long, or there is no secret to sign
        with.
        """
        if self._signer is None:
            raise ValueError("there is no auth.secret: the platform signs its tokens with its private key")
        entries = (RoomGrant("*", role),) if rooms is None else rooms
        now = int(self._clock())
        claims: dict[str, Any] = {
            "sub": user_id,
            "aud": self._config.audience,
            "iat": now,
            "exp": int(now + ttl_s),
            "role": role.name.lower(),
            "rooms": [entry_claim(entry) for entry in entries],
        }
        if name:
            claims["name"] = name
        if tenant:
            claims["tenant"] = tenant
        if tags:
            claims["tags"] = list(tags)
        if jti:
            claims["jti"] = jti
        if self._config.issuer is not None:
            claims["iss"] = self._config.issuer
        try:
            self._grants.read(claims)
        except AuthError as error:
            raise ValueError(error.detail) from None
        token = self._signer.encode(claims)
        if len(token) > MAX_TOKEN_BYTES:
            raise ValueError(f"the token has {len(token)} bytes, {MAX_TOKEN_BYTES} are allowed: name fewer rooms")
        return token

    def seconds_left(self, grant: Grant) -> float:
        """Return how long a connection with ``grant`` may last, leeway included; infinite for guests, <= 0 when
        over."""
        if grant.expires_at == 0:
            return inf
        return grant.expires_at + self._config.leeway_s - self._clock()

    def _verify(self, token: str | None) -> Grant:
        if token is not None and type(token) is not str:
            raise AuthError("token is not text")
        if token is None or token.startswith(GUEST_PREFIX):
            return self._guest(token)
        if len(token) > MAX_TOKEN_BYTES:
            raise AuthError("token is too long")
        if self.development and token.startswith(DEV_PREFIX):
            return development_grant(token)
        if not token.isascii():
            raise AuthError("token is not ASCII text")

        if self._tickets.is_ticket(token):
            grant = self._tickets.verify(token, self._clock())
            self._check_tenant(grant)
            self.from_tickets += 1
            return grant
        key = _cache_key(token)
        cached = self._cache.get(key)
        if cached is not None:
            if self.seconds_left(cached) <= 0:
                del self._cache[key]
                raise AuthError("claim exp: the token has expired")
            self.from_cache += 1
            return cached
        own = None if self._tenants is None else self._tenants.keyring_for(token)
        try:
            claims = (own or self._keyring).claims(token, self._config.audience, self._config.issuer)
        except BadToken as error:
            if isinstance(error, UnknownKey) and self._request_keys():
                raise KeysPending(str(error)) from None
            raise AuthError(str(error)) from None
        grant = self._grants.read(claims)
        self._check_tenant(grant)
        if self._tenants is not None and self._tenants.own(grant.tenant) is not own:
            raise AuthError("claim tenant: the token is not signed with a key of this tenant")
        self._check_times(claims, grant)
        self.verified += 1
        if self._config.cache_tokens:
            while len(self._cache) >= self._config.cache_tokens:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = grant
        return grant

    def _check_tenant(self, grant: Grant) -> None:
        if self._tenants is not None and grant.tenant not in self._tenants:
            raise AuthError("claim tenant: there is no such tenant")

    def _guest(self, token: str | None) -> Grant:
        if not self._guest_rooms:
            raise AuthError("no token, and guests are not admitted (auth.guest_access names no room)")
        if token is None:
            grant = guest_grant(self._rng, self._guest_rooms)
        else:
            grant = returning_guest_grant(token, self._guest_secret, self._guest_rooms)
        self.guests += 1
        return grant

    def _check_times(self, claims: Mapping[str, Any], grant: Grant) -> None:
        now, leeway_s = self._clock(), self._config.leeway_s
        if grant.expires_at + leeway_s <= now:
            raise AuthError("claim exp: the token has expired")
        latest = now + leeway_s
        if "nbf" in claims and seconds_claim(claims, "nbf") > latest:
            raise AuthError("claim nbf: the token is not valid yet")
        if grant.issued_at > latest:
            raise AuthError("claim iat: the token is not valid yet")


def _cache_key(token: str) -> int:
    """Return what stands for a token in the cache: 128 bits of its digest, in 48 bytes of memory."""
    return int.from_bytes(hashlib.sha256(token.encode(errors="replace")).digest()[:16], "big")
