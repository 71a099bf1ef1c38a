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
MAX_TENANT_WORDS = 20_000
"""Words and exceptions of all lists of one tenant."""
MAX_ALL_WORDS = 100_000
"""Those of all tenants."""


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
            self._lists = dict(await self._ledger.ask(_read_lists))
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
        subject = qualify(tenant, own.words.name)
        name, action, words, exceptions, category = own.words
        body = pack_body((int(action), category, own.rooms, tuple(words), tuple(exceptions)))
        lists = {**self._lists, (tenant, name): own}
        return await self._change(lists, [RecordPut(KIND, subject, "", self._unix_ms(), body)])

    async def delete(self, tenant: str, name: str) -> bool:
        """Delete a list; returns as `put`."""
        lists = {key: each for key, each in self._lists.items() if key != (tenant, name)}
        return await self._change(lists, [RecordRemoved(KIND, qualify(tenant, name), "")])

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


def _read_lists(reader: Reader) -> list[tuple[_Names, OwnList]]:
    """Return all recorded lists. Runs in the ledger's reading thread."""
    return list(read_records(reader, KIND, _own_list))


def _own_list(record: StoredRecord, body: Sequence[Any]) -> tuple[_Names, OwnList]:
    tenant, name = split_name(record.subject)
    action, category, rooms, words, exceptions, *_ = body
    return (tenant, name), OwnList(WordList(name, WordAction(action), words, exceptions, category), rooms)
