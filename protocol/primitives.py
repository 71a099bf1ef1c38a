"""Integer algorithms of the activities, fixed byte for byte: encodings, keyed streams of numbers, shuffles, shares.

What an activity draws, orders or divides follows from a seed and these functions alone, so a fold, another program or
an auditor computes the same. Nothing here uses a float.

Texts are ordered by their UTF-8 bytes. That is the order of code points, in which Python compares ``str``: use
``sorted`` and ``<`` as they are. JavaScript compares UTF-16 units, which differs from U+E000 on.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, MutableSequence, Sequence
from hashlib import sha256
from struct import Struct
from typing import Any

__all__ = [
    "MAX_BELOW",
    "SEED_BYTES",
    "DrawStream",
    "digest",
    "is_ratio_less",
    "label",
    "mac",
    "pack_text",
    "pack_u32",
    "pack_u64",
    "per_mille",
    "seed_hash",
    "shuffle",
    "shuffling",
]

SEED_BYTES = 32
"""Bytes of a seed."""
MAX_BELOW = 2**53
"""Largest bound of `DrawStream.below`: every number drawn is exact in a JavaScript program too."""
_as_words = Struct(">4Q").unpack


def pack_u32(number: int) -> bytes:
    """Return ``number`` (0..2^32 - 1) as 4 bytes, big endian; raise OverflowError for others."""
    return number.to_bytes(4, "big")


def pack_u64(number: int) -> bytes:
    """Return ``number`` (0..2^64 - 1) as 8 bytes, big endian; raise OverflowError for others."""
    return number.to_bytes(8, "big")


def pack_text(text: str) -> bytes:
    """Return ``text`` as the u32 count of its UTF-8 bytes and these bytes; it is not normalized.

    A sequence of packed texts can be read in one way only, so two different ones never hash the same input.
    """
    encoded = text.encode()
    return pack_u32(len(encoded)) + encoded


def label(name: str) -> bytes:
    """Return the prefix that separates one use of a key from another: the ASCII ``name`` and a zero byte."""
    return name.encode("ascii") + b"\0"


def digest(data: bytes) -> bytes:
    """Return the SHA-256 of ``data``, 32 bytes."""
    return sha256(data).digest()


def mac(key: bytes, message: bytes) -> bytes:
    """Return the HMAC-SHA256 of ``message``, 32 bytes."""
    return hmac.digest(key, message, "sha256")


def seed_hash(seed: bytes) -> bytes:
    """Return the public commitment to ``seed``, 32 bytes; the seed itself becomes public at the end."""
    return digest(pack_text("roomcast/seed/1") + seed)


class DrawStream:
    """Numbers that follow from a key and a name: 64-bit words of HMAC blocks, read in order.

    Block ``i`` is ``mac(key, name + 00 + u64(i))``, four big-endian words. The rest of a block serves the next call.
    """

    __slots__ = ("_key", "_next_block", "_prefix", "_words")

    def __init__(self, key: bytes, name: str) -> None:
        self._key = key
        self._prefix = name.encode() + b"\0"
        self._next_block = 0
        self._words: list[int] = []
        """What is left of the block, the next word last."""

    def below(self, bound: int) -> int:
        """Return a number from 0 to ``bound`` - 1, each equally likely; ``bound`` is 1..MAX_BELOW, else ValueError.

        It takes the top bits of words until their number is below ``bound`` (a modulo would be biased). The bound 1
        reads nothing.
        """
        if not 1 <= bound <= MAX_BELOW:
            raise ValueError(f"the bound is 1..2^53, not {bound}")
        if bound == 1:
            return 0
        shift = 64 - (bound - 1).bit_length()
        while True:
            if not self._words:
                self._words.extend(_as_words(mac(self._key, self._prefix + pack_u64(self._next_block)))[::-1])
                self._next_block += 1
            number = self._words.pop() >> shift
            if number < bound:
                return number


def shuffle(items: MutableSequence[Any], stream: DrawStream) -> None:
    """Put ``items`` (Any: of any type) in an order drawn from ``stream``, each equally likely, in place."""
    for _ in shuffling(items, stream, len(items)):
        pass


def shuffling(items: MutableSequence[Any], stream: DrawStream, slice: int) -> Iterator[None]:
    """Do the same as `shuffle`, in slices: it yields after ``slice`` numbers."""
    for last in range(len(items) - 1, 0, -1):
        other = stream.below(last + 1)
        items[last], items[other] = items[other], items[last]
        if not last % slice:
            yield


def per_mille(counts: Sequence[int]) -> list[int]:
    """Return the shares of ``counts`` (0 or more each) as thousandths whose sum is 1000; all 0 where the sum is 0.

    Each share is rounded down, then the missing thousandths go to the largest remainders, of equal ones to the first.
    """
    total = sum(counts)
    if total == 0:
        return [0] * len(counts)
    shares = [1000 * count // total for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda index: (-(1000 * counts[index] % total), index))
    for index in by_remainder[: 1000 - sum(shares)]:
        shares[index] += 1
    return shares


def is_ratio_less(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Return whether ``first`` < ``second`` as ratios (numerator, denominator above 0), exactly."""
    return first[0] * second[1] < second[0] * first[1]
