"""Grants: the rooms and roles that verified claims give to a user. The rules for each claim stand here.

Claims of a token::

    sub    user id, 1 to 64 printable characters                          required
    rooms  [{"pattern": "live-*", "role": "host", "allow": ["danmaku"]}]  required; [] = no room
    role   role in rooms whose entry names none (default "viewer")
    name   what others see, up to 64 characters (default: the user id)
    jti    id of the token, up to 128 characters: by it the platform revokes this token alone
    tags   of the user, up to 16 names: in rooms that know them, what is for a part of the room
    account_created  when the account was made, in Unix seconds: a condition of some activities
    tenant whose user this is: 1 to 32 of a-z 0-9 _ - (default "", the only tenant of most brokers)

``rooms`` is required, so that a forgotten or misspelt claim grants nothing. The first entry whose pattern matches the
room counts: a name, a prefix with ``*`` at its end, or ``*``. ``allow`` narrows the types that may be posted there; it
never widens what the role may do.
"""

from __future__ import annotations

import hmac
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from broker.core.tenants.names import plain_name, qualify, split_name
from protocol.activities.audiences import MAX_TAGS, tag_name
from protocol.codes import Role
from protocol.fields import FieldError, array_of, text
from protocol.operations.tokens import MAX_TOKEN_ID_CHARS
from protocol.text import fits_room_pattern, is_blank, is_display_name, is_room_pattern, is_tenant, is_user_id

__all__ = [
    "DEV_PREFIX",
    "GUEST_PREFIX",
    "MAX_ROOMS_PER_TOKEN",
    "AuthError",
    "Grant",
    "GrantReader",
    "KeysPending",
    "RoomGrant",
    "TokenRevoked",
    "development_grant",
    "entry_claim",
    "guest_grant",
    "parse_role",
    "returning_guest_grant",
    "seconds_claim",
]

MAX_ROOMS_PER_TOKEN = 64
MAX_ALLOW = 32
DEV_PREFIX = "dev:"
GUEST_PREFIX = "guest:"

_MAX_SHARED = 1024
"""Room lists, and lifetimes, kept for sharing: tokens of one room are mostly alike. A full table starts anew."""
_LATEST_S = 253_402_300_799
"""Last second of the year 9999; a time beyond it is an error of units, such as milliseconds."""
_ENTRY_KEYS = frozenset({"pattern", "role", "allow"})
_ROLES = {role.name.lower(): role for role in Role}
_TYPE_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_is_guest_key = re.compile(r"[A-Za-z0-9_-]{22,64}").fullmatch
"""At least 128 random bits in base64 for URLs."""
_GUEST_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_read_token_id = text(0, MAX_TOKEN_ID_CHARS)
_read_tags = array_of(tag_name, MAX_TAGS)
_new = tuple.__new__
V = TypeVar("V")


class AuthError(Exception):
    """Authentication failed. ``str()`` is the same public text for every reason; ``detail`` is the reason, for the log.

    ``detail`` never holds bytes of the peer.
    """

    def __init__(self, detail: str) -> None:
        super().__init__("authentication failed")
        self.detail = detail


class KeysPending(AuthError):
    """The token names a key that the broker does not have yet, and a newer set of keys is being fetched."""


class TokenRevoked(AuthError):
    """The token is good, but for the platform that has revoked it."""


class RoomGrant(NamedTuple):
    """Role of a user in the rooms that ``pattern`` matches. ``allow`` None: every type that the role may post."""

    pattern: str
    role: Role
    allow: frozenset[str] | None = None

    def fits(self, room_name: str) -> bool:
        """Return whether ``room_name`` matches the pattern."""
        return fits_room_pattern(self.pattern, room_name)


