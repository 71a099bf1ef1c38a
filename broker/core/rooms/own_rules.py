"""Rules that one room may have of its own: which there are, and how a partial update is checked.

They replace single numbers of the broker's policy, under the names that its configuration uses. A rule that is set to
None is the broker's again.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.core.rooms.policies import Policy, value_in_force, with_overrides

__all__ = ["ROOM_RULES", "RuleError", "RuleValue", "checked_rules", "rules_in_force"]

RuleValue = float | bool

_COUNTS = {"admit_per_window": 1, "user_chat_burst": 1, "staff_posts_burst": 1, "app_posts_burst": 1,
           "chat_budget_per_s": 0, "paid_budget_per_s": 0, "tick_ms": 20, "tick_max_ms": 20,
           "raid_joins": 0, "raid_repeats": 0, "raid_slow_s": 1, "raid_s": 10}  # fmt: skip
"""Whole numbers, and the lowest value of each."""
_RATES = frozenset({"user_chat_per_s", "staff_posts_per_s", "app_posts_per_s", "likes_per_s"})
_SECONDS = frozenset({"duplicate_window_s", "review_s"})
_FLAGS = frozenset({"merge", "pre_review", "approve_unreviewed"})
_TICKS = frozenset({"tick_ms", "tick_max_ms"})
_MOST = {"tick_ms": 10_000, "tick_max_ms": 10_000, "raid_joins": 10_000_000, "raid_repeats": 10_000_000,
         "raid_slow_s": 3600, "raid_s": 86_400}  # fmt: skip
"""Highest values of whole numbers where they are not a million."""
MAX_SECONDS = 3600.0
MIN_RATE = 0.001
"""Lowest rate a second, as in the configuration: one in a quarter of an hour."""
ROOM_RULES: frozenset[str] = frozenset(_COUNTS) | _RATES | _SECONDS | _FLAGS
_SORTED = tuple(sorted(ROOM_RULES))


class RuleError(ValueError):
    """A rule that cannot be set. ``rule``: its name; "" = the rules do not fit together."""

    def __init__(self, rule: str, why: str) -> None:
        super().__init__(f"{rule} {why}".strip())
        self.rule = rule
        self.why = why


def checked_rules(
    base: Policy, present: Mapping[str, RuleValue], changes: Mapping[str, RuleValue | None]
) -> tuple[dict[str, RuleValue], Policy]:
    """Return the rules of a room after ``changes`` to its ``present`` ones, and the policy that they make of ``base``.

    RuleError where one is unknown, of another type, out of range, or does not fit the others.
    """
    rules = dict(present)
    for name, value in changes.items():
        if name not in ROOM_RULES:
            raise RuleError(name, f"is no rule of a room: those are {', '.join(sorted(ROOM_RULES))}")
        if value is None:
            rules.pop(name, None)
            continue
        why = _why_not(name, value)
        if why:
            raise RuleError(name, why)
        if name in _TICKS and not base.tick_ms:
            raise RuleError(name, "cannot be set: the broker's policy has no ticks")
        rules[name] = int(value) if name in _COUNTS else value
    try:
        return rules, with_overrides(base, rules)
    except ValueError as error:
        raise RuleError("", str(error)) from None


def rules_in_force(policy: Policy) -> dict[str, RuleValue | None]:
    """Return the value of each rule under a policy; None = no limit."""
    return {name: value_in_force(policy, name) for name in _SORTED}


def _why_not(name: str, value: RuleValue) -> str:
    """Return why a value cannot be that of a rule; "" = it can."""
    if name in _FLAGS:
        return "" if isinstance(value, bool) else "must be true or false"
    if isinstance(value, bool):
        return "must be a number"
    if name in _COUNTS:
        most = _MOST.get(name, 1_000_000)
        fits = float(value).is_integer() and _COUNTS[name] <= value <= most
        return "" if fits else f"must be a whole number from {_COUNTS[name]:,} to {most:,}"
    if name in _SECONDS:
        return "" if 0 <= value <= MAX_SECONDS else f"must be a number from 0 to {MAX_SECONDS:g}"
    return "" if MIN_RATE <= value <= 1e6 else f"must be a number from {MIN_RATE} to 1,000,000"
