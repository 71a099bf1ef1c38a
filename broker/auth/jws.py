"""Signatures of JSON Web Tokens with HS256, RS256, ES256 and EdDSA: PyJWT, and a fast path that is proved against it.

A key has one algorithm, which no token changes: a public key is never the secret of an HMAC, and ``none`` has no key.
PyJWT takes 60 us to verify an HS256 token, the fast path 6; after a restart every viewer authenticates at once. (With a
public key the fast path takes 50 us for RS256, 140 for ES256, 190 for EdDSA, nearly all of it for the signature.)
The fast path accepts only the one canonical encoding of the right signature; whatever it does not accept goes to PyJWT,
which alone refuses and gives the reason. This is the only module that imports PyJWT. Neither a token nor a key appears
in an error.
"""

from __future__ import annotations

import binascii
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any

import jwt
import msgspec

__all__ = [
    "BadSignature",
    "BadToken",
    "Hs256Key",
    "PublicKey",
    "TokenKey",
    "header_of",
    "is_key_id",
    "key_of_jwk",
    "unverified_claim",
]

_HEADERS = frozenset({"alg", "typ", "kid"})
"""All that a header may hold: ``crit``, ``jku``, ``jwk``, ``x5u``, ``b64``, ``zip`` ask for what is not done here."""
_is_key_id = re.compile(r"(?!.*\.\.)[A-Za-z0-9._=+/:@-]{1,128}").fullmatch
_TO_STANDARD = bytes.maketrans(b"-_+/", b"+/--")
"""Base64 of URLs to the standard alphabet; characters of the standard alphabet alone become errors."""
_FROM_STANDARD = bytes.maketrans(b"+/", b"-_")
_JWS, _JWS_ALL = jwt.PyJWS(algorithms=["HS256"]), jwt.PyJWS()
_ALGORITHMS = {name: _JWS_ALL.get_algorithm_by_name(name) for name in ("RS256", "ES256", "EdDSA")}
_write_json = msgspec.json.Encoder().encode
_parse_strict = json.JSONDecoder().decode
_parse_fast = msgspec.json.Decoder().decode
"""Three times faster than `_parse_strict`. What it accepts it reads the same; it refuses lone surrogates, NaN and
numbers out of range, which Python's parser reads."""


class BadToken(Exception):
    """The token is not valid. ``str()`` gives the reason for the log, without bytes of the token."""


class BadSignature(BadToken):
    """The signature is not that of the key."""


def is_key_id(value: object) -> bool:
    """Return whether ``value`` may be the id of a key: 1 to 128 letters, digits and ``. _ = + / : @ -``, no ``..``."""
    return type(value) is str and _is_key_id(value) is not None


def header_of(token: str) -> tuple[str, str | None]:
    """Return algorithm and key id of a token, before its signature is verified. BadToken for a wrong header."""
    try:
        header = _JWS.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        # The message may quote the token, its class does not.
        raise BadToken(f"token is not valid: {type(error).__name__}") from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    if type(algorithm) is not str:
        raise BadToken("header alg is not text")
    if not header.keys() <= _HEADERS:
        raise BadToken("header asks for more than alg, typ and kid")
    if str(header.get("typ", "JWT")).upper() != "JWT":
        raise BadToken("header typ is not JWT")
    if "kid" in header and not is_key_id(key_id):
        raise BadToken("header kid is not a plain name")
    return algorithm, key_id


def unverified_claim(token: str, claim: str) -> Any:
    """Return a claim of a token whose signature is not verified yet; None where there is none. Any: any JSON."""
    try:
        claims = _parse_fast(_from_url(token.split(".")[1]))
    except (ValueError, IndexError, RecursionError):
        return None
    return claims.get(claim) if type(claims) is dict else None


def key_of_jwk(jwk: dict[str, Any], algorithm: str) -> Any:
    """Return the public key of a JWK for `PublicKey`; None if it is none of ``algorithm``."""
    try:
        return jwt.PyJWK.from_dict(jwk, algorithm).key
    except Exception:  # of several types, some of other libraries; its text quotes the key
        return None


