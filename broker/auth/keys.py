"""Public keys of the platform, from PEM or a JSON Web Key Set (RFC 7517), and the choice of the key for a token.

A key brings its algorithm: RSA (2,048 bits or more) is RS256, P-256 is ES256, Ed25519 is EdDSA. A key of PEM has no id
and answers to every ``kid``; a JWK with an id answers to its own alone. Keys for another purpose (encryption, another
algorithm) are passed over. A private, symmetric, weak or broken key is refused by name: of a file the whole file, of a
URL the one key. Errors never contain a key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from broker.auth.api_keys import KeyFileError
from broker.auth.jws import BadSignature, BadToken, Hs256Key, PublicKey, TokenKey, header_of, is_key_id, key_of_jwk
from broker.config.files import FileError, read_text_of
from protocol.json_depth import parse_json

__all__ = ["MAX_KEYS", "KeyProblem", "Keyring", "KeysRead", "UnknownKey", "parse_public_keys", "read_public_keys"]

MAX_KEYS = 32
"""Keys of one file or URL."""
MAX_TRIED = 4
"""Keys that one token is tried with: each costs a signature."""
MAX_JWKS_DEPTH = 16
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MAX_HEADERS = 64
"""Encoded headers of good tokens that are remembered with their key: in practice one for each key."""

_PEM_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_CURVES = {"EC": "P-256", "OKP": "Ed25519"}
_ALGORITHM_OF = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}


class KeyProblem(KeyFileError):
    """A key, or a set of keys, cannot be used. ``str()`` says which and why, without a byte of it."""


class UnknownKey(BadToken):
    """The token names a key that is not in the set: a newer set may have it."""


class KeysRead(NamedTuple):
    """The usable keys of a text, and why others are not used."""

    keys: tuple[PublicKey, ...]
    refused: tuple[str, ...] = ()


def read_public_keys(name: str) -> tuple[PublicKey, ...]:
    """Return the keys of a file. KeyProblem if it cannot be read, or if any key in it is refused."""
    try:
        text = read_text_of(name)
    except FileError as error:
        raise KeyProblem(str(error)) from error
    read = parse_public_keys(text)
    if read.refused:
        raise KeyProblem(f"{name}: {read.refused[0]}")
    if not read.keys:
        raise KeyProblem(f"{name}: has no key for RS256, ES256 or EdDSA")
    return read.keys


def parse_public_keys(text: str) -> KeysRead:
    """Return the keys of PEM, a JSON Web Key Set or a single JWK; ``refused`` says what is wrong with each other."""
    try:
        parsed = _parse_jwks(text) if text.lstrip().startswith("{") else _parse_pem(text)
    except KeyProblem as problem:
        return KeysRead((), (str(problem),))
    if len(parsed) > MAX_KEYS:
        return KeysRead((), (f"has more than {MAX_KEYS} keys",))
    found: list[PublicKey] = []
    refused: list[str] = []
    for number, (kind, value) in enumerate(parsed, 1):
        try:
            key = _key_of_pem(kind, value) if kind else _key_of_jwk(value)
        except KeyProblem as problem:
            refused.append(f"key {number}{_called(value)}: {problem}")
        else:
            found += [key] if key is not None else []
    return KeysRead(tuple(found), tuple(refused))


def _called(value: Any) -> str:
    key_id = value.get("kid") if type(value) is dict else None
    return f" ({key_id})" if is_key_id(key_id) else ""


def _parse_pem(text: str) -> list[tuple[str, Any]]:
    blocks = [(match[1], match[0]) for match in _PEM_BLOCK.finditer(text)]
    if not blocks:
        raise KeyProblem("is neither PEM nor a JSON Web Key Set")
    return blocks


def _parse_jwks(text: str) -> list[tuple[str, Any]]:
    try:
        whole = parse_json(text, MAX_JWKS_DEPTH, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise KeyProblem(str(error) if isinstance(error, KeyProblem) else "is not JSON") from None
    keys = [whole] if type(whole) is dict and "kty" in whole else whole.get("keys") if type(whole) is dict else None
    if type(keys) is not list:
        raise KeyProblem("is not a JSON Web Key Set: an object with a list called keys")
    return [("", key) for key in keys]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise KeyProblem("has a member twice in one object")
    return found


def _key_of_pem(kind: str, block: str) -> PublicKey:
    if kind.endswith("PRIVATE KEY"):
        raise KeyProblem("is a private key; the broker needs the public one: openssl pkey -in FILE -pubout")
    if kind.endswith("CERTIFICATE"):
        raise KeyProblem("is a certificate; take its key: openssl x509 -in FILE -pubkey -noout")
    if kind not in ("PUBLIC KEY", "RSA PUBLIC KEY"):
        raise KeyProblem("is not a public key")
    try:
        key: Any = load_pem_public_key(block.encode())
    except Exception:  # of several types, some of other libraries; its text may quote the key
        raise KeyProblem("cannot be read as a public key") from None
    algorithm = _algorithm_of(key)
    if algorithm is None:
        raise KeyProblem("is none of RSA, P-256 and Ed25519")
    return PublicKey(algorithm, key)


def _key_of_jwk(jwk: Any) -> PublicKey | None:
    """Return the key of a JWK; None for one of another purpose."""
    if type(jwk) is not dict:
        raise KeyProblem("is not an object")
    kind = jwk.get("kty")
    if kind == "oct":
        raise KeyProblem("is a symmetric key (kty oct); a shared secret belongs into auth.secret_file")
    if "d" in jwk:
        raise KeyProblem("is a private key (member d); the broker needs the public members alone")
    if "kid" in jwk and not is_key_id(jwk["kid"]):
        raise KeyProblem("its kid is not 1 to 128 letters, digits and . _ = + / : @ -")
    if type(kind) is not str:
        raise KeyProblem("its kty is not text")
    algorithm, operations = _ALGORITHM_OF.get(kind), jwk.get("key_ops", ["verify"])
    if algorithm is None or jwk.get("crv") != _CURVES.get(kind) or jwk.get("alg", algorithm) != algorithm:
        return None
    if jwk.get("use", "sig") != "sig" or type(operations) is not list or "verify" not in operations:
        return None
    key = key_of_jwk(jwk, algorithm)
    if key is None or _algorithm_of(key) != algorithm:
        raise KeyProblem("cannot be read as a public key")
    return PublicKey(algorithm, key, jwk.get("kid"))


def _algorithm_of(key: Any) -> str | None:
    """Return the algorithm of a public key; None: there is none for it."""
    if isinstance(key, RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise KeyProblem(f"has {key.key_size} bits; an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS}")
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    return "EdDSA" if isinstance(key, Ed25519PublicKey) else None


class Keyring:
    """The keys with which tokens are verified. Immutable but for the headers it remembers."""

    __slots__ = ("_by_header", "_has_url", "_keys", "_public", "_secrets")

    def __init__(
        self,
        secrets: Sequence[bytes],
        public: Sequence[PublicKey] = (),
        of_url: Sequence[PublicKey] = (),
        *,
        has_url: bool = False,
    ) -> None:
        """``of_url``: the keys of a URL, which may have others later (``has_url``)."""
        self._secrets, self._public = secrets, public
        self._keys: tuple[TokenKey, ...] = (*map(Hs256Key, secrets), *public, *(of_url if has_url else ()))
        self._has_url = has_url
        self._by_header: dict[str, tuple[TokenKey, ...]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def with_url_keys(self, keys: Sequence[PublicKey]) -> Keyring:
        """Return the same with other keys of the URL."""
        return Keyring(self._secrets, self._public, keys, has_url=self._has_url)

    def claims(self, token: str, audience: str, issuer: str | None) -> dict[str, Any]:
        """Return the claims of a good token, but for its times. BadToken for any other, UnknownKey among them."""
        head = token.partition(".")[0]
        keys = self._by_header.get(head)
        if keys is not None:
            for key in keys:
                claims = key.fast_claims(token, audience, issuer)
                if claims is not None:
                    return claims
        else:
            keys = self._keys_for(*header_of(token))
        for key in keys:
            try:
                claims = key.claims(token, audience, issuer)
            except BadSignature:
                continue
            if len(self._by_header) < MAX_HEADERS:
                self._by_header[head] = keys
            return claims
        raise BadSignature("the signature is not that of this broker's secret or keys")

    def _keys_for(self, algorithm: str, key_id: str | None) -> tuple[TokenKey, ...]:
        """Return the keys to try: those with the id; without one in the token, or in the keys, all of the algorithm."""
        able = [key for key in self._keys if key.algorithm == algorithm]
        if key_id is not None:
            named = [key for key in able if key.key_id == key_id]
            able = named or [key for key in able if key.key_id is None]
        if not able:
            if self._has_url and algorithm in _ALGORITHM_OF.values():
                raise UnknownKey("header kid names no key of this broker")
            raise BadToken("header kid and alg name no key of this broker")
        if len(able) > MAX_TRIED:
            raise BadToken(f"header has no kid, and there are more than {MAX_TRIED} keys of its alg")
        return tuple(able)
