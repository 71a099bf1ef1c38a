"""How many examples a property tries: all of them in the whole suite, a share in its quick part."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["QUICK_EXAMPLES", "examples"]

QUICK_EXAMPLES = 25
"""Examples of a property in the quick part where a test does not give their number; 100 in the whole suite."""
QUICK_SHARE = 4
"""The quick part tries one example in so many."""
QUICK_LEAST = 10
"""But never fewer than so many of those that a test asks for."""


def examples(count: int, *, steps: int = 50) -> settings:
    """Settings of a property or a state machine that tries so many examples in the whole suite.

    :param count: examples, or runs of a state machine, in the whole suite.
    :param steps: longest run of a state machine.
    """
    if settings().max_examples == QUICK_EXAMPLES:
        count = min(count, max(count // QUICK_SHARE, QUICK_LEAST))
    return settings(max_examples=count, stateful_step_count=steps)
