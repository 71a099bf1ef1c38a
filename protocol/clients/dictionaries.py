"""Dictionaries of compressed frames that a client has got, kept over its links."""

from __future__ import annotations

from collections.abc import Iterator

from ..dictionaries import BUILT_IN, Dictionary
from ..messages import MAX_DICTIONARIES

__all__ = ["DictionaryCache"]


class DictionaryCache:
    """At most MAX_DICTIONARIES of them; the one that was used longest ago makes room.

    One cache may serve several clients of a process. An application that keeps what it iterates, and adds it to the
    cache of its next run, fetches no dictionary twice.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Dictionary] = {}

    def __iter__(self) -> Iterator[Dictionary]:
        return iter(list(self._by_name.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the dictionaries, for HELLO."""
        return tuple(self._by_name)

    def get(self, name: str) -> Dictionary | None:
        """Return a dictionary by name, also the built-in one; None: the client has not got it."""
        if name == BUILT_IN.name:
            return BUILT_IN
        found = self._by_name.pop(name, None)
        if found is not None:
            self._by_name[name] = found
        return found

    def add(self, dictionary: Dictionary) -> None:
        """Keep a dictionary."""
        self._by_name.pop(dictionary.name, None)
        self._by_name[dictionary.name] = dictionary
        if len(self._by_name) > MAX_DICTIONARIES:
            del self._by_name[next(iter(self._by_name))]
