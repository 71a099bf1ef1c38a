"""Who a viewer is and what the token lets them do: the one module that knows JSON Web Tokens.

A token is a JWT signed with HS256 and the secret that the platform shares with this broker. Claims::

    sub    user id, 1 to 64 printable characters                          required
    exp    Unix seconds                                                   required
    aud    must name this broker's audience                               required
    rooms  [{"pattern": "live-*", "role": "host", "allow": ["danmaku"]}]  required; [] = no room
    role   role in rooms whose entry names none (default "viewer")
    name   what others see, up to 64 characters (default: the user id)
    nbf, iat, iss as RFC 7519; other claims are ignored

``rooms`` is required so that a forgotten or misspelt claim grants nothing. The first entry whose pattern
fits the room counts: a name, a prefix with ``*`` at its end, or ``*``. ``allow`` narrows the types that may
be posted there; it never widens what the role may do.

A *ticket* is a token of the broker's own, with which a client comes back without asking the platform: the same grant
with the same end, for a shorter time. It has a key of its own, made from the broker's key and the platform's secret (so
that a new secret ends the tickets made under the old one), and an audience and a header of its own: a ticket is never
taken for a token, nor a token for a ticket. Guests and development identities, which never end, get none.

Development mode (no secret; `broker.config.schema` then binds loopback only) has a random secret of its own, takes
everybody without a token as a guest, and believes ``dev:USER`` and ``dev:USER:ROLE`` in place of a token.

Whatever is wrong with a token, the peer hears the same text: the reason is for the log alone. Must never: take
the algorithm or the key from the token, fetch anything, wait, or put a token or a secret into an error.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
import random
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import jwt
import msgspec

from broker.config.schema import MIN_SECRET_BYTES, AuthConfig
from protocol.codes import Role
from protocol.text import is_displayable

__all__ = [
    "DEV_PREFIX",
    "MAX_ROOMS_PER_TOKEN",
    "MAX_TOKEN_BYTES",
    "AuthError",
    "Authenticator",
    "Grant",
    "RoomGrant",
    "parse_role",
    "parse_room_pattern",
]

MAX_TOKEN_BYTES = 4000
"""Checked before anything is parsed; the same cap as the AUTH message has."""
MAX_ROOMS_PER_TOKEN = 64
MAX_ALLOW = 32
DEV_PREFIX = "dev:"

_KNOWN_HEADERS = 64
_TO_STANDARD = bytes.maketrans(b"-_+/", b"+/--")
"""Base64 of URLs to the standard alphabet; what is of the standard alphabet alone becomes an error."""
_FROM_STANDARD = bytes.maketrans(b"+/", b"-_")
_parse_json = json.JSONDecoder().decode
_parse_quickly = msgspec.json.Decoder().decode
"""Three times faster than `_parse_json`. What it takes it reads the same; it refuses lone surrogates, NaN and numbers
out of range, which Python's reads."""
_SHARED_ROOMS = 1024
"""Room lists kept for sharing; tokens of one room are mostly alike. When full the table starts anew: no harm done."""
_LATEST_S = 253_402_300_799
"""Last second of the year 9999; a time beyond it is an error of units, such as milliseconds."""
_HEADERS = frozenset({"alg", "typ", "kid"})
"""All that a header may hold: ``crit``, ``jku``, ``jwk``, ``x5u``, ``b64``, ``zip`` ask for what is not done here."""
_ENTRY_KEYS = frozenset({"pattern", "role", "allow"})
_ROLES = {role.name.lower(): role for role in Role}
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_is_room_pattern = re.compile(r"[\w\-.:@]{0,64}\*?").fullmatch
"""``\\w`` is what `str.isalnum` says, and ``_``."""
_TYPE_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_GUEST_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


class AuthError(Exception):
    """No entry. ``str()`` is one and the same public text; ``detail`` is ours (never the peer's bytes), for the log."""

    def __init__(self, detail: str) -> None:
        super().__init__("authentication failed")
        self.detail = detail


class RoomGrant(NamedTuple):
    """What a user is in the rooms that ``pattern`` fits. ``allow`` None: whatever the role may post."""

    pattern: str
    role: Role
    allow: frozenset[str] | None = None

    def fits(self, room_name: str) -> bool:
        """Whether this entry speaks of ``room_name``."""
        pattern = self.pattern
        return pattern == room_name or (pattern[-1] == "*" and room_name.startswith(pattern[:-1]))


