"""ACKs of any number of results, each below the caps of the wire."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from protocol.messages import MAX_ACK_RESULTS, MAX_FIRSTS, Ack, AckResult, FirstResult

__all__ = ["acks_of"]


def acks_of(results: Sequence[AckResult], firsts: Sequence[FirstResult]) -> Iterator[Ack]:
    """Yield ACKs with all results in order; a first use is in the ACK of its result. ``firsts`` is mostly empty."""
    most = MAX_FIRSTS if firsts else MAX_ACK_RESULTS
    for start in range(0, len(results), most):
        part = tuple(results[start : start + most])
        if firsts:
            first_of = {first.sequence: first for first in firsts}
            yield Ack(part, tuple(first_of[each.sequence] for each in part if each.sequence in first_of))
        else:
            yield Ack(part)
