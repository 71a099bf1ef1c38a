"""Handlers of the operations on words that messages are screened for."""

from __future__ import annotations

from collections.abc import Sequence

from broker.core.moderation.words import WordError, WordList, masked
from broker.core.tenants.names import plain_name, qualify
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import later, required
from broker.operations.parts import Handler, Parts
from broker.operations.rights import check_ban
from broker.rooms.word_lists import MAX_ALL_WORDS, MAX_TENANT_WORDS, OwnList
from protocol.codes import ErrorCode, Role
from protocol.operations.rows import DIRECTION
from protocol.operations.words import (
    MAX_LIST_WORDS,
    MAX_LISTS,
    MAX_ROOM_LISTS,
    AddWords,
    DeletedWordList,
    DeleteWordList,
    GetWordList,
    ListWordLists,
    PutWordList,
    StoredWordList,
    TestedText,
    TestText,
    TextFinding,
    WordListContent,
    WordLists,
    WordListSummary,
)

__all__ = ["HANDLERS"]

MAX_FINDINGS = 100
MAX_SHOWN_LISTS = 200
MAX_TENANT_LISTS = 500
"""Lists of one tenant, those of single rooms included."""


def _test(parts: Parts, caller: Caller, request: TestText) -> TestedText:
    screens = parts.hub.screens
    screen = screens.of_names(caller.tenant) if request.room is None else screens.of(request.room)
    found = None if screen is None else screen.judge(request.text)
    if found is None:
        return TestedText(None, request.text, ())
    findings = tuple(TextFinding(*each) for each in found.findings[:MAX_FINDINGS])
    return TestedText(found.action, masked(request.text, found.findings), findings)


async def _put(parts: Parts, caller: Caller, request: PutWordList) -> StoredWordList:
    required(parts.ledger)
    if not request.words:
        raise OperationError(ErrorCode.BAD_FIELD, "must name a word", "words")
    rooms = tuple(map(plain_name, request.rooms)) or ("*",)
    words = WordList(request.name, request.action, request.words, request.exceptions, request.category)
    own = OwnList(words, rooms)
    known = parts.word_lists.of(caller.tenant)
    _check_rooms(parts, caller, rooms)
    if any(
        is_configured and each.name == request.name for each, _, is_configured in parts.word_lists.all_of(caller.tenant)
    ):
        raise OperationError(ErrorCode.OUT_OF_STATE, "is a list of the configuration", "name")
    if request.name in known:
        _check_rooms(parts, caller, known[request.name].rooms, "name")
    elif len(known) >= MAX_TENANT_LISTS or (_has_pattern(own) and sum(map(_has_pattern, known.values())) >= MAX_LISTS):
        most = MAX_TENANT_LISTS if len(known) >= MAX_TENANT_LISTS else MAX_LISTS
        raise OperationError(ErrorCode.OUT_OF_STATE, f"there are {most} lists: delete one", "name")
    for room in () if _has_pattern(own) else rooms:
        others = [name for name, each in known.items() if room in each.rooms and name != request.name]
        if len(others) >= MAX_ROOM_LISTS:
            raise OperationError(ErrorCode.OUT_OF_STATE, f"{room} has {MAX_ROOM_LISTS} lists: delete one", "rooms")
    return await _store(parts, caller, own, 0, 0)


def _has_pattern(own: OwnList) -> bool:
    """Return whether a list holds in rooms that fit a pattern; the others name theirs."""
    return any("*" in room for room in own.rooms)


async def _add(parts: Parts, caller: Caller, request: AddWords) -> StoredWordList:
    required(parts.ledger)
    own = _known(parts, caller, request.name)
    before = own.words
    words = dict.fromkeys((*before.words, *request.words))
    exceptions = dict.fromkeys((*before.exceptions, *request.exceptions))
    added = OwnList(before._replace(words=tuple(words), exceptions=tuple(exceptions)), own.rooms)
    return await _store(parts, caller, added, len(before.words), len(before.exceptions))