@dataclass(slots=True)
class Grant:
    """What a verified token may do. Shared by all links that show the same token, and so never changed.

    (A dataclass that Python itself freezes takes four times as long to make.)

    ``expires_at``: Unix seconds, 0 = never; a link may outlive it by the leeway (`Authenticator.seconds_left`).
    """

    user_id: str
    name: str
    role: Role
    rooms: tuple[RoomGrant, ...]
    expires_at: int = 0

    def room_grant(self, room_name: str) -> RoomGrant | None:
        """The entry that counts in ``room_name``, the first that fits; None = not granted. O(entries): ask at JOIN."""
        for entry in self.rooms:
            if entry.fits(room_name):
                return entry
        return None

    def role_in(self, room_name: str) -> Role | None:
        """The user's role in ``room_name``; None = not granted."""
        entry = self.room_grant(room_name)
        return None if entry is None else entry.role

    def may_post(self, room_name: str, type_name: str) -> bool:
        """Whether the token lets messages of ``type_name`` (as `Config.type_names` writes it) into ``room_name``.

        The token's half of the answer only: the role must be among the type's ``post_roles`` as well.
        """
        entry = self.room_grant(room_name)
        return entry is not None and (entry.allow is None or type_name in entry.allow)


_TICKET_TYPE = "ticket"
_JWS = jwt.PyJWS(algorithms=["HS256"])
_write_quickly = msgspec.json.Encoder().encode

_new = tuple.__new__
_GUEST_ROOMS = (RoomGrant("*", Role.GUEST),)