@dataclass(slots=True)
class Grant:
    """What a verified token grants. Shared by all connections with the same token, and therefore never changed.

    (A dataclass that Python itself freezes takes four times as long to make.)

    ``user_id``: qualified by the tenant, see `broker.core.tenants.names`; patterns of ``rooms`` are plain names of that
    tenant. ``expires_at``: Unix seconds, 0 = never; a connection may outlive it by the leeway
    (`Authenticator.seconds_left`).
    """

    user_id: str
    name: str
    role: Role
    rooms: tuple[RoomGrant, ...]
    expires_at: int = 0
    tenant: str = ""
    lifetime_s: int | None = None
    """Seconds from its issue to its end; None = the token does not say. Most of a platform's tokens have the same,
    and share the number."""
    account_created: int = 0
    """Unix seconds; 0 = the token does not say."""
    jti: str = ""
    """Id of the token, "" = it has none. For revocations alone."""
    tags: tuple[str, ...] = ()
    """Tags of the user, for the audiences of rooms."""

    @property
    def issued_at(self) -> int:
        """Unix seconds; 0 = the token does not say. For revocations alone."""
        return 0 if self.lifetime_s is None else self.expires_at - self.lifetime_s

    @property
    def plain_id(self) -> str:
        """The user id as its tenant knows it: for frames, tokens and members of a room."""
        return plain_name(self.user_id)

    @property
    def is_app(self) -> bool:
        """Whether this is the platform's own backend, in some room at least."""
        if self.role is Role.APP:
            return True
        for entry in self.rooms:
            if entry.role is Role.APP:
                return True
        return False

    def room_grant(self, room_name: str) -> RoomGrant | None:
        """Return the first entry that matches the room with the qualified name ``room_name``; None = not granted.

        O(entries): asked at JOIN only.
        """
        tenant, name = split_name(room_name)
        return self.grant_of(name) if tenant == self.tenant else None

    def grant_of(self, name: str) -> RoomGrant | None:
        """Return the first entry that matches the room that its own tenant calls ``name``; None = not granted."""
        for entry in self.rooms:
            if entry.fits(name):
                return entry
        return None


class GrantReader:
    """Reads grants from verified claims; equal lists of rooms are shared between grants."""

    __slots__ = ("_lifetimes", "_rooms")

    def __init__(self) -> None:
        self._rooms: dict[tuple[RoomGrant, ...], tuple[RoomGrant, ...]] = {}
        self._lifetimes: dict[int, int] = {}

    def __len__(self) -> int:
        """Return how many lists of rooms are kept for sharing."""
        return len(self._rooms)

    def read(self, claims: Mapping[str, Any]) -> Grant:
        """Return the grant that ``claims`` describe. Every claim is checked; AuthError names the first that is
        wrong."""
        user_id = _user_id(claims["sub"], "claim sub")
        name = claims.get("name", "")
        if type(name) is not str or not is_display_name(name):
            raise AuthError("claim name is not up to 64 characters without controls")
        role = _role(claims.get("role", "viewer"), "claim role")
        rooms = claims["rooms"]
        if type(rooms) is not list or len(rooms) > MAX_ROOMS_PER_TOKEN:
            raise AuthError(f"claim rooms is not a list of up to {MAX_ROOMS_PER_TOKEN} entries")
        entries = tuple([_room_grant(entry, role) for entry in rooms])
        expires_at = seconds_claim(claims, "exp")
        tenant = _tenant(claims.get("tenant", ""))
        if is_blank(name):
            name = user_id
        lifetime_s = expires_at - seconds_claim(claims, "iat") if "iat" in claims else None
        created = seconds_claim(claims, "account_created") if "account_created" in claims else 0
        jti = _token_id(claims["jti"]) if "jti" in claims else ""
        shared = _shared(self._rooms, entries)
        if lifetime_s is not None:
            lifetime_s = _shared(self._lifetimes, lifetime_s)
        tags = _tags(claims["tags"]) if "tags" in claims else ()
        return Grant(qualify(tenant, user_id), name, role, shared, expires_at, tenant, lifetime_s, created, jti, tags)


def _shared(seen: dict[V, V], value: V) -> V:
    """Return an equal value seen before, so that 10,000 viewers of one room hold one list of rooms."""
    if len(seen) >= _MAX_SHARED:
        seen.clear()
    return seen.setdefault(value, value)


def parse_role(text: str) -> Role | None:
    """Return the role that tokens and the command line call ``text``, or None."""
    return _ROLES.get(text)


def _user_id(value: Any, name: str) -> str:
    if type(value) is not str or not is_user_id(value):
        raise AuthError(f"{name} is not a user id: 1 to 64 printable characters, no outer white space")
    return value


def _tenant(value: Any) -> str:
    if type(value) is not str or not (value == "" or is_tenant(value)):
        raise AuthError("claim tenant is not 1 to 32 of a-z, 0-9, _ and -")
    return value