class TokenKey:
    """A key that verifies tokens of one algorithm. ``key_id``: the kid that it answers to; None: to any."""

    __slots__ = ("_key", "algorithm", "key_id")

    def __init__(self, algorithm: str, key: Any, key_id: str | None = None) -> None:
        # Any: bytes, or the public key of a library without a common type.
        self.algorithm = algorithm
        self.key_id = key_id
        self._key = key

    def fast_body(self, token: str) -> Any:
        """Return the JSON body of ``token`` if its signature is right and canonical, else None."""
        # Any: a body may be any JSON.
        signed, _, signature = token.rpartition(".")
        if not self._is_signature(signed, signature):
            return None
        payload = signed.partition(".")[2]
        try:
            return _parse_fast(_from_url(payload))
        except (ValueError, RecursionError):
            return None

    def fast_claims(self, token: str, audience: str, issuer: str | None) -> dict[str, Any] | None:
        """Return what `claims` returns for a plain good token, or None: then ask `claims`.

        Only for a token whose header `header_of` has accepted before, byte for byte.
        """
        claims = self.fast_body(token)
        if type(claims) is not dict or type(claims.get("sub")) is not str:
            return None
        if claims.get("aud") != audience or claims.get("exp") is None or claims.get("rooms") is None:
            return None
        if type(claims.get("jti", "")) is not str or (issuer is not None and claims.get("iss") != issuer):
            return None
        return claims

    def claims(self, token: str, audience: str, issuer: str | None) -> dict[str, Any]:
        """Return the claims of a token whose signature, audience and issuer are right; BadToken otherwise.

        Times are not checked: that is done with the broker's clock. The header is for `header_of`.
        """
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=[self.algorithm],
                audience=audience,
                issuer=issuer,
                options={
                    "require": ["exp", "sub", "aud", "rooms"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.MissingRequiredClaimError as error:
            raise BadToken(f"claim {error.claim} is missing") from None
        except jwt.InvalidAudienceError:
            raise BadToken("claim aud does not name this broker (auth.audience)") from None
        except jwt.InvalidIssuerError:
            raise BadToken("claim iss is not the issuer (auth.issuer)") from None
        except jwt.exceptions.InvalidSubjectError:
            raise BadToken("claim sub is not text") from None
        except jwt.InvalidSignatureError:
            raise BadSignature("the signature is not that of this broker's secret or keys") from None
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise BadToken(f"token is not valid: {type(error).__name__}") from None
        return claims

    def _is_signature(self, signed: str, signature: str) -> bool:
        """Return whether ``signature`` is the canonical text of a signature of ``signed``."""
        raise NotImplementedError


class Hs256Key(TokenKey):
    """A symmetric key that signs and verifies. ``key``: at least 32 bytes."""

    __slots__ = ("_hmac",)

    def __init__(self, key: bytes) -> None:
        super().__init__("HS256", key)
        self._hmac = hmac.new(key, digestmod="sha256")
        """Copied for each use: the blocks of the key are hashed once, not for every token."""

    def header(self, **fields: str) -> str:
        """Return the encoded header that `sign` writes, with its dot; ``fields``: such as ``typ``."""
        return _JWS.encode(b"{}", self._key, algorithm="HS256", headers=fields).partition(".")[0] + "."

    def sign(self, header: str, claims: Mapping[str, Any]) -> str:
        """Return a token of ``header`` (from `header`) and ``claims``: what PyJWT writes, in a third of its time."""
        signed = header + _to_url(_write_json(claims)).decode()
        return signed + "." + self._signature(signed).decode()

    def encode(self, claims: dict[str, Any]) -> str:
        """Return a JWT with PyJWT's own header."""
        return jwt.encode(claims, self._key, algorithm="HS256")

    def body(self, token: str) -> Any:
        """Return the JSON body of a signed token of any header; BadToken otherwise."""
        body = self.fast_body(token)
        if type(body) is dict:
            return body
        try:
            return _parse_strict(_JWS.decode(token, self._key, algorithms=["HS256"]).decode())
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise BadToken(type(error).__name__) from None

    def _is_signature(self, signed: str, signature: str) -> bool:
        """In constant time."""
        return hmac.compare_digest(self._signature(signed), signature.encode())

    def _signature(self, signed: str) -> bytes:
        """Return the signature of the first two parts of a token, as it stands in the third."""
        mac = self._hmac.copy()
        mac.update(signed.encode())
        return _to_url(mac.digest())


class PublicKey(TokenKey):
    """A public key of `broker.auth.keys`: ``algorithm`` RS256, ES256 or EdDSA."""

    __slots__ = ("_algorithm",)

    def __init__(self, algorithm: str, key: Any, key_id: str | None = None) -> None:
        super().__init__(algorithm, key, key_id)
        self._algorithm = _ALGORITHMS[algorithm]

    def _is_signature(self, signed: str, signature: str) -> bool:
        try:
            decoded = _from_url(signature)
        except ValueError:
            return False
        return _to_url(decoded) == signature.encode() and self._algorithm.verify(signed.encode(), self._key, decoded)


def _to_url(data: bytes) -> bytes:
    """Return base64 for URLs, without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_FROM_STANDARD).rstrip(b"=")


def _from_url(text: str) -> bytes:
    """Return the bytes of base64 for URLs without padding. ValueError for anything else."""
    standard = text.encode().translate(_TO_STANDARD) + b"=" * (-len(text) % 4)
    return binascii.a2b_base64(standard, strict_mode=True)