class Authenticator:
    """Turns tokens into grants, and makes tokens.

    ``clock`` gives Unix seconds (tokens speak of wall time); ``rng`` draws guests' names. Counters ``verified``
    (signatures checked and good), ``from_cache``, ``from_tickets``, ``guests`` and ``refused`` only grow.
    """

    def __init__(
        self,
        config: AuthConfig,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """ValueError if a configured secret is missing or short: `broker.config.schema.load` prevents it."""
        if config.secret is None and config.secret_file is not None:
            raise ValueError("the secret file has not been read: use broker.config.schema.load")
        secret = (config.secret or "").encode()
        if config.secret is not None and len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"an HS256 secret has at least {MIN_SECRET_BYTES} bytes")
        self.development = config.secret is None
        self.verified = self.from_cache = self.from_tickets = self.guests = self.refused = 0
        self._secret = secret or secrets.token_bytes(MIN_SECRET_BYTES)
        self._keyed = hmac.new(self._secret, digestmod="sha256")
        """To be copied: the key's own blocks are hashed once, not for every token."""
        self._config = config
        self._clock = clock
        self._rng = rng or secrets.SystemRandom()
        self._headers: set[str] = set()
        """First parts of good tokens, encoded as they came: in practice one, or one a key id."""
        self._cache: dict[bytes, Grant] = {}
        self._rooms: dict[tuple[RoomGrant, ...], tuple[RoomGrant, ...]] = {}
        self._ticket_audience = f"ticket:{config.audience}"
        self._ticket_key = b""
        self._ticket_keyed = self._keyed
        self._ticket_head = ""
        """How every ticket begins; "" where none are given."""
        self.use_ticket_key(secrets.token_bytes(MIN_SECRET_BYTES))

    @property
    def gives_tickets(self) -> bool:
        """Whether links may have tickets at all."""
        return self._config.ticket_s > 0

    def use_ticket_key(self, key: bytes) -> None:
        """Sign tickets with this key of the broker's; until then it is a random one of this process."""
        self._ticket_key = hmac.digest(key, b"ticket\0" + self._secret, "sha256")
        self._ticket_keyed = hmac.new(self._ticket_key, digestmod="sha256")
        if self.gives_tickets:
            whole = _JWS.encode(b"{}", self._ticket_key, algorithm="HS256", headers={"typ": _TICKET_TYPE})
            self._ticket_head = whole.partition(".")[0] + "."

    def ticket(self, grant: Grant) -> tuple[str, int]:
        """A ticket for ``grant`` and how long it is good, in milliseconds; ("", 0) where there is none. About 10 us.

        Its end is never beyond that of the grant, and a grant that came by a ticket ends when the first one did.
        """
        now = int(self._clock())
        ends = min(now + int(self._config.ticket_s), grant.expires_at)
        if ends <= now or not self.gives_tickets:
            return "", 0
        ticket = self._sign_ticket(
            {
                "aud": self._ticket_audience,
                "exp": ends,
                "ends": grant.expires_at,
                "sub": grant.user_id,
                "name": grant.name,
                "role": grant.role.name.lower(),
                "rooms": [_entry_claim(entry) for entry in grant.rooms],
            }
        )
        return (ticket, (ends - now) * 1000) if len(ticket) <= MAX_TOKEN_BYTES else ("", 0)

    def _sign_ticket(self, claims: dict[str, Any]) -> str:
        """What PyJWT writes, in a third of its time: everybody who comes back after a restart is given one at once."""
        signed = self._ticket_head + _to_url(_write_quickly(claims)).decode()
        return signed + "." + _signature(signed, self._ticket_keyed).decode()

    def _from_ticket(self, ticket: str) -> Grant:
        """The grant of a ticket that is ours and not over; AuthError for anything else. As quick as a token."""
        claims = _signed_body(ticket, self._ticket_keyed)
        if type(claims) is not dict:
            # PyJWT has the last word, and the reason.
            try:
                claims = _parse_json(_JWS.decode(ticket, self._ticket_key, algorithms=["HS256"]).decode())
            except (jwt.PyJWTError, ValueError, RecursionError) as error:
                raise AuthError(f"ticket is not valid: {type(error).__name__}") from None
        if claims.get("aud") != self._ticket_audience:
            raise AuthError("ticket is for another broker")
        if claims["exp"] <= self._clock():
            raise AuthError("ticket has expired")
        grant = self._grant({**claims, "exp": claims["ends"]})
        self.from_tickets += 1
        return grant

    def verify(self, token: str | None) -> Grant:
        """The grant behind ``token``; None asks for a guest's.

        AuthError in every other case, whatever the bytes. Never waits: about 13 us for a new token, 1.3 us for
        one that was seen before. The cache holds ``cache_tokens`` grants by digest, never tokens; when full the
        oldest goes.
        """
        try:
            return self._verify(token)
        except AuthError:
            self.refused += 1
            raise

    def issue(
        self,
        user_id: str,
        name: str = "",
        role: Role = Role.VIEWER,
        rooms: Sequence[RoomGrant] | None = None,
        ttl_s: float = 86_400.0,
    ) -> str:
        """A token that `verify` takes for ``ttl_s`` from now; ``rooms`` None = every room in ``role``.

        ValueError if a field breaks the rules for claims or the token would be too long.
        """
        entries = (RoomGrant("*", role),) if rooms is None else rooms
        now = int(self._clock())
        claims: dict[str, Any] = {
            "sub": user_id,
            "aud": self._config.audience,
            "iat": now,
            "exp": int(now + ttl_s),
            "role": role.name.lower(),
            "rooms": [_entry_claim(entry) for entry in entries],
        }
        if name:
            claims["name"] = name
        if self._config.issuer is not None:
            claims["iss"] = self._config.issuer
        try:
            self._grant(claims)
        except AuthError as error:
            raise ValueError(error.detail) from None
        token = jwt.encode(claims, self._secret, algorithm="HS256")
        if len(token) > MAX_TOKEN_BYTES:
            raise ValueError(f"the token has {len(token)} bytes, {MAX_TOKEN_BYTES} are allowed: name fewer rooms")
        return token

    def seconds_left(self, grant: Grant) -> float:
        """How long a link with ``grant`` may live, leeway included; infinite for guests, never positive when over."""
        if grant.expires_at == 0:
            return inf
        return grant.expires_at + self._config.leeway_s - self._clock()

    def _verify(self, token: str | None) -> Grant:
        if token is None:
            if not (self._config.guest_access or self.development):
                raise AuthError("no token, and guests are not admitted")
            self.guests += 1
            return self._guest()
        if type(token) is not str:
            raise AuthError("token is not text")
        if len(token) > MAX_TOKEN_BYTES:
            raise AuthError("token is too long")
        if self.development and token.startswith(DEV_PREFIX):
            return _development_grant(token)
        if not token.isascii():
            raise AuthError("token is not ASCII text")

        if self._ticket_head and token.startswith(self._ticket_head):
            return self._from_ticket(token)
        digest = hashlib.sha256(token.encode()).digest()
        grant = self._cache.get(digest)
        if grant is not None:
            if self.seconds_left(grant) <= 0:
                del self._cache[digest]
                raise AuthError("token has expired")
            self.from_cache += 1
            return grant
        claims = self._quick_claims(token)
        if claims is None:
            claims = self._claims(token)
        grant = self._grant(claims)
        self._check_times(claims, grant)
        self.verified += 1
        if self._config.cache_tokens:
            while len(self._cache) >= self._config.cache_tokens:
                del self._cache[next(iter(self._cache))]
            self._cache[digest] = grant
        return grant

    def _quick_claims(self, token: str) -> dict[str, Any] | None:
        """What `_claims` returns for a plain good token, or None for anything else or anything odd: then ask `_claims`.

        PyJWT takes 60 us to judge a token, this 6, and a wave of newcomers is made of these. It accepts only a header
        that `_claims` has accepted before, byte for byte, and the one encoding of the one right signature; refusals
        and their reasons come from `_claims` alone.
        """
        if token.partition(".")[0] not in self._headers:
            return None
        claims = _signed_body(token, self._keyed)
        if type(claims) is not dict or type(claims.get("sub")) is not str:
            return None
        if claims.get("aud") != self._config.audience or claims.get("exp") is None or claims.get("rooms") is None:
            return None
        if "jti" in claims or (self._config.issuer is not None and claims.get("iss") != self._config.issuer):
            return None
        return claims

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature, audience and issuer are right. Times are not looked at."""
        try:
            whole = jwt.decode_complete(
                token,
                self._secret,
                algorithms=["HS256"],
                audience=self._config.audience,
                issuer=self._config.issuer,
                options={
                    "require": ["exp", "sub", "aud", "rooms"],
                    # By our own clock, in `_check_times`.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            # The message may quote the token, its class does not.
            raise AuthError(f"token is not valid: {type(error).__name__}") from None
        header: dict[str, Any] = whole["header"]
        if not header.keys() <= _HEADERS:
            raise AuthError("header asks for more than alg, typ and kid")
        if str(header.get("typ", "JWT")).upper() != "JWT":
            raise AuthError("header typ is not JWT")
        if "kid" in header and not _KEY_ID.fullmatch(str(header["kid"])):
            raise AuthError("header kid is not a plain name")
        if len(self._headers) < _KNOWN_HEADERS:
            self._headers.add(token.partition(".")[0])
        claims: dict[str, Any] = whole["payload"]
        return claims

    def _grant(self, claims: Mapping[str, Any]) -> Grant:
        """The grant that ``claims`` describe; every claim is checked, nothing is guessed."""
        user_id = _user_id(claims["sub"])
        name = claims.get("name", "")
        if type(name) is not str or len(name) > 64 or not is_displayable(name):
            raise AuthError("name is not up to 64 characters without controls")
        role = _role(claims.get("role", "viewer"))
        rooms = claims["rooms"]
        if type(rooms) is not list or len(rooms) > MAX_ROOMS_PER_TOKEN:
            raise AuthError(f"rooms is not a list of up to {MAX_ROOMS_PER_TOKEN} entries")
        entries = tuple([_room_grant(entry, role) for entry in rooms])
        return Grant(user_id, name if name.strip() else user_id, role, self._shared(entries), _seconds(claims, "exp"))

    def _check_times(self, claims: Mapping[str, Any], grant: Grant) -> None:
        now, leeway_s = self._clock(), self._config.leeway_s
        if grant.expires_at + leeway_s <= now:
            raise AuthError("token has expired")
        latest = now + leeway_s
        for claim in ("nbf", "iat"):
            if claim in claims and _seconds(claims, claim) > latest:
                raise AuthError(f"token is not valid yet ({claim})")

    def _shared(self, entries: tuple[RoomGrant, ...]) -> tuple[RoomGrant, ...]:
        """An equal tuple seen before, so that 10,000 viewers of one room hold one list of rooms."""
        if len(self._rooms) >= _SHARED_ROOMS:
            self._rooms.clear()
        return self._rooms.setdefault(entries, entries)

    def _guest(self) -> Grant:
        # 32**8 names: a second guest of the same name among 100,000 is a matter of 0.5 %, and harmless.
        name = "guest-" + "".join(self._rng.choices(_GUEST_ALPHABET, k=8))
        return Grant(name, name, Role.GUEST, _GUEST_ROOMS)


def _signature(signed: str, keyed: hmac.HMAC) -> bytes:
    """The signature of the first two parts of a token, as it stands in the third."""
    mac = keyed.copy()
    mac.update(signed.encode())
    return _to_url(mac.digest())


def _to_url(data: bytes) -> bytes:
    """Base64 for URLs, without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_FROM_STANDARD).rstrip(b"=")