def _token_id(value: Any) -> str:
    try:
        found: str = _read_token_id(value)
    except FieldError:
        raise AuthError("claim jti is not text of up to 128 characters without controls") from None
    return found


def _tags(value: Any) -> tuple[str, ...]:
    try:
        found: tuple[str, ...] = _read_tags(value)
    except FieldError:
        raise AuthError(f"claim tags is not a list of up to {MAX_TAGS} names of up to 64 characters") from None
    return found


def _role(value: Any, name: str) -> Role:
    role = _ROLES.get(value) if type(value) is str else None
    if role is None:
        raise AuthError(f"{name} is not one of " + ", ".join(_ROLES))
    return role


def _room_grant(value: Any, default: Role) -> RoomGrant:
    """Return one entry of ``rooms``. Unknown keys are refused: a misspelt ``allow`` would grant more than was meant."""
    if type(value) is not dict or not value.keys() <= _ENTRY_KEYS:
        raise AuthError("an entry of claim rooms is not {pattern, role, allow}")
    pattern = value.get("pattern")
    if type(pattern) is not str or not is_room_pattern(pattern):
        raise AuthError("a pattern of claim rooms is not a room's name, or the beginning of one and *")
    role = _role(value["role"], "a role of claim rooms") if "role" in value else default
    if "allow" not in value:
        return _new(RoomGrant, (pattern, role, None))
    allow = value["allow"]
    if type(allow) is not list or len(allow) > MAX_ALLOW:
        raise AuthError(f"an allow of claim rooms is not a list of up to {MAX_ALLOW} names of types")
    if not all(type(name) is str and _TYPE_NAME.fullmatch(name) for name in allow):
        raise AuthError("an allow of claim rooms holds what is not the name of a type")
    return RoomGrant(pattern, role, frozenset(allow))


def entry_claim(entry: RoomGrant) -> dict[str, Any]:
    """Return the claim that `GrantReader` reads as ``entry``."""
    claim: dict[str, Any] = {"pattern": entry.pattern, "role": entry.role.name.lower()}
    if entry.allow is not None:
        claim["allow"] = sorted(entry.allow)
    return claim


def seconds_claim(claims: Mapping[str, Any], claim: str) -> int:
    """Return a NumericDate of RFC 7519 as Unix seconds. NaN and infinity, which Python's JSON reads, are refused."""
    value = claims[claim]
    if type(value) not in (int, float) or not 0 < value <= _LATEST_S:
        raise AuthError(f"claim {claim} is not a time in Unix seconds")
    return int(value)


def development_grant(token: str) -> Grant:
    """Return the grant of ``dev:USER`` or ``dev:USER:ROLE``; AuthError for a wrong name or role."""
    user, _, role_name = token.removeprefix(DEV_PREFIX).partition(":")
    user_id, role = _user_id(user, "user"), _role(role_name or "viewer", "role")
    return Grant(user_id, user_id, role, (RoomGrant("*", role),))


def guest_grant(rng: random.Random, rooms: tuple[RoomGrant, ...]) -> Grant:
    """Return the grant of a new guest in ``rooms``. 32**8 names: two equal ones among 100,000 guests have a chance of
    0.5 %."""
    name = "guest-" + "".join(rng.choices(_GUEST_ALPHABET, k=8))
    return Grant(name, name, Role.GUEST, rooms)


def returning_guest_grant(token: str, secret: bytes, rooms: tuple[RoomGrant, ...]) -> Grant:
    """Return the grant of the guest that keeps a key of its own, ``guest:KEY``, in ``rooms``.

    The same key and ``secret`` give the same id. The id does not give the key away, so whoever reads the id cannot
    take the guest's place. AuthError for a key that is not 22 to 64 letters, digits, ``-`` and ``_``.
    """
    key = token.removeprefix(GUEST_PREFIX)
    if _is_guest_key(key) is None:
        raise AuthError("guest key is not 22 to 64 letters, digits, - and _")
    digest = hmac.digest(secret, b"guest\0" + key.encode(), "sha256")
    name = "guest-" + "".join(_GUEST_ALPHABET[byte & 31] for byte in digest[:12])
    return Grant(name, name, Role.GUEST, rooms)
