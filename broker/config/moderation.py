"""Section [moderation]: lists of words, detectors, and what becomes of messages in which they find something.

A file of words has one word or phrase a line, in UTF-8. Empty lines are left out, and so are lines that begin with #.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from broker.config.files import FileError, read_text_of
from protocol.operations.hints import HOURS_PATTERN, MAX_HINT_WORDS, MAX_HINTS
from protocol.operations.words import MAX_WORD_CHARS
from protocol.text import is_room_pattern

__all__ = [
    "DetectorConfig",
    "HintConfig",
    "ModerationConfig",
    "WordFile",
    "WordListConfig",
    "moderation_conflicts",
    "moderation_file_problems",
    "read_word_file",
]

MAX_LISTS = 64
MAX_FILE_WORDS = 100_000
"""Words and phrases of all files together."""

ActionName = Literal["flag", "mask", "shadow", "hold", "block"]
DetectorAction = Literal["off", "flag", "mask", "shadow", "hold", "block"]
SimilarAction = Literal["off", "flag", "shadow", "hold", "block"]
ExemptRole = Literal["guest", "viewer", "vip", "moderator", "assistant", "host", "app"]


class WordListConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One list of words."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}\Z", examples=["ads"])]
    """Name in logs, reports and moderation.test."""
    file: Annotated[str, Meta(min_length=1)]
    """File with one word or phrase a line; lines that begin with # are comments."""
    action: ActionName
    """What becomes of a message with one of the words: flag = it is shown and reported, mask = the word is replaced,
    shadow = its sender alone sees it, hold = a moderator decides, block = it is refused."""
    category: Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9_-]{0,31})?\Z", examples=["advertising"])] = ""
    """Category in metrics and reports, and the reason that senders of refused messages get."""
    exceptions_file: Annotated[str, Meta(min_length=1)] | None = None
    """File with phrases inside which the words are meant otherwise, one a line."""
    rooms: Annotated[tuple[str, ...], Meta(min_length=1, max_length=64)] = ("*",)
    """Rooms in which it holds: names, or beginnings with a * at the end. User names are screened where it is *."""
    tenant: Annotated[str, Meta(min_length=1, max_length=32)] | None = None
    """Tenant whose rooms are meant; not set = the default tenant, * = every tenant."""


class HintConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One keyword hint."""

    id: Annotated[str, Meta(min_length=1, max_length=32, examples=["price"])]
    """Id in hints and in moderation.hints."""
    words: Annotated[str, Meta(min_length=1, max_length=512, examples=["便宜点|太贵"])]
    """Words or phrases, with | between two: they are found as the words of lists are."""
    template: Annotated[str, Meta(min_length=1, max_length=100)]
    """The hint; {name} is who wrote the message, and {word} the word."""
    target: Literal["staff", "room", "agent"] = "staff"
    """Whom it is for: staff = the staff of the room alone, room = all members, as a danmaku of bot_user,
    agent = agents of the service desk, whose topics rooms names."""
    rooms: Annotated[str, Meta(min_length=1, max_length=65)] = "*"
    """Rooms in which it holds: a name, or the beginning of one with a * at the end."""
    cooldown_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    """How long it is quiet in a room after it was given there."""
    hours: Annotated[str, Meta(pattern=rf"^$|{HOURS_PATTERN}", examples=["22:00-08:00+08:00"])] = ""
    """When it holds, with the zone: "22:00-08:00+08:00", or "sat,sun 00:00-24:00Z"; not set = always."""
    tenant: Annotated[str, Meta(min_length=1, max_length=32)] | None = None
    """Tenant whose rooms are meant; not set = the default tenant."""


class DetectorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Detectors, which need no words: what becomes of a message in which one finds something."""

    links: DetectorAction = "off"
    """Web addresses, also with spaces or 点 for the dot."""
    phones: DetectorAction = "off"
    """Phone numbers: Chinese mobile numbers, and international ones that begin with +."""
    contacts: DetectorAction = "off"
    """Accounts on other services, such as vx: abc123."""
    repetition: DetectorAction = "off"
    """The same few characters again and again, 20 characters and more."""
    near_duplicates: SimilarAction = "off"
    """Danmaku that say nearly the same as two others of their user, or as those of five other users, within a minute;
    not those of a few characters."""


class ModerationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Words and detectors that messages and user names are screened for."""

    exempt_roles: Annotated[tuple[ExemptRole, ...], Meta(max_length=7)] = ("moderator", "assistant", "host")
    """Roles whose messages are not screened. Texts and names of users in gifts and highlights always are, and what the
    platform (app) posts otherwise on lanes 0 to 2 never is."""
    held_per_room: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """Messages that wait for a reviewer in a room; one more is refused as LIMITED."""
    held_per_user: Annotated[int, Meta(ge=1, le=10_000)] = 20
    """The same of one user in a room; so many messages of others one user may report first, too."""
    held_bytes_per_room: Annotated[int, Meta(ge=64 * 1024, le=1024 * 1024 * 1024)] = 1024 * 1024
    """Bytes of the messages that wait in a room, and as many again of those that users have reported."""
    held_per_tenant: Annotated[int, Meta(ge=1, le=10_000_000)] = 50_000
    """Messages that wait in all rooms of a tenant."""
    held_bytes_per_tenant: Annotated[int, Meta(ge=64 * 1024, le=16 * 1024 * 1024 * 1024)] = 64 * 1024 * 1024
    """Bytes of these."""
    reported_per_room: Annotated[int, Meta(ge=1, le=10_000)] = 200
    """Messages that users have reported and no reviewer has decided, in a room."""
    raid_joins: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    """Users who come into a room within 10 s that are a raid: slow mode begins by itself; 0 = however many are none."""
    raid_repeats: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    """Messages within 10 s that repeat equal ones of the same tick and are a raid; 0 = however many are none."""
    raid_slow_s: Annotated[int, Meta(ge=1, le=3600)] = 30
    """Seconds between two messages of a user while a room is raided."""
    raid_s: Annotated[int, Meta(ge=10, le=86_400)] = 300
    """How long slow mode holds after a raid was found."""
    detectors: DetectorConfig = msgspec.field(default_factory=DetectorConfig)
    """Detectors, which need no words."""
    lists: tuple[WordListConfig, ...] = ()
    """Lists of words, any number of these tables."""
    hints: tuple[HintConfig, ...] = ()
    """Keyword hints, any number of these tables."""
    bot_user: Annotated[str, Meta(pattern=r"^[^\s\x00-\x1f]{1,64}\Z", examples=["assistant"])] = "assistant"
    """User id under which the platform's bot posts hints for all members; its own messages give no hint."""
    bot_name: Annotated[str, Meta(min_length=1, max_length=32)] = "Assistant"
    """Name that viewers see of it."""


class WordFile(NamedTuple):
    """Words of a file, and the number of the line of each."""

    words: tuple[str, ...]
    lines: tuple[int, ...]


def read_word_file(name: str) -> WordFile:
    """Return the words of a file. FileError, or ValueError that names file, line and rule."""
    words: list[str] = []
    lines: list[int] = []
    for number, line in enumerate(read_text_of(name).split("\n"), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        if len(word) > MAX_WORD_CHARS:
            raise ValueError(f"{name}, line {number}: a word has at most {MAX_WORD_CHARS} characters, got {len(word)}")
        if not any(map(str.isalnum, word)):
            raise ValueError(f"{name}, line {number}: has no letter and no digit, got {word!r}")
        if len(words) == MAX_FILE_WORDS:
            raise ValueError(f"{name}, line {number}: all lists have at most {MAX_FILE_WORDS} words together")
        words.append(word)
        lines.append(number)
    return WordFile(tuple(words), tuple(lines))


def moderation_file_problems(config: ModerationConfig) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the files of words: (path of the setting, rule)."""
    total = 0
    for index, each in enumerate(config.lists):
        for field in ("file", "exceptions_file"):
            name = getattr(each, field)
            if name is None:
                continue
            try:
                total += len(read_word_file(name).words)
            except (FileError, ValueError) as error:
                yield f"moderation.lists[{index}].{field}", str(error)
    if total > MAX_FILE_WORDS:
        yield "moderation.lists", f"all lists have at most {MAX_FILE_WORDS} words together, got {total}"


def moderation_conflicts(config: ModerationConfig, tenants: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the conflicts inside the section: (the paths concerned, the one to report first; the rule).

    ``tenants``: names of the tables [[tenants]].
    """
    if len(config.lists) > MAX_LISTS:
        yield ("moderation.lists",), f"expected at most {MAX_LISTS} lists, got {len(config.lists)}"
    times = Counter((each.tenant, each.name) for each in config.lists)
    for index, each in enumerate(config.lists):
        path = f"moderation.lists[{index}]"
        if times[each.tenant, each.name] > 1:
            yield (f"{path}.name",), f"{each.name} is given to {times[each.tenant, each.name]} lists"
        for number, pattern in enumerate(each.rooms):
            if not is_room_pattern(pattern):
                rule = f"expected a room's name, or the beginning of one and *, got {pattern!r}"
                yield (f"{path}.rooms[{number}]",), rule
        if each.tenant not in (None, "*", *tenants):
            yield (f"{path}.tenant", "tenants"), f"no table [[tenants]] is called {each.tenant!r}"
    times = Counter((each.tenant, each.id) for each in config.hints)
    for index, hint in enumerate(config.hints):
        path = f"moderation.hints[{index}]"
        if times[hint.tenant, hint.id] > 1:
            yield (f"{path}.id",), f"{hint.id} is given to {times[hint.tenant, hint.id]} hints"
        if not is_room_pattern(hint.rooms):
            yield (f"{path}.rooms",), f"expected a room's name, or the beginning of one and *, got {hint.rooms!r}"
        if hint.tenant not in (None, *tenants):
            yield (f"{path}.tenant", "tenants"), f"no table [[tenants]] is called {hint.tenant!r}"
        words = [word.strip() for word in hint.words.split("|") if word.strip()]
        if not 1 <= len(words) <= MAX_HINT_WORDS:
            yield (f"{path}.words",), f"expected 1 to {MAX_HINT_WORDS} words with | between them, got {len(words)}"
        for word in words:
            if len(word) > MAX_WORD_CHARS or not any(map(str.isalnum, word)):
                yield (f"{path}.words",), f"expected words of at most {MAX_WORD_CHARS} characters, got {word!r}"
    for tenant, count in Counter(hint.tenant for hint in config.hints).items():
        if count > MAX_HINTS:
            yield ("moderation.hints",), f"expected at most {MAX_HINTS} hints of one tenant, got {count} of {tenant!r}"