def _signed_body(token: str, keyed: hmac.HMAC) -> Any:
    """The JSON inside a token that bears the one encoding of the one right signature, else None. In constant time."""
    signed, _, signature = token.rpartition(".")
    if not hmac.compare_digest(_signature(signed, keyed), signature.encode()):
        return None
    payload = signed.partition(".")[2]
    try:
        standard = payload.encode().translate(_TO_STANDARD) + b"=" * (-len(payload) % 4)
        return _parse_quickly(binascii.a2b_base64(standard, strict_mode=True))
    except (ValueError, RecursionError):
        return None


def parse_role(text: str) -> Role | None:
    """The role that tokens and the command line call ``text``, or None."""
    return _ROLES.get(text)


def parse_room_pattern(text: str) -> str | None:
    """``text`` if it is a room's name, the beginning of one with ``*`` at the end, or ``*``; else None."""
    return text if text and _is_room_pattern(text) else None


def _user_id(value: Any) -> str:
    if type(value) is not str or not 1 <= len(value) <= 64 or not value.isprintable() or value != value.strip():
        raise AuthError("user id is not 1 to 64 printable characters")
    return value


def _role(value: Any) -> Role:
    role = _ROLES.get(value) if type(value) is str else None
    if role is None:
        raise AuthError("role is not one of " + ", ".join(_ROLES))
    return role


