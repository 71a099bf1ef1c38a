"""Keys of backends: ``rk_<id>_<secret>``. The broker knows only their SHA-256, from a key file.

The file is TOML, private to its owner, with a table for each key::

    [[key]]
    id = "shop"
    sha256 = "..."                 # of the whole key, hexadecimal
    scopes = ["rooms:write", "messages:write"]
    rooms = ["live-*"]             # patterns, as in tokens; default all
    tenant = "acme"                # whose rooms and users it is for; "" or absent = the default tenant
    expires_at = 1790000000        # Unix seconds; 0 or absent = never
    note = "order service"

A key for HTTP Message Signatures (`broker.auth.signatures`) has ``hmac`` in place of ``sha256``: its secret in
base64url, which both sides must know. It is not taken as a Bearer key.

Two keys with the same rights make a rotation: the new one is added, the backend changes, the old one is removed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.auth.signatures import MAX_AGE_S, MAX_AHEAD_S, NonceTable, SignatureRefused, Signed
from broker.config.files import read_secret_text
from protocol.operations import Scope
from protocol.text import fits_room_pattern, is_room_pattern, is_tenant

__all__ = [
    "ApiKey",
    "ApiKeys",
    "KeyFileError",
    "KeyKnownError",
    "key_table",
    "keys_of",
    "new_key",
    "new_secret",
    "parse_keys",
    "secret_text",
    "without_key",
]

MAX_KEYS = 1000
MAX_PATTERNS = 64
_is_key = re.compile(r"rk_([a-z0-9][a-z0-9-]{0,31})_[A-Za-z0-9_-]{32,64}").fullmatch
_is_id = re.compile(r"[a-z0-9][a-z0-9-]{0,31}").fullmatch
_is_digest = re.compile(r"[0-9a-f]{64}").fullmatch
_key_header = re.compile(r"^[ \t]*\[\[[ \t]*key[ \t]*\]\]", re.MULTILINE)
_is_secret = re.compile(r"[A-Za-z0-9_-]{43,86}").fullmatch
_FIELDS = frozenset({"id", "sha256", "hmac", "scopes", "rooms", "expires_at", "note", "tenant"})


class KeyFileError(ValueError):
    """Error of a key file; the message names the key and the field."""


class KeyKnownError(KeyFileError):
    """Error of a key whose id is taken."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key. ``expires_at``: Unix seconds, 0 = never; ``rooms``: patterns, of rooms of its tenant; ``digest``: of a
    Bearer key; ``secret``: of a key for signatures."""

    id: str
    digest: bytes
    scopes: frozenset[Scope]
    rooms: tuple[str, ...] = ("*",)
    expires_at: int = 0
    note: str = ""
    tenant: str = ""
    secret: bytes = field(default=b"", repr=False)

    def grants(self, room: str) -> bool:
        """Return whether the key is for a room."""
        return any(fits_room_pattern(pattern, room) for pattern in self.rooms)


class ApiKeys:
    """The keys of one file. ``unix_s``: the trusted clock."""

    def __init__(self, keys: Mapping[str, ApiKey], unix_s: Callable[[], float]) -> None:
        self.keys = dict(keys)
        self._unix_s = unix_s

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def read(cls, path: Path, unix_s: Callable[[], float]) -> ApiKeys:
        """Read a key file. FileError, also where other users can read it; KeyFileError."""
        return cls(parse_keys(read_secret_text(path), str(path)), unix_s)

    def verify(self, key: str) -> tuple[ApiKey | None, str]:
        """Return the key that a backend presents; or None and why it is refused, for the log.

        The comparison takes the same time for every wrong secret of a known id.
        """
        found = _is_key(key)
        known = None if found is None else self.keys.get(found[1])
        digest = hashlib.sha256(key.encode(errors="replace")).digest()
        if not secrets.compare_digest(digest, bytes(32) if known is None else known.digest):
            return None, "no key" if not key else "not a key" if found is None else "unknown key"
        assert known is not None
        if known.expires_at and self._unix_s() >= known.expires_at:
            return None, f"key {known.id} has expired"
        return known, ""

    def holds(self, key: ApiKey) -> bool:
        """Return whether a key that was verified before is still known, has the same rights and has not expired."""
        return self.keys.get(key.id) == key and not (key.expires_at and self._unix_s() >= key.expires_at)

    def verify_signature(self, signed: Signed, nonces: NonceTable) -> ApiKey:
        """Return the key that has signed a request, whose nonce is used from now on. SignatureRefused otherwise."""
        known, now = self.keys.get(signed.key_id), self._unix_s()
        is_made = signed.is_made_with(bytes(32) if known is None else known.secret or bytes(32))
        if known is None or not known.secret or not is_made:
            raise SignatureRefused("unknown key, or a signature of another secret or request")
        if known.expires_at and now >= known.expires_at:
            raise SignatureRefused(f"key {known.id} has expired")
        age_s = now - signed.created
        if not -MAX_AHEAD_S <= age_s <= MAX_AGE_S or (signed.expires and signed.expires <= now):
            raise SignatureRefused(f"created {age_s:.0f} s before the broker's clock, or expired")
        nonces.use(known.id, signed.nonce, signed.created, now)
        return known


def new_secret() -> bytes:
    """Return the secret of a new key for signatures."""
    return secrets.token_bytes(32)


def new_key(id: str) -> tuple[str, str]:
    """Return a new key called ``id`` and its SHA-256 in hexadecimal. KeyFileError for an id that is none."""
    if _is_id(id) is None:
        raise KeyFileError(f"id {id!r} is not 1 to 32 lower-case letters, digits and -")
    key = f"rk_{id}_{secrets.token_urlsafe(24)}"
    return key, hashlib.sha256(key.encode()).hexdigest()


def secret_text(secret: bytes) -> str:
    """Return the secret of a signing key as text: base64url without padding."""
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")


def key_table(key: ApiKey) -> str:
    """Return the table of a key as TOML, with an empty line before it."""
    is_for = f'hmac = "{secret_text(key.secret)}"' if key.secret else f'sha256 = "{key.digest.hex()}"'
    lines = ["", "[[key]]", f'id = "{key.id}"', is_for]
    lines.append("scopes = [" + ", ".join(f'"{scope}"' for scope in sorted(key.scopes)) + "]")
    lines.append(f"rooms = {json.dumps(key.rooms, ensure_ascii=False)}")  # text of JSON is text of TOML
    if key.tenant:
        lines.append(f'tenant = "{key.tenant}"')
    if key.expires_at:
        lines.append(f"expires_at = {key.expires_at}")
    if key.note:
        lines.append(f"note = {json.dumps(key.note, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def parse_keys(text: str, where: str) -> dict[str, ApiKey]:
    """Return the keys of a key file by id. KeyFileError names the first that is wrong."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise KeyFileError(f"{where}: {error}") from None
    tables = document.pop("key", [])
    if document or not isinstance(tables, list):
        raise KeyFileError(f"{where}: has only tables [[key]]")
    if len(tables) > MAX_KEYS:
        raise KeyFileError(f"{where}: has more than {MAX_KEYS} keys")
    found: dict[str, ApiKey] = {}
    for number, table in enumerate(tables, 1):
        key = _parse_key(table, f"{where}: key {number}")
        if key.id in found:
            raise KeyFileError(f"{where}: key {number}: id {key.id} is there twice")
        found[key.id] = key
    return found


