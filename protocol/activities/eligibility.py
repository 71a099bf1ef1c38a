"""Conditions that an activity sets for those who take part: one record for sales, packets, lotteries, polls ..."""

from __future__ import annotations

from typing import NamedTuple

from ..codes import Role
from ..fields import array_of, boolean, integer, name_of, record, text

__all__ = ["MAX_TAGS", "Eligibility", "eligibility"]

MAX_TAGS = 16
_MAX_CENTS = 10**12


class Eligibility(NamedTuple):
    """Conditions, all of which a user must meet; the defaults let every user with a login take part.

    ``tags_any``: the user has one of them in the room, empty = no tag is needed; ``follow``: it follows the host;
    ``watch_s``: seconds it has watched in the room; ``keyword``: the text that its request must carry, empty = none;
    ``gift_cents``: of its gifts in the room; ``account_age_s``: of its account, by its token.
    """

    min_role: Role = Role.VIEWER
    tags_any: tuple[str, ...] = ()
    follow: bool = False
    watch_s: int = 0
    keyword: str = ""
    gift_cents: int = 0
    account_age_s: int = 0


eligibility = record(
    Eligibility,
    (
        name_of(Role),
        array_of(text(1, 64), MAX_TAGS),
        boolean,
        integer(0, 31_536_000),
        text(0, 64),
        integer(0, _MAX_CENTS),
        integer(0, 10**10),
    ),
)
"""Rule of an `Eligibility`."""
