"""Screening: what the words and detectors in force find in a message or name, and what becomes of it.

A `Screen` is what holds in a room; `Screens` has those of all rooms, and counts. What was found in a text is
remembered, so equal texts are searched once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from broker.core.moderation.detectors import Detector, detect
from broker.core.moderation.words import Finding, WordAction, WordFilter, masked
from broker.core.tenants.names import split_name
from protocol.codes import CUSTOM_TYPE_MIN, MessageType, Role
from protocol.text import RIGHT_TO_LEFT, fits_room_pattern

__all__ = ["Screen", "ScreenGroup", "ScreenResult", "Screens", "with_near_duplicate"]

MAX_KNOWN = 4096
"""Texts of which a screen remembers what was found; it forgets them all when it is full."""
MAX_KNOWN_CHARS = 512
"""A longer text is not remembered."""
MAX_CATEGORIES = 64
"""Categories that are counted by name; findings of others count as ``other``."""
MAX_SCREENS = 1024
OTHER = "other"
NEAR_DUPLICATE = "near_duplicate"

_MASK = WordAction.MASK
_TEXTS: Mapping[int, int] = {
    MessageType.DANMAKU: 0,
    MessageType.EMOTE: 0,
    MessageType.ANNOUNCEMENT: 0,
    MessageType.HIGHLIGHT: 3,
    MessageType.MEDIA: 4,
}
"""Place of the text in the payload of a built-in type."""
_NAMES: Mapping[int, int] = {MessageType.GIFT: 2, MessageType.HIGHLIGHT: 2}
"""Place of the name of a user."""


class ScreenResult(NamedTuple):
    """What was found, and what becomes of it: the highest action of the findings."""

    action: WordAction
    findings: tuple[Finding, ...]

    @property
    def reason(self) -> str:
        """Category of a finding with that action; "" where its list has none."""
        return next(each.category for each in self.findings if each.action is self.action)


class Screen:
    """Filters and detectors that hold in some rooms, never changed."""

    __slots__ = ("_detectors", "_filters", "_known")

    def __init__(self, filters: Sequence[WordFilter], detectors: Mapping[Detector, WordAction]) -> None:
        self._filters = tuple(filters)
        self._detectors = dict(detectors)
        self._known: dict[str, ScreenResult | None] = {}

    def judge(self, text: str) -> ScreenResult | None:
        """Return what becomes of a text; None: nothing was found."""
        try:
            return self._known[text]
        except KeyError:
            pass
        findings = self._findings(text)
        if RIGHT_TO_LEFT in text:
            length = len(text)
            for each in self._findings(text[::-1]):
                findings.append(each._replace(start=length - each.end, end=length - each.start))
        verdict = None
        if findings:
            verdict = ScreenResult(max(each.action for each in findings), tuple(findings))
        if len(text) <= MAX_KNOWN_CHARS:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[text] = verdict
        return verdict

    def _findings(self, text: str) -> list[Finding]:
        findings = [each for one in self._filters for each in one.find(text)]
        if self._detectors:
            findings += [
                Finding(start, end, detector.value, "", detector.value, self._detectors[detector])
                for detector, start, end in detect(text)
                if detector in self._detectors
            ]
        return findings

    def masked_name(self, name: str) -> str:
        """Return a name, each word masked whose action is more than to flag it: a name is never refused."""
        verdict = self.judge(name)
        if verdict is None or verdict.action < _MASK:
            return name
        return masked(name, [each._replace(action=_MASK) for each in verdict.findings if each.action >= _MASK])

    def screened(self, kind: int, payload: Any) -> tuple[ScreenResult | None, Any]:
        """Return what becomes of a message, and its payload with what is to be masked masked. Any: that of its type."""
        text_at, name_at = _TEXTS.get(kind), _NAMES.get(kind)
        if text_at is None and name_at is None:
            return self._screened_value(payload) if kind >= CUSTOM_TYPE_MIN else (None, payload)
        fields = list(payload)
        verdict = None
        if text_at is not None:
            verdict, fields[text_at] = self._screened_text(fields[text_at])
        if name_at is not None:
            fields[name_at] = self.masked_name(fields[name_at])
        return verdict, tuple(fields)

    def _screened_text(self, text: str) -> tuple[ScreenResult | None, str]:
        verdict = self.judge(text)
        return verdict, text if verdict is None else masked(text, verdict.findings)

    def _screened_value(self, value: Any) -> tuple[ScreenResult | None, Any]:
        """Return the same of every text inside of a value that msgpack has read, but for the keys of objects."""
        if isinstance(value, str):
            return self._screened_text(value)
        if isinstance(value, Mapping):
            verdict, values = self._screened_values(value.values())
            return verdict, dict(zip(value, values, strict=True))
        if isinstance(value, (tuple, list)):
            return self._screened_values(value)
        return None, value

    def _screened_values(self, values: Any) -> tuple[ScreenResult | None, tuple[Any, ...]]:
        screened = [self._screened_value(each) for each in values]
        verdicts = [verdict for verdict, _ in screened if verdict is not None]
        verdict = None
        if verdicts:
            findings = tuple(finding for each in verdicts for finding in each.findings)
            verdict = ScreenResult(max(each.action for each in verdicts), findings)
        return verdict, tuple(value for _, value in screened)


def with_near_duplicate(result: ScreenResult | None, text: str, action: WordAction) -> ScreenResult:
    """Return what becomes of a danmaku that says nearly the same as others, beside what was found in it."""
    finding = Finding(0, len(text), NEAR_DUPLICATE, "", NEAR_DUPLICATE, action)
    if result is None:
        return ScreenResult(action, (finding,))
    return ScreenResult(max(result.action, action), (*result.findings, finding))


class ScreenGroup(NamedTuple):
    """A filter with the rooms in which it holds: those of ``tenant`` (None = of every one) that fit a pattern."""

    tenant: str | None
    rooms: tuple[str, ...]
    words: WordFilter

    def holds_in(self, tenant: str, room: str) -> bool:
        """Return whether it holds in a room, by plain name."""
        return self.tenant in (None, tenant) and any(fits_room_pattern(pattern, room) for pattern in self.rooms)

    def holds_for_names(self, tenant: str) -> bool:
        """Return whether names of users of a tenant are screened: it holds in all of its rooms."""
        return self.tenant in (None, tenant) and "*" in self.rooms


class Screens:
    """The screens of all rooms of a broker. Counters ``found`` and ``categories`` only grow: messages with findings."""

    def __init__(self) -> None:
        self.exempt: frozenset[Role] = frozenset()
        """Roles whose messages are not screened."""
        self.near_duplicates: WordAction | None = None
        """What becomes of danmaku that say nearly the same as others; None: they are not compared."""
        self.edition = object()
        """Another object whenever other filters hold: whoever keeps a screen asks for it again."""
        self.found: Counter[str] = Counter()
        """By what became of the message."""
        self.categories: Counter[str] = Counter()
        """By the category of the reason."""
        self._groups: tuple[ScreenGroup, ...] = ()
        self._detectors: Mapping[Detector, WordAction] = {}
        self._made: dict[tuple[int, ...], Screen] = {}

    def use(
        self,
        groups: Sequence[ScreenGroup],
        detectors: Mapping[Detector, WordAction],
        exempt: frozenset[Role],
        near_duplicates: WordAction | None = None,
    ) -> None:
        """Take other filters."""
        self.edition = object()
        self.near_duplicates = near_duplicates
        self._groups, self._detectors, self.exempt = tuple(groups), detectors, exempt
        self._made = {}

    def of(self, room: str) -> Screen | None:
        """Return the screen of a room (qualified name); None: nothing is searched there."""
        tenant, name = split_name(room)
        return self._screen([each for each, group in enumerate(self._groups) if group.holds_in(tenant, name)])

    def of_names(self, tenant: str) -> Screen | None:
        """Return the screen of the names of a tenant's users."""
        return self._screen([each for each, group in enumerate(self._groups) if group.holds_for_names(tenant)])

    def _screen(self, groups: Sequence[int]) -> Screen | None:
        if not groups and not self._detectors:
            return None
        key = tuple(groups)
        screen = self._made.get(key)
        if screen is None:
            if len(self._made) >= MAX_SCREENS:
                self._made.clear()
            filters = [self._groups[each].words for each in groups]
            screen = self._made[key] = Screen(filters, self._detectors)
        return screen

    def count(self, verdict: ScreenResult) -> None:
        """Count a message in which something was found."""
        self.found[verdict.action.name.lower()] += 1
        category = verdict.reason or "none"
        is_known = category in self.categories or len(self.categories) < MAX_CATEGORIES
        self.categories[category if is_known else OTHER] += 1
