"""What a platform sets for a user and the ledger keeps: preferences and tags. Read on demand.

Each preference is a record of its own, so that two calls which set different ones at a time both have their effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from broker.ledger import Reader, RecordPut
from broker.ledger.inbox_rows import PREFERENCES
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = ["PREFERENCES", "TAGS", "UserSettings", "preference_items", "read_settings", "tags_item"]

TAGS = "user.tags"


class UserSettings(NamedTuple):
    """Settings of one user. None: the platform has not set it."""

    marketing: bool | None = None
    recommendation: bool | None = None
    visibility: str | None = None
    tags: tuple[str, ...] = ()


def preference_items(user: str, changes: Mapping[str, bool | str], at_ms: int) -> list[RecordPut]:
    """Return the records of preferences that are set for a user, by the names of `UserSettings`."""
    return [RecordPut(PREFERENCES, user, name, at_ms, pack_body((value,))) for name, value in changes.items()]


def tags_item(user: str, tags: Sequence[str], at_ms: int) -> RecordPut:
    """Return the record of a user's tags."""
    return RecordPut(TAGS, user, "", at_ms, pack_body((tuple(tags),)))


def read_settings(reader: Reader, user: str) -> UserSettings:
    """Return the settings of a user. Runs in the ledger's reading thread."""
    found: dict[str, Any] = {}
    for record in (*reader.records(PREFERENCES, user), *reader.records(TAGS, user)):
        name = "tags" if record.kind == TAGS else record.name
        try:
            value = unpack_body(record.body)[0]
        except (RemoteProtocolError, TypeError, IndexError):
            continue  # of a later version
        if name in UserSettings._fields:
            found[name] = value
    return UserSettings(**found)
