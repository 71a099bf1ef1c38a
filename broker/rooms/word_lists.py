"""Lists of words that tenants put at runtime: durable before they hold, and there again after a restart.

A list is built before it is written, so that what cannot be built is never in the ledger; it holds from the ledger's
result on, even where its caller has gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from broker.core.moderation.words import WordAction, WordList
from broker.core.tenants.names import qualify, split_name
from broker.ledger import Committed, Item, Ledger, LedgerResult, Reader, RecordPut, RecordRemoved, SubmitResult
from broker.ledger.entries import StoredRecord
from broker.ledger.pending import PendingResult
from broker.ledger.records import read_records
from broker.rooms.screening import ListedWords, ListScope, Screening
from protocol.frames import pack_body

__all__ = ["MAX_ALL_WORDS", "MAX_TENANT_WORDS", "OwnList", "OwnLists"]

log = structlog.get_logger("roomcast.moderation")

KIND = "moderation.list"
MAX_TENANT_WORDS = 100_000
"""Words and exceptions of all lists of one tenant."""
MAX_ALL_WORDS = 200_000
"""Those of all tenants."""
PART_WORDS = 500
"""Words of one record: some of 64 characters fit the body of a record of the ledger."""


class OwnList(NamedTuple):
    """A list that a tenant has put, and the rooms in which it holds."""

    words: WordList
    rooms: tuple[str, ...]

    @property
    def size(self) -> int:
        """Words and exceptions."""
        return len(self.words.words) + len(self.words.exceptions)


_Names = tuple[str, str]
"""Tenant and name of a list."""


class OwnLists:
    """The lists of all tenants of one broker. ``ledger`` None: there are none."""

    def __init__(self, ledger: Ledger | None, screening: Screening, unix_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._screening = screening
        self._unix_ms = unix_ms
        self._lists: dict[_Names, OwnList] = {}
        self._is_changing = False

    async def load(self) -> None:
        """Take over the lists of the last run. At the start, before connections are accepted."""
        if self._ledger is not None:
            self._lists = await self._ledger.ask(_read_lists)
            self._screening.use_own(await self._screening.build(_listed(self._lists)))
            if self._lists:
                log.info("word lists restored", lists=len(self._lists))

    def of(self, tenant: str) -> dict[str, OwnList]:
        """Return the lists of a tenant by name."""
        return {name: each for (owner, name), each in sorted(self._lists.items()) if owner == tenant}

    def all_of(self, tenant: str) -> Iterator[tuple[WordList, tuple[str, ...], bool]]:
        """Yield all lists that hold in rooms of a tenant, see `Screening.lists_of`."""
        return self._screening.lists_of(tenant)

    def words_with(self, tenant: str, own: OwnList) -> tuple[int, int]:
        """Return how many words its lists would have with this one, and those of all tenants."""
        others = {key: each for key, each in self._lists.items() if key != (tenant, own.words.name)}
        of_tenant = sum(each.size for (owner, _), each in others.items() if owner == tenant)
        return of_tenant + own.size, sum(each.size for each in others.values()) + own.size

    async def put(self, tenant: str, own: OwnList) -> bool:
        """Put a list; returns whether it holds, False = the ledger cannot take it now, or another list is being put.
        WordError for a word that no text can hold."""
        key = tenant, own.words.name
        items: list[Item] = list(_removals(key, self._lists.get(key), len(_parts(own))))
        items += [
            RecordPut(KIND, qualify(*key), _part_name(number), self._unix_ms(), pack_body(part))
            for number, part in enumerate(_parts(own))
        ]
        return await self._change({**self._lists, key: own}, items)

    async def delete(self, tenant: str, name: str) -> bool:
        """Delete a list; returns as `put`."""
        deleted = tenant, name
        lists = {key: each for key, each in self._lists.items() if key != deleted}
        return await self._change(lists, list(_removals(deleted, self._lists.get(deleted), 0)))

    async def _change(self, lists: dict[_Names, OwnList], items: Sequence[Item]) -> bool:
        if self._ledger is None or self._is_changing:
            return False
        self._is_changing = True
        try:
            built = await self._screening.build(_listed(lists))
        except BaseException:
            self._is_changing = False
            raise
        done = PendingResult[bool]()

        def on_result(result: LedgerResult) -> None:
            self._is_changing = False
            if isinstance(result, Committed):
                self._lists = lists
                self._screening.use_own(built)
            done.set(isinstance(result, Committed))

        if self._ledger.record(items, on_result) is not SubmitResult.QUEUED:
            self._is_changing = False
            return False
        return await done.wait()


def _listed(lists: Mapping[_Names, OwnList]) -> ListedWords:
    """Return lists by where they hold."""
    found: dict[ListScope, tuple[WordList, ...]] = {}
    for (tenant, _), own in sorted(lists.items()):
        scope = ListScope(tenant, own.rooms)
        found[scope] = (*found.get(scope, ()), own.words)
    return found


def _parts(own: OwnList) -> list[tuple[Any, ...]]:
    """Return a list as the bodies of its records: each with some of the words and exceptions. Any: plain values."""
    _, action, words, exceptions, category = own.words
    steps = range(0, max(len(words), len(exceptions), 1), PART_WORDS)
    return [
        (
            int(action), category, own.rooms, tuple(words[start : start + PART_WORDS]),
            tuple(exceptions[start : start + PART_WORDS]),
        )
        for start in steps
    ]  # fmt: skip


def _part_name(number: int) -> str:
    return f"{number:04}"


def _removals(key: _Names, known: OwnList | None, first: int) -> Iterator[RecordRemoved]:
    """Yield what removes the records of a list from number ``first`` on."""
    for number in range(first, 0 if known is None else len(_parts(known))):
        yield RecordRemoved(KIND, qualify(*key), _part_name(number))


def _read_lists(reader: Reader) -> dict[_Names, OwnList]:
    """Return all recorded lists. Runs in the ledger's reading thread."""
    found: dict[_Names, OwnList] = {}
    for key, part in read_records(reader, KIND, _own_list):
        known = found.get(key)
        if known is not None:
            words, more = known.words, part.words
            joined = words._replace(words=(*words.words, *more.words), exceptions=(*words.exceptions, *more.exceptions))
            part = OwnList(joined, known.rooms)
        found[key] = part
    return found


def _own_list(record: StoredRecord, body: Sequence[Any]) -> tuple[_Names, OwnList]:
    tenant, name = split_name(record.subject)
    action, category, rooms, words, exceptions, *_ = body
    return (tenant, name), OwnList(WordList(name, WordAction(action), tuple(words), tuple(exceptions), category), rooms)