def _room_grant(value: Any, default: Role) -> RoomGrant:
    """One entry of ``rooms``. Unknown keys are refused: a misspelt ``allow`` would grant more than was meant."""
    if type(value) is not dict or not value.keys() <= _ENTRY_KEYS:
        raise AuthError("an entry of rooms is not {pattern, role, allow}")
    pattern = value.get("pattern")
    if type(pattern) is not str or parse_room_pattern(pattern) is None:
        raise AuthError("pattern of a room is not a room's name, or the beginning of one and *")
    role = _role(value["role"]) if "role" in value else default
    if "allow" not in value:
        return _new(RoomGrant, (pattern, role, None))
    allow = value["allow"]
    if type(allow) is not list or len(allow) > MAX_ALLOW:
        raise AuthError(f"allow is not a list of up to {MAX_ALLOW} names of types")
    if not all(type(name) is str and _TYPE_NAME.fullmatch(name) for name in allow):
        raise AuthError("allow holds what is not the name of a type")
    return RoomGrant(pattern, role, frozenset(allow))


def _entry_claim(entry: RoomGrant) -> dict[str, Any]:
    claim: dict[str, Any] = {"pattern": entry.pattern, "role": entry.role.name.lower()}
    if entry.allow is not None:
        claim["allow"] = sorted(entry.allow)
    return claim


def _seconds(claims: Mapping[str, Any], claim: str) -> int:
    """A NumericDate of RFC 7519. NaN and the infinities, which Python's JSON reads, are outside of every range."""
    value = claims[claim]
    if type(value) not in (int, float) or not 0 < value <= _LATEST_S:
        raise AuthError(f"{claim} is not a time in Unix seconds")
    return int(value)


def _development_grant(token: str) -> Grant:
    user, _, role_name = token.removeprefix(DEV_PREFIX).partition(":")
    user_id, role = _user_id(user), _role(role_name or "viewer")
    return Grant(user_id, user_id, role, (RoomGrant("*", role),))
