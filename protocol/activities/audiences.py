"""Tags of a room: its parts, to which messages and offers may go."""

from __future__ import annotations

from typing import NamedTuple

from ..fields import array_of, record, text
from .rows import ActivityViewRow

__all__ = ["MAX_TAGS", "VIEWS", "Audience", "RoomTags", "TagRule", "audience", "room_tags", "tag_name", "tag_rule"]

MAX_TAGS = 16
"""Tags of one room, and of one user."""


class Audience(NamedTuple):
    """Part of a room: the viewers who have one of the tags ``any``, each of ``all``, and none of ``none``.

    An empty list asks for nothing.
    """

    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    none: tuple[str, ...] = ()


class TagRule(NamedTuple):
    """A tag of a room. A user has it by its token, or because the platform has set it."""

    name: str


class RoomTags(NamedTuple):
    """The tags of a room, in the order in which they were defined."""

    tags: tuple[TagRule, ...]


tag_name = text(1, 64)
"""Rule of the name of a tag."""
_tags = array_of(tag_name, MAX_TAGS)
audience = record(Audience, (_tags, _tags, _tags))
"""Rule of an `Audience`."""
tag_rule = record(TagRule, (tag_name,))
"""Rule of a tag."""
room_tags = record(RoomTags, (array_of(tag_rule, MAX_TAGS),))
"""Rule of the tags of a room."""

VIEWS: tuple[ActivityViewRow, ...] = (
    ActivityViewRow("audiences", RoomTags, room_tags, RoomTags((TagRule("fans"), TagRule("region:cn")))),
)
