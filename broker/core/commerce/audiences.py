"""Tags of a room and of its users: which part of the room a user is in.

Tags are numbered in the order in which they were defined, for as long as the stream goes on, so that a user's are the
bits of one integer. A user has the tags of its token that the room knows; where the platform has set its tags, those
instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from broker.core.commerce.activity import Activity, ActivityRefusal, ActivityStep, Fact, Requester
from protocol.activities.audiences import MAX_TAGS, Audience, RoomTags, TagRule
from protocol.codes import ErrorCode
from protocol.operations.audiences import TaggedUsers

__all__ = ["MAX_TAGGED", "Audiences", "DefineTags", "TagUsers"]

T = TypeVar("T")

MAX_TAGGED = 100_000
"""Users of one room whose tags the platform has set."""
_UNKNOWN = 1 << MAX_TAGS
"""Bit of a tag that the room does not have; no user has it."""


class DefineTags(NamedTuple):
    """Add tags to the room, or change the rules of those that it has."""

    tags: tuple[TagRule, ...]


class TagUsers(NamedTuple):
    """Set the tags of users; None = those of their tokens count again."""

    users: tuple[str, ...]
    tags: tuple[str, ...] | None


class Audiences(Activity[T]):
    """The tags of one room."""

    kind = "audiences"

    def __init__(self, id: str = "") -> None:
        super().__init__(id)
        self._tags: dict[str, TagRule] = {}
        self._numbers: dict[str, int] = {}
        self._set: dict[str, int] = {}
        """Bits of the users whose tags the platform has set."""

    @property
    def exists(self) -> bool:
        return bool(self._tags)

    # ---- who has which

    def bits_of(self, tags: Iterable[str]) -> int:
        """Return the bits of tags by name; one that the room does not have is a bit that no user has."""
        bits = 0
        for tag in tags:
            bits |= 1 << self._numbers.get(tag, MAX_TAGS)
        return bits

    def tags_of(self, user: str, own: Sequence[str]) -> int:
        """Return the bits of a user. ``own``: the tags of its token."""
        bits = self._set.get(user)
        if bits is None:
            bits = self.bits_of(own) & ~_UNKNOWN if own else 0
        return bits

    def names_of(self, bits: int) -> frozenset[str]:
        """Return the names of tags by their bits."""
        return frozenset(name for number, name in enumerate(self._tags) if bits >> number & 1)

    def unknown(self, audience: Audience) -> str | None:
        """Return the place of the first tag of an audience that the room does not have; None: it has all."""
        for field, tags in audience._asdict().items():
            for place, tag in enumerate(tags):
                if tag not in self._tags:
                    return f"{field}[{place}]"
        return None

    @property
    def tagged(self) -> int:
        """Users whose tags the platform has set."""
        return len(self._set)

    def room_tags(self) -> RoomTags:
        """Return the tags of the room."""
        return RoomTags(tuple(self._tags.values()))

    # ---- commands

    def decide(self, command: Any, requester: Requester, ticket: T, now_ms: int) -> ActivityStep[T]:
        match command:
            case DefineTags(tags):
                return self._define(tags)
            case TagUsers(users, tags):
                return self._set_tags(users, tags)
        raise TypeError(command)

    def _define(self, tags: tuple[TagRule, ...]) -> ActivityStep[T]:
        wanted = {tag.name: tag for tag in tags}
        if len(wanted) < len(tags):
            return _refuse("must not name a tag twice", "tags")
        after = self._tags | wanted
        if len(after) > MAX_TAGS:
            return _refuse(f"makes {len(after)} tags of this room; at most {MAX_TAGS} are allowed", "tags")
        answer = RoomTags(tuple(after.values()))
        if after == self._tags:
            return ActivityStep(answer=answer)
        before = tuple(map(tuple, self._tags.values()))
        return ActivityStep((Fact("defined", (tuple(map(tuple, after.values())), before)),), answer)

    def _set_tags(self, users: tuple[str, ...], tags: tuple[str, ...] | None) -> ActivityStep[T]:
        for place, tag in enumerate(tags or ()):
            if tag not in self._tags:
                return _refuse("names no tag of this room", f"tags[{place}]")
        bits = None if tags is None else self.bits_of(tags)
        changes = tuple(
            (user, self._set.get(user), bits) for user in dict.fromkeys(users) if self._set.get(user) != bits
        )
        added = sum(before is None for _, before, _ in changes)
        if bits is not None and len(self._set) + added > MAX_TAGGED:
            refusal = ActivityRefusal(ErrorCode.OUT_OF_STATE, f"has {MAX_TAGGED} users with tags at most", "room")
            return ActivityStep(answer=refusal)
        answer = TaggedUsers(len(changes), len(self._set) + (added if bits is not None else -len(changes)))
        facts = (Fact("tagged", changes),) if changes else ()
        return ActivityStep(facts, answer, weight=len(changes))

    # ---- time: nothing falls due

    def next_due(self) -> int | None:
        return None

    def due(self, now_ms: int) -> ActivityStep[T] | None:
        return None

    # ---- facts

    def apply(self, fact: Fact) -> None:
        if fact.name == "defined":
            self._use(fact.data[0])
        else:
            for user, _, after in fact.data:
                self._put(user, after)

    def undo(self, fact: Fact) -> None:
        if fact.name == "defined":
            self._use(fact.data[1])
        else:
            for user, before, _ in reversed(fact.data):
                self._put(user, before)

    def _use(self, tags: Iterable[tuple[Any, ...]]) -> None:
        self._tags = {tag[0]: TagRule(*tag) for tag in tags}
        self._numbers = {name: number for number, name in enumerate(self._tags)}

    def _put(self, user: str, bits: int | None) -> None:
        if bits is None:
            self._set.pop(user, None)
        else:
            self._set[user] = bits

    # ---- what is seen of it

    def dump(self) -> tuple[Any, ...]:
        return tuple(self._tags.items()), tuple(sorted(self._set.items()))

    def view(self, is_staff: bool) -> RoomTags | None:
        return self.room_tags() if is_staff else None


def _refuse(rule: str, field: str) -> ActivityStep[Any]:
    return ActivityStep(answer=ActivityRefusal(ErrorCode.BAD_FIELD, rule, field))