def without_key(text: str, id: str, where: str) -> str:
    """Return the text of a key file without the table of one key. KeyFileError if it has none, or is wrong."""
    known = parse_keys(text, where)
    if id not in known:
        raise KeyFileError(f"{where}: has no key {id}; it has {', '.join(sorted(known)) or 'none'}")
    # Between two headers are one table and the comments above the next: those stay.
    left, *tables = _key_header.split(text)
    for table, each in zip(tables, known, strict=True):
        left += f"[[key]]{table}" if each != id else _comments_after(table)
    assert parse_keys(left, where) == {each: key for each, key in known.items() if each != id}
    return left


def _comments_after(table: str) -> str:
    """Return the empty lines and comments at the end of a table."""
    lines = table.splitlines(keepends=True)
    end = len(lines)
    while end > 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return "".join(lines[end:])


def _parse_key(table: Any, where: str) -> ApiKey:
    # Any: what TOML holds.
    def require(holds: object, rule: str) -> None:
        if not holds:
            raise KeyFileError(f"{where}: {rule}")

    require(isinstance(table, dict), "is no table")
    unknown = sorted(set(table) - _FIELDS)
    require(not unknown, f"unknown field {', '.join(unknown)}")
    id, digest, scopes = table.get("id"), table.get("sha256"), table.get("scopes")
    require(isinstance(id, str) and _is_id(id), "id must be 1 to 32 lower-case letters, digits and -")
    hmac_text = table.get("hmac")
    require((digest is None) is not (hmac_text is None), "needs either sha256 or hmac")
    if hmac_text is None:
        require(isinstance(digest, str) and _is_digest(digest), "sha256 must be 64 hexadecimal digits in lower case")
        secret = b""
    else:
        require(isinstance(hmac_text, str) and _is_secret(hmac_text), "hmac must be 32 to 64 bytes in base64url")
        secret = base64.urlsafe_b64decode(hmac_text + "=" * (-len(hmac_text) % 4))
    names = {scope.value for scope in Scope}
    require(isinstance(scopes, list) and scopes, "scopes must be a list of at least one scope")
    wrong = [each for each in scopes if each not in names]
    require(not wrong, f"scopes: {wrong[:1]} is not one of {', '.join(sorted(names))}")
    rooms = table.get("rooms", ["*"])
    require(isinstance(rooms, list) and len(rooms) <= MAX_PATTERNS, f"rooms must be a list of up to {MAX_PATTERNS}")
    require(all(isinstance(each, str) and is_room_pattern(each) for each in rooms), "rooms must hold patterns of rooms")
    note, expires_at = table.get("note", ""), table.get("expires_at", 0)
    require(isinstance(note, str) and len(note) <= 128 and note.isprintable(), "note must be up to 128 characters")
    require(type(expires_at) is int and 0 <= expires_at < 2**40, "expires_at must be Unix seconds")
    tenant = table.get("tenant", "")
    require(
        isinstance(tenant, str) and (not tenant or is_tenant(tenant)), "tenant must be 1 to 32 of a-z, 0-9, _ and -"
    )
    made = b"" if secret else bytes.fromhex(digest)
    return ApiKey(id, made, frozenset(map(Scope, scopes)), tuple(rooms), expires_at, note, tenant, secret)


def keys_of(keys: ApiKeys | None) -> Mapping[str, ApiKey]:
    """Return all keys by id; None: there are none."""
    return {} if keys is None else keys.keys
