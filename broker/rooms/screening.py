"""Screening of a broker: reads the lists of words that are configured, and builds and replaces what rooms screen for.

A build takes steps of at most some 15 ms with the event loop in between. What is built replaces what was there in one
step, for all rooms; a list that did not change is not built again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import trio

from broker.config.moderation import DetectorConfig, ModerationConfig, read_word_file
from broker.core.moderation.detectors import Detector
from broker.core.moderation.screening import ScreenGroup, Screens
from broker.core.moderation.words import WordAction, WordFilter, WordList
from protocol.codes import Role

__all__ = ["BuiltWords", "ListScope", "ListedWords", "Screening", "read_words"]


class ListScope(NamedTuple):
    """Where lists hold: rooms that fit a pattern, of ``tenant`` (None = of every one)."""

    tenant: str | None
    rooms: tuple[str, ...]


ListedWords = Mapping[ListScope, tuple[WordList, ...]]
"""Lists by where they hold: those of one place are searched together."""
_EVERY_TENANT = "*"
_DETECTORS = {
    "links": Detector.LINK, "phones": Detector.PHONE, "contacts": Detector.CONTACT, "repetition": Detector.REPEATED,
}  # fmt: skip


def read_words(config: ModerationConfig) -> ListedWords:
    """Return the words of all lists. FileError, or ValueError that names file, line and rule. Reads files."""
    found: dict[ListScope, tuple[WordList, ...]] = {}
    for each in config.lists:
        scope = ListScope(None if each.tenant == _EVERY_TENANT else each.tenant or "", each.rooms)
        words = read_word_file(each.file).words
        exceptions = () if each.exceptions_file is None else read_word_file(each.exceptions_file).words
        listed = WordList(each.name, WordAction[each.action.upper()], words, exceptions, each.category)
        found[scope] = (*found.get(scope, ()), listed)
    return found


class BuiltList(NamedTuple):
    """The filter of some lists."""

    lists: tuple[WordList, ...]
    words: WordFilter


BuiltWords = dict[ListScope, BuiltList]


class Screening:
    """What the rooms of one broker screen for. ``on_change``: called after it was replaced."""

    def __init__(self, screens: Screens, on_change: Callable[[ModerationConfig], None]) -> None:
        self.screens = screens
        self._on_change = on_change
        self._config = ModerationConfig()
        self._configured: BuiltWords = {}
        self._own: BuiltWords = {}
        """Of lists that tenants have put."""
        self._detectors: dict[Detector, WordAction] = {}
        self._exempt: frozenset[Role] = frozenset()
        self._near_duplicates: WordAction | None = None

    async def build(self, listed: ListedWords) -> BuiltWords:
        """Build the filters of lists, beside other work. ValueError for a word that no text can hold."""
        built: BuiltWords = {}
        for _ in self._build_steps(listed, built):
            await trio.lowlevel.checkpoint()
        return built

    def build_now(self, listed: ListedWords) -> BuiltWords:
        """Build the filters at once: 0.3 s for 50,000 words. ValueError for a word that no text can hold."""
        built: BuiltWords = {}
        for _ in self._build_steps(listed, built):
            pass
        return built

    def _build_steps(self, listed: ListedWords, built: BuiltWords) -> Iterator[None]:
        for scope, lists in listed.items():
            known = [each.get(scope) for each in (self._configured, self._own)]
            same = next((each for each in known if each is not None and each.lists == lists), None)
            if same is not None:
                built[scope] = same
                continue
            words = WordFilter(lists)
            yield from words.build_steps()
            built[scope] = BuiltList(lists, words)

    def use(self, built: BuiltWords, config: ModerationConfig) -> bool:
        """Screen for what was built, and for what detectors are configured; return whether the words are others."""
        is_changed = built != self._configured
        self._configured = built
        self._config = config
        self._exempt = frozenset(Role[name.upper()] for name in config.exempt_roles)
        self._detectors = _actions_of(config.detectors)
        name = config.detectors.near_duplicates
        self._near_duplicates = None if name == "off" else WordAction[name.upper()]
        self._replace()
        return is_changed

    def use_own(self, built: BuiltWords) -> None:
        """Screen also for what was built of lists that tenants have put, in place of those before."""
        self._own = built
        self._replace()

    def lists_of(self, tenant: str) -> Iterator[tuple[WordList, tuple[str, ...], bool]]:
        """Yield the lists that hold in rooms of a tenant, with these rooms, and whether they are configured."""
        for built in (self._configured, self._own):
            for scope, each in built.items():
                if scope.tenant in (None, tenant):
                    for listed in each.lists:
                        yield listed, scope.rooms, built is self._configured

    def _replace(self) -> None:
        scopes = [*self._configured.items(), *self._own.items()]
        groups = [ScreenGroup(scope.tenant, scope.rooms, each.words) for scope, each in scopes]
        self.screens.use(groups, self._detectors, self._exempt, self._near_duplicates)
        self._on_change(self._config)


def _actions_of(config: DetectorConfig) -> dict[Detector, WordAction]:
    """Return the action of each detector that is on."""
    actions = {detector: getattr(config, name) for name, detector in _DETECTORS.items()}
    return {detector: WordAction[name.upper()] for detector, name in actions.items() if name != "off"}
