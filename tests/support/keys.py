"""Key pairs of a platform, and tokens signed with them, made by the library `cryptography` alone."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support.tokens import GOOD, b64

__all__ = ["ALGORITHMS", "b64_number", "jwk", "jwks", "key_pair", "pem", "private_pem", "signed"]

ALGORITHMS = ("RS256", "ES256", "EdDSA")


def key_pair(algorithm: str, name: str = "") -> Any:
    """The private key called ``name``: the same one each time."""
    return _made(algorithm, name)


@cache
def _made(algorithm: str, _name: str) -> Any:
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def signed(algorithm: str, claims: Any = GOOD, key: Any = None, **header: Any) -> str:
    """A token; ``header`` changes its header."""
    key = key or key_pair(algorithm)
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in ({"alg": algorithm} | header, claims)
    ]
    text = ".".join(map(b64, parts))
    if algorithm == "RS256":
        signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    elif algorithm == "ES256":
        r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    else:
        signature = key.sign(text.encode())
    return f"{text}.{b64(signature)}"


def b64_number(number: int, length: int = 0) -> str:
    """A number as JWKs have it."""
    return b64(number.to_bytes(length or (number.bit_length() + 7) // 8, "big"))


def jwk(algorithm: str, name: str = "", **members: Any) -> dict[str, Any]:
    """The public key called ``name`` as a JWK; ``members`` are added."""
    public = key_pair(algorithm, name).public_key()
    if algorithm == "RS256":
        numbers = public.public_numbers()
        found = {"kty": "RSA", "n": b64_number(numbers.n), "e": b64_number(numbers.e)}
    elif algorithm == "ES256":
        numbers = public.public_numbers()
        found = {"kty": "EC", "crv": "P-256", "x": b64_number(numbers.x, 32), "y": b64_number(numbers.y, 32)}
    else:
        found = {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes(Encoding.Raw, PublicFormat.Raw))}
    return found | members


def jwks(*keys: Any) -> str:
    """A JSON Web Key Set of these keys."""
    return json.dumps({"keys": list(keys)})


def pem(key: Any) -> str:
    """The public key of a private one as PEM."""
    text: str = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return text


def private_pem(key: Any) -> str:
    """A private key as PEM."""
    text: str = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return text
