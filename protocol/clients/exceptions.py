"""Exception groups: selection of the one exception to report."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["first_leaf"]

E = TypeVar("E", bound=BaseException)


def first_leaf(group: BaseExceptionGroup[E]) -> E:
    """Return the first exception of ``group`` that is not itself a group."""
    inner = group.exceptions[0]
    return first_leaf(inner) if isinstance(inner, BaseExceptionGroup) else inner