async def _store(parts: Parts, caller: Caller, own: OwnList, words: int, exceptions: int) -> StoredWordList:
    """Put a list; of it ``words`` and ``exceptions`` were in it before, and are not to blame. OperationError."""
    lists = parts.word_lists
    of_tenant, of_all = lists.words_with(caller.tenant, own)
    if own.size > MAX_LIST_WORDS:
        raise OperationError(ErrorCode.OUT_OF_STATE, f"a list has at most {MAX_LIST_WORDS} words", "words")
    if of_tenant > MAX_TENANT_WORDS or of_all > MAX_ALL_WORDS:
        most = MAX_TENANT_WORDS if of_tenant > MAX_TENANT_WORDS else MAX_ALL_WORDS
        raise OperationError(ErrorCode.OUT_OF_STATE, f"all lists have at most {most} words together", "words")
    try:
        is_kept = await lists.put(caller.tenant, own)
    except WordError as error:
        field, number = (
            ("words", error.number - words) if error.what == "word" else ("exceptions", error.number - exceptions)
        )
        raise OperationError(ErrorCode.BAD_FIELD, error.rule, f"{field}[{number - 1}]") from None
    if not is_kept:
        raise later()
    await parts.others.follow()
    return StoredWordList(len(lists.of(caller.tenant)), of_tenant)


def _check_rooms(parts: Parts, caller: Caller, rooms: Sequence[str], field: str = "rooms") -> None:
    """Raise OperationError where a user may not change a list of these rooms: it directs each of them."""
    if caller.is_backend or Role.APP in caller.roles:
        return
    for room in rooms:
        check_ban(parts.hub.sanctions, caller, qualify(caller.tenant, room), parts.hub.trusted.continued_ms())
    if any("*" in room or caller.role_in(qualify(caller.tenant, room)) not in DIRECTION for room in rooms):
        raise OperationError(ErrorCode.NOT_ALLOWED, "must be of rooms alone in which you are host or assistant", field)


def _known(parts: Parts, caller: Caller, name: str) -> OwnList:
    """Return a list that was put, and that the caller may change; OperationError."""
    own = parts.word_lists.of(caller.tenant).get(name)
    if own is None:
        raise OperationError(ErrorCode.BAD_FIELD, "names no list that was put", "name")
    _check_rooms(parts, caller, own.rooms, "name")
    return own


def _get(parts: Parts, caller: Caller, request: GetWordList) -> WordListContent:
    own = _known(parts, caller, request.name)
    name, action, words, exceptions, category = own.words
    end = request.after + request.limit
    shown = tuple(words[request.after : end])
    excepted = tuple(exceptions[max(0, request.after - len(words)) : max(0, end - len(words))])
    following = end if end < own.size else None
    return WordListContent(name, shown, action, category, excepted, own.rooms, own.size, following)


async def _delete(parts: Parts, caller: Caller, request: DeleteWordList) -> DeletedWordList:
    required(parts.ledger)
    if request.name not in parts.word_lists.of(caller.tenant):
        return DeletedWordList(False)
    _known(parts, caller, request.name)
    if not await parts.word_lists.delete(caller.tenant, request.name):
        raise later()
    await parts.others.follow()
    return DeletedWordList(True)


def _lists(parts: Parts, caller: Caller, request: ListWordLists) -> WordLists:
    found = [
        WordListSummary(
            each.name, len(each.words), each.action, each.category, len(each.exceptions), rooms, is_configured
        )
        for each, rooms, is_configured in parts.word_lists.all_of(caller.tenant)
        if _may_change(parts, caller, rooms, is_configured=is_configured)
    ]
    return WordLists(tuple(sorted(found)[:MAX_SHOWN_LISTS]))


def _may_change(parts: Parts, caller: Caller, rooms: Sequence[str], *, is_configured: bool) -> bool:
    """Return whether a list is shown to a caller: to staff those alone that it may change."""
    try:
        _check_rooms(parts, caller, rooms)
    except OperationError:
        return False
    return caller.is_backend or Role.APP in caller.roles or not is_configured


HANDLERS: dict[str, Handler] = {
    "moderation.test": _test,
    "moderation.put_list": _put,
    "moderation.add_words": _add,
    "moderation.get_list": _get,
    "moderation.delete_list": _delete,
    "moderation.lists": _lists,
}
