"""Codes of coupons: derived from a secret key so that nobody can guess one, and read as people type them.

A code has ``length`` symbols and one check symbol, of an alphabet without look-alikes whose size is a prime number. The
weights of the positions are all different, so every single wrong symbol and every swap of two is found.
"""

from __future__ import annotations

import re

from protocol.primitives import label, mac, pack_text, pack_u32

__all__ = ["ALPHABET", "derived_code", "read_code", "shown_code"]

ALPHABET = "34679ACDEFHJKMNPQRTVWXY"
"""23 symbols: of 0 O Q, 1 I L, 2 Z, 5 S, 6 G, 8 B and U V at most one each."""
_SIZE = len(ALPHABET)
_VALUES = {symbol: value for value, symbol in enumerate(ALPHABET)}
_GROUP = 4
_DROPPED = re.compile("[ \u3000-]")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_LOWER_CASE = {code: code - 0x20 for code in range(ord("a"), ord("z") + 1)}


def derived_code(key: bytes, pool_id: str, index: int, attempt: int, length: int) -> str:
    """Return code number ``index`` of a pool: ``length`` symbols and the check symbol.

    ``attempt``: 0, or one more for each code of a smaller index that was equal.
    """
    message = label("roomcast/coupon/1") + pack_text(pool_id) + pack_u32(index) + pack_u32(attempt)
    number = int.from_bytes(mac(key, message), "big") % _SIZE**length
    digits = []
    for _ in range(length):
        number, digit = divmod(number, _SIZE)
        digits.append(digit)
    digits.reverse()
    digits.append(-_weighted(digits) % _SIZE)
    return "".join(ALPHABET[digit] for digit in digits)


def shown_code(prefix: str, code: str) -> str:
    """Return a code as a user sees it: the prefix and groups of four, joined by ``-``."""
    groups = [code[at : at + _GROUP] for at in range(0, len(code), _GROUP)]
    return "-".join([prefix, *groups] if prefix else groups)


def read_code(typed: str, prefix: str, length: int) -> str | None:
    """Return the code that a person has typed, without its prefix; None where it cannot be one of this kind of pool.

    Full-width characters, lower case, spaces and hyphens are understood; no other folding takes place.
    """
    plain = _DROPPED.sub("", typed.translate(_FULL_WIDTH)).translate(_LOWER_CASE)
    if not plain.startswith(prefix):
        return None
    code = plain[len(prefix) :]
    digits = [_VALUES.get(symbol, -1) for symbol in code]
    if len(digits) != length + 1 or -1 in digits or (_weighted(digits[:-1]) + digits[-1]) % _SIZE:
        return None
    return code


def _weighted(digits: list[int]) -> int:
    return sum(weight * digit for weight, digit in enumerate(digits, 2))
