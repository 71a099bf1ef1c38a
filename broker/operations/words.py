"""Handlers of the operations on words that messages are screened for."""

from __future__ import annotations

from broker.core.moderation.words import WordError, WordList, masked
from broker.core.tenants.names import plain_name
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import later, required
from broker.operations.parts import Handler, Parts
from broker.rooms.word_lists import MAX_ALL_WORDS, MAX_TENANT_WORDS, OwnList
from protocol.codes import ErrorCode
from protocol.operations.words import (
    MAX_LISTS,
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
    lists = parts.word_lists
    known = lists.of(caller.tenant)
    if not request.words:
        raise OperationError(ErrorCode.BAD_FIELD, "must name a word", "words")
    if any(is_configured and each.name == request.name for each, _, is_configured in lists.all_of(caller.tenant)):
        raise OperationError(ErrorCode.OUT_OF_STATE, "is a list of the configuration", "name")
    if request.name not in known and len(known) >= MAX_LISTS:
        raise OperationError(ErrorCode.OUT_OF_STATE, f"there are {MAX_LISTS} lists: delete one", "name")
    rooms = tuple(map(plain_name, request.rooms)) or ("*",)
    words = WordList(request.name, request.action, request.words, request.exceptions, request.category)
    own = OwnList(words, rooms)
    of_tenant, of_all = lists.words_with(caller.tenant, own)
    if of_tenant > MAX_TENANT_WORDS or of_all > MAX_ALL_WORDS:
        most = MAX_TENANT_WORDS if of_tenant > MAX_TENANT_WORDS else MAX_ALL_WORDS
        raise OperationError(ErrorCode.OUT_OF_STATE, f"all lists have at most {most} words together", "words")
    try:
        is_kept = await lists.put(caller.tenant, own)
    except WordError as error:
        field = "words" if error.what == "word" else "exceptions"
        raise OperationError(ErrorCode.BAD_FIELD, error.rule, f"{field}[{error.number - 1}]") from None
    if not is_kept:
        raise later()
    return StoredWordList(len(lists.of(caller.tenant)), of_tenant)


def _get(parts: Parts, caller: Caller, request: GetWordList) -> WordListContent:
    own = parts.word_lists.of(caller.tenant).get(request.name)
    if own is None:
        raise OperationError(ErrorCode.BAD_FIELD, "names no list that was put", "name")
    name, action, words, exceptions, category = own.words
    return WordListContent(name, tuple(words), action, category, tuple(exceptions), own.rooms)


async def _delete(parts: Parts, caller: Caller, request: DeleteWordList) -> DeletedWordList:
    required(parts.ledger)
    if request.name not in parts.word_lists.of(caller.tenant):
        return DeletedWordList(False)
    if not await parts.word_lists.delete(caller.tenant, request.name):
        raise later()
    return DeletedWordList(True)


def _lists(parts: Parts, caller: Caller, request: ListWordLists) -> WordLists:
    found = [
        WordListSummary(
            each.name, len(each.words), each.action, each.category, len(each.exceptions), rooms, is_configured
        )
        for each, rooms, is_configured in parts.word_lists.all_of(caller.tenant)
    ]
    return WordLists(tuple(sorted(found)[:MAX_SHOWN_LISTS]))


HANDLERS: dict[str, Handler] = {
    "moderation.test": _test,
    "moderation.put_list": _put,
    "moderation.get_list": _get,
    "moderation.delete_list": _delete,
    "moderation.lists": _lists,
}
