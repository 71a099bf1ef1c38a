"""Offers of triggered marketing: the record and row of the event."""

from __future__ import annotations

from typing import NamedTuple

from ..fields import https_url, optional, record, text
from .rows import ActivityEventRow, Via

__all__ = ["ROWS", "OfferShown"]


class OfferShown(NamedTuple):
    """An offer. ``subject``: what it is about, a product for example, as the platform has named it; ``conversation``:
    where it is to be shown, empty = anywhere; it is no message of its history."""

    trigger: str
    subject: str
    title: str
    text: str
    url: str | None = None
    conversation: str = ""


ROWS: tuple[ActivityEventRow, ...] = (
    ActivityEventRow(
        "marketing.offered", Via.DIRECT, OfferShown,
        record(
            OfferShown,
            (text(1, 32), text(0, 64), text(1, 100), text(0, 500, lines=True), optional(https_url), text(0, 64)),
        ),
        "The user gets an offer, whose id is that of the rule. Withdrawn where the user wants no marketing any more.",
        OfferShown("viewed", "mug-1", "Still thinking about the mug?", "10 % off today", "https://shop.example/mug-1"),
    ),
)  # fmt: skip
