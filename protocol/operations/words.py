"""Operations on words that messages are screened for: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..codes import ErrorCode
from ..fields import array_of, boolean, integer, name_of, optional, record, room_name, room_pattern, text
from .rows import DIRECTION, NEEDS_LEDGER, STAFF, OperationRow, RateLimit, Scope, row

__all__ = [
    "MAX_LISTS",
    "MAX_LIST_WORDS",
    "MAX_ROOM_LISTS",
    "MAX_WORDS",
    "MAX_WORD_CHARS",
    "ROWS",
    "AddWords",
    "DeleteWordList",
    "DeletedWordList",
    "GetWordList",
    "ListWordLists",
    "PutWordList",
    "StoredWordList",
    "TestText",
    "TestedText",
    "TextFinding",
    "WordAction",
    "WordListContent",
    "WordListSummary",
    "WordLists",
]

MAX_WORD_CHARS = 64
MAX_WORDS = 5000
"""Words, and exceptions, of one call; larger lists come in pages, by moderation.add_words."""
MAX_LIST_WORDS = 50_000
"""Words and exceptions of one list that is put at runtime."""
MAX_LISTS = 50
"""Lists of one tenant that are put at runtime for rooms that fit a pattern."""
MAX_ROOM_LISTS = 5
"""Lists that are put for one room by its name."""


class WordAction(IntEnum):
    """What becomes of a message with a word; of several words the highest counts."""

    FLAG = 1
    """It is shown, and reported to moderators."""
    MASK = 2
    """The characters of the word are replaced."""
    SHADOW = 3
    """Its sender alone sees it."""
    HOLD = 4
    """A moderator decides."""
    BLOCK = 5
    """It is refused."""


class TestText(NamedTuple):
    """Ask what would become of a text. ``room``: null = by what holds in all rooms."""

    text: str
    room: str | None = None


class TextFinding(NamedTuple):
    """What was found at ``start`` to ``end`` (exclusive) of the characters. ``word``: of the list, or the name of a
    detector; ``list``: empty for a detector."""

    start: int
    end: int
    word: str
    list: str
    category: str
    action: WordAction


class TestedText(NamedTuple):
    """What would become of it. ``action``: null = it is shown as it is; ``text``: as it would be shown."""

    action: WordAction | None
    text: str
    findings: tuple[TextFinding, ...]


class PutWordList(NamedTuple):
    """Put a list of words, in place of the one of that name. It holds when the call is answered, and after a restart.

    ``exceptions``: phrases inside which the words are meant otherwise; ``rooms``: patterns, empty = all rooms; a host
    or an assistant names the rooms in which it is one.
    """

    name: str
    words: tuple[str, ...]
    action: WordAction
    category: str = ""
    exceptions: tuple[str, ...] = ()
    rooms: tuple[str, ...] = ()


class AddWords(NamedTuple):
    """Add words to a list that was put, which are not in it yet. They hold when the call is answered."""

    name: str
    words: tuple[str, ...]
    exceptions: tuple[str, ...] = ()


class StoredWordList(NamedTuple):
    """The list holds. ``lists`` and ``words``: of all lists of the caller's tenant that were put."""

    lists: int
    words: int


class GetWordList(NamedTuple):
    """Ask for a page of a list that was put. ``after``: so many words and exceptions come before it."""

    name: str
    after: int = 0
    limit: int = 1000


class WordListContent(NamedTuple):
    """A page of a list that was put: ``words``, and after the last one ``exceptions``. ``total``: words and exceptions
    of the whole list; ``next``: what ``after`` of the next page is, null = that is all."""

    name: str
    words: tuple[str, ...]
    action: WordAction
    category: str
    exceptions: tuple[str, ...]
    rooms: tuple[str, ...]
    total: int = 0
    next: int | None = None


class DeleteWordList(NamedTuple):
    """Delete a list that was put."""

    name: str


class DeletedWordList(NamedTuple):
    """Whether there was one."""

    deleted: bool


class ListWordLists(NamedTuple):
    """Ask for all lists of the caller's tenant; of a host or an assistant those that it may change."""


