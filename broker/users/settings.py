"""What a platform sets for a user and the ledger keeps: preferences and tags. Read on demand, a record a user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from broker.ledger import Reader, RecordPut
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = ["UserSettings", "opted_out", "preferences_item", "read_settings", "tags_item"]

PREFERENCES, TAGS = "user.preferences", "user.tags"


class UserSettings(NamedTuple):
    """Settings of one user. None: the platform has not set it."""

    marketing: bool | None = None
    recommendation: bool | None = None
    visibility: str | None = None
    tags: tuple[str, ...] = ()


def preferences_item(user: str, settings: UserSettings, at_ms: int) -> RecordPut:
    """Return the record of a user's preferences."""
    return RecordPut(PREFERENCES, user, "", at_ms, pack_body(settings[:3]))


def tags_item(user: str, tags: Sequence[str], at_ms: int) -> RecordPut:
    """Return the record of a user's tags."""
    return RecordPut(TAGS, user, "", at_ms, pack_body((tuple(tags),)))


def read_settings(reader: Reader, user: str) -> UserSettings:
    """Return the settings of a user. Runs in the ledger's reading thread."""
    found = UserSettings()
    for record in (*reader.records(PREFERENCES, user), *reader.records(TAGS, user)):
        try:
            body = unpack_body(record.body)
            found = (
                found._replace(tags=body[0])
                if record.kind == TAGS
                else UserSettings(body[0], body[1], body[2], found.tags)
            )
        except (RemoteProtocolError, TypeError, IndexError):
            continue  # of a later version
    return found


def opted_out(reader: Reader, users: Sequence[str]) -> frozenset[str]:
    """Return which of ``users`` want no marketing. Runs in the ledger's reading thread."""
    return frozenset(user for user in users if read_settings(reader, user).marketing is False)
