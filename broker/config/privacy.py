"""Settings of privacy: marketing, and what guests see of others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ["PrivacyConfig", "minutes_of", "privacy_conflicts"]

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class PrivacyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may be sent to users, and what others see of them."""

    marketing_per_hour: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """Marketing messages that one user gets within any hour; one more is not sent, 0 = no bound."""
    marketing_per_day: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """The same within any 24 hours, 0 = no bound."""
    quiet_hours: Annotated[str, Meta(max_length=11, examples=["22:00-08:00"])] | None = None
    """Time of day at which no marketing message is sent, as in 22:00-08:00; not set = there is none."""
    mask_names_for_guests: bool = False
    """Guests see of other viewers the first character of the name, and an id that is no user's."""
    quiet_utc_offset_min: Annotated[int, Meta(ge=-840, le=840)] = 0
    """Minutes that the local time of quiet_hours is ahead of UTC, 480 for China."""


def minutes_of(hours: str) -> tuple[int, int] | None:
    """Return begin and end of a time of day, as in 22:00-08:00, in minutes from midnight; None where it is none."""
    match = _HOURS.fullmatch(hours)
    if match is None:
        return None
    begin_h, begin_min, end_h, end_min = map(int, match.groups())
    begin, end = begin_h * 60 + begin_min, end_h * 60 + end_min
    return None if begin == end else (begin, end)


def privacy_conflicts(privacy: PrivacyConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the settings that are wrong, and why."""
    hours = privacy.quiet_hours
    if hours is not None and minutes_of(hours) is None:
        yield ("privacy.quiet_hours",), f"expected two times as in 22:00-08:00, got {hours!r}"