class WordListSummary(NamedTuple):
    """One list, without its words. ``is_configured``: it is in the configuration, and cannot be put or deleted."""

    name: str
    words: int
    action: WordAction
    category: str
    exceptions: int
    rooms: tuple[str, ...]
    is_configured: bool


class WordLists(NamedTuple):
    """Lists by name."""

    items: tuple[WordListSummary, ...]


_name = text(1, 32)
_category = text(0, 32)
_count = integer(0)
_words = array_of(text(1, MAX_WORD_CHARS), MAX_WORDS)
_rooms = array_of(room_pattern, 64)
_action = name_of(WordAction)
_finding = record(TextFinding, (_count, _count, text(1, MAX_WORD_CHARS), text(0, 32), text(0, 32), _action))
_summary = record(WordListSummary, (_name, _count, _action, _category, _count, _rooms, boolean))
_PUT = PutWordList("spam", ("cheap pills", "加微信"), WordAction.MASK, "advertising")

ROWS: tuple[OperationRow, ...] = (
    row(
        500, "moderation.test", TestText, (text(1, 2000, lines=True), optional(room_name)), TestedText,
        record(TestedText, (optional(_action), text(0, 2000, lines=True), array_of(_finding, 100))),
        "Return what would become of a text, and why.",
        scope=Scope.MODERATION_READ, roles=STAFF, changes=False,
        example=(
            TestText("get cheap pills here", "live-1"),
            TestedText(
                WordAction.MASK, "get ***** ***** here",
                (TextFinding(4, 15, "cheap pills", "spam", "advertising", WordAction.MASK),),
            ),
        ),
    ),
    row(
        501, "moderation.put_list", PutWordList, (_name, _words, _action, _category, _words, _rooms), StoredWordList,
        record(StoredWordList, (_count, _count)), "Put a list of words.",
        scope=Scope.MODERATION_WRITE, roles=DIRECTION, durable=True, rate=RateLimit(1, 10), at_once=2,
        errors=(*NEEDS_LEDGER, ErrorCode.OUT_OF_STATE), example=(_PUT, StoredWordList(1, 2)),
    ),
    row(
        541, "moderation.add_words", AddWords, (_name, _words, _words), StoredWordList,
        record(StoredWordList, (_count, _count)), "Add words to a list that was put.",
        scope=Scope.MODERATION_WRITE, roles=DIRECTION, durable=True, rate=RateLimit(1, 10), at_once=2,
        errors=(*NEEDS_LEDGER, ErrorCode.OUT_OF_STATE),
        example=(AddWords("spam", ("free coins",)), StoredWordList(1, 3)),
    ),
    row(
        502, "moderation.get_list", GetWordList, (_name, _count, integer(1, MAX_WORDS)), WordListContent,
        record(WordListContent, (_name, _words, _action, _category, _words, _rooms, _count, optional(_count))),
        "Return a page of a list that was put.",
        scope=Scope.MODERATION_READ, roles=DIRECTION, changes=False,
        example=(GetWordList("spam"), WordListContent(*_PUT[:-1], ("*",), 2)),
    ),
    row(
        503, "moderation.delete_list", DeleteWordList, (_name,), DeletedWordList, record(DeletedWordList, (boolean,)),
        "Delete a list that was put.",
        scope=Scope.MODERATION_WRITE, roles=DIRECTION, durable=True, rate=RateLimit(1, 10), at_once=2,
        errors=NEEDS_LEDGER,
        example=(DeleteWordList("spam"), DeletedWordList(True)),
    ),
    row(
        504, "moderation.lists", ListWordLists, (), WordLists, record(WordLists, (array_of(_summary, 200),)),
        "Return the lists of words that hold in rooms of the caller.",
        scope=Scope.MODERATION_READ, roles=DIRECTION, changes=False,
        example=(
            ListWordLists(),
            WordLists((WordListSummary("spam", 2, WordAction.MASK, "advertising", 0, ("*",), False),)),
        ),
    ),
)  # fmt: skip
