"""HyperLogLog: how many different users were here, in 16 KB, when remembering them all costs too much.

Each user id is hashed to 64 bits. The first 14 choose one of 16,384 registers; the register keeps the longest run
of leading zeros, plus one, that the other 50 bits ever showed. Many different users make long runs likely, and the
registers together say how many: standard error 1.04 / sqrt(2**14) = 0.81 % (Flajolet, Fusy, Gandouet, Meunier,
"HyperLogLog", 2007). The estimate is the one of Otmar Ertl ("New cardinality estimation algorithms for HyperLogLog
sketches", 2017), which needs no correction tables and has no weak range: it reads only how many registers
hold each value, so that histogram is kept up to date and an estimate costs microseconds. (His second term, for
registers that have run full, is left out: it matters from 2**60 users on.)

The hash is BLAKE2b, so a run with the same users always says the same number, and sketches of two processes
can be merged. Adding never lowers an estimate; adding again changes nothing.
"""

from __future__ import annotations

from hashlib import blake2b
from math import log, sqrt

__all__ = ["PRECISION", "STANDARD_ERROR", "HyperLogLog"]

PRECISION = 14
STANDARD_ERROR = 1.04 / sqrt(1 << PRECISION)

_REGISTERS = 1 << PRECISION
_TAIL_BITS = 64 - PRECISION
_TAIL_MASK = (1 << _TAIL_BITS) - 1
_LONGEST = _TAIL_BITS + 1
_ALPHA = 1 / (2 * log(2))


class HyperLogLog:
    """A sketch of a set of texts; 16 KB whatever its size."""

    __slots__ = ("_histogram", "_registers")

    def __init__(self) -> None:
        self._registers = bytearray(_REGISTERS)
        self._histogram = [0] * (_LONGEST + 1)
        self._histogram[0] = _REGISTERS

    def add(self, text: str) -> None:
        """Put ``text`` into the set. About 1.5 us."""
        bits = int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        self.add_rank(bits >> _TAIL_BITS, _LONGEST - (bits & _TAIL_MASK).bit_length())

    def estimate(self) -> int:
        """Number of different texts, with a standard error of 0.81 % (exact within a few for small sets)."""
        histogram = self._histogram
        zeros = histogram[0]
        if zeros == _REGISTERS:
            return 0
        z = 0.0
        for rank in range(_LONGEST, 0, -1):
            z = 0.5 * (z + histogram[rank])
        z += _REGISTERS * _sigma(zeros / _REGISTERS)
        return round(_ALPHA * _REGISTERS * _REGISTERS / z)

    def add_rank(self, index: int, rank: int) -> None:
        """Raise the register ``index`` to ``rank``; a lower rank changes nothing."""
        old = self._registers[index]
        if rank > old:
            self._registers[index] = rank
            self._histogram[old] -= 1
            self._histogram[rank] += 1


def _sigma(x: float) -> float:
    """Ertl's sum x + sum(x**(2**k) * 2**(k-1)) for the empty registers, 0 <= x < 1."""
    total, weight = x, 1.0
    while True:
        x *= x
        previous = total
        total += x * weight
        weight += weight
        if total == previous:
            return total
