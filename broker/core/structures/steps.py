"""Work in steps: a generator that yields where something else may run, and returns the result."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

__all__ = ["run_steps"]

T = TypeVar("T")


def run_steps(steps: Generator[None, None, T]) -> T:
    """Run all steps at once and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
