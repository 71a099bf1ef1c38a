"""Beacon of a lottery: rounds of a drand chain, whose values nobody knows before their time.

The signature of a round is checked with ``py_ecc``, where it is installed (``pip install 'roomcast[lottery]'``). That
takes about a second of one core: call `check_signature` in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from ..primitives import digest, pack_u64

__all__ = ["KNOWN_CHAINS", "QUICKNET", "DrandChain", "beacon_value", "check_signature"]


class DrandChain(NamedTuple):
    """A chain of scheme ``bls-unchained-g1-rfc9380``. ``public_key``: a point of G2, compressed, in hexadecimal."""

    genesis_s: int
    period_s: int
    public_key: str

    def time_ms(self, round: int) -> int:
        """Return when a round is published, Unix ms; rounds count from 1."""
        return 1000 * (self.genesis_s + self.period_s * (round - 1))


QUICKNET = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
KNOWN_CHAINS: Mapping[str, DrandChain] = {
    QUICKNET: DrandChain(
        1_692_803_367,
        3,
        "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
        "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a",
    )
}
"""Chains by hash. Rounds of others have no time, and their signatures are not checked."""

_DST = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
_G1_BYTES = 48


def beacon_value(signature: bytes) -> bytes:
    """Return the value of the round with this signature, 32 bytes."""
    return digest(signature)


def check_signature(chain: str, round: int, signature: bytes) -> bool | None:
    """Return whether ``signature`` is that of a round; None: the chain is unknown, or ``py_ecc`` is not installed."""
    known = KNOWN_CHAINS.get(chain)
    if known is None:
        return None
    try:
        from py_ecc.bls.g2_primitives import subgroup_check
        from py_ecc.bls.hash_to_curve import hash_to_G1
        from py_ecc.bls.point_compression import decompress_G1, decompress_G2
        from py_ecc.optimized_bls12_381 import FQ12, G2, final_exponentiate, neg, pairing
    except ImportError:
        return None
    if len(signature) != _G1_BYTES:
        return False
    try:
        point = decompress_G1(int.from_bytes(signature, "big"))
    except ValueError:
        return False
    if not subgroup_check(point):
        return False
    public = bytes.fromhex(known.public_key)
    key = decompress_G2((int.from_bytes(public[:_G1_BYTES], "big"), int.from_bytes(public[_G1_BYTES:], "big")))
    message = hash_to_G1(digest(pack_u64(round)), _DST, sha256)
    # e(signature, G2) = e(message, key), with one final exponentiation for both sides
    product = pairing(G2, point, final_exponentiate=False) * pairing(neg(key), message, final_exponentiate=False)
    return bool(final_exponentiate(product) == FQ12.one())
