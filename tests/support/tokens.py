"""Tokens made without the library with which the broker verifies them."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

SECRET = "0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000.0


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(header: Any, claims: Any, secret: str = SECRET, digest: str = "sha256") -> str:
    """Return a token made without the library under test; bytes and str are used unchanged."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signed = ".".join(map(b64, parts))
    return f"{signed}.{b64(hmac.digest(secret.encode(), signed.encode(), digest))}"


HS256 = {"alg": "HS256", "typ": "JWT"}
GOOD: dict[str, Any] = {"sub": "u1", "aud": "roomcast", "exp": int(NOW) + 600, "rooms": [{"pattern": "*"}]}
