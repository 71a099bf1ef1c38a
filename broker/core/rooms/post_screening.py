"""Screening of the posts of one room: what becomes of a post in which words or detectors find something.

Danmaku and what else goes into the window of a tick are screened when it is closed, and of them those that would be
shown: a flood costs no more than what people can read. Everything else is screened when it is posted, once its key is
known to be new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from broker.core.chat.coalesce import PendingDanmaku, Showing
from broker.core.moderation.near_duplicates import NearDuplicates
from broker.core.moderation.screening import ScreenResult, Screens, with_near_duplicate
from broker.core.moderation.words import WordAction
from broker.core.rooms.effects import Effect, Flagged, Hold, RefusePost, Reply
from broker.core.rooms.rules import Author
from protocol.activities.reviews import MAX_FINDINGS, HeldBy, ReviewFinding
from protocol.codes import CUSTOM_TYPE_MIN, ErrorCode, Lane, MessageType, Outcome, Role
from protocol.messages import Post
from protocol.payloads import ORDER_TYPES

__all__ = ["PostScreening", "ScreenedPost"]

T = TypeVar("T")

_SHOWN, _MASKED, _WITHHELD = Showing
_NOTHING: tuple[Effect[Any], ...] = ()


class ScreenedPost(NamedTuple, Generic[T]):
    """A post that goes on with ``payload`` and will be answered with ``outcome``; ``reports`` follow it.

    ``refusal``: it does not go on; these are its effects. ``is_shadowed``: nobody is to see it, and its author is to
    learn nothing of that.
    """

    payload: Any
    outcome: Outcome = Outcome.ACCEPTED
    reports: tuple[Effect[T], ...] = ()
    refusal: tuple[Effect[T], ...] = ()
    is_shadowed: bool = False


class PostScreening(Generic[T]):
    """The screen of one room. ``name``: qualified."""

    __slots__ = ("_approved", "_edition", "_found", "_name", "_said", "_screen", "_screens")

    def __init__(self, screens: Screens, name: str) -> None:
        self._screens = screens
        self._name = name
        self._found: list[tuple[PendingDanmaku, ScreenResult]] = []
        """Items of the window that is being closed in which something was found."""
        self._approved: set[int] = set()
        """Items of the open window, by `id`, that a reviewer has approved."""
        self._said: NearDuplicates | None = None
        """Danmaku shown lately, where they are compared."""
        self._edition = object()
        self._refresh()

    def _refresh(self) -> None:
        """Take the screen as it is in force now. Each room does when it uses it next: going through 5,000 rooms at a
        reload would hold the loop for 30 ms."""
        if self._edition is self._screens.edition:
            return
        self._edition = self._screens.edition
        self._screen = self._screens.of(self._name)
        if self._screens.near_duplicates is None:
            self._said = None
        elif self._said is None:
            self._said = NearDuplicates()

    @property
    def is_on(self) -> bool:
        """Whether anything is searched in this room."""
        self._refresh()
        return self._screen is not None or self._said is not None

    def approve(self, item: PendingDanmaku) -> None:
        """Let an item of the open window be shown whatever is found in it."""
        self._approved.add(id(item))

    def event(self, ticket: T, author: Author, post: Post, lane: Lane) -> ScreenedPost[T]:
        """Screen a post that goes into no window.

        A message with an order is refused where another would be held, or shown to its sender alone: it was paid for.
        """
        self._refresh()
        screen = self._screen
        if screen is None or not (post.type in ORDER_TYPES or self._is_screened(author.role, lane)):
            return ScreenedPost(post.payload)
        verdict, payload = screen.screened(post.type, post.payload)
        if verdict is None:
            return ScreenedPost(payload)
        self._screens.count(verdict)
        flagged = Flagged(author.user_id, author.name, post.type, post.payload, verdict)
        if verdict.action is WordAction.SHADOW and post.type not in ORDER_TYPES:
            return ScreenedPost(post.payload, reports=(flagged,), is_shadowed=True)
        if verdict.action is WordAction.HOLD and post.type not in ORDER_TYPES:
            return ScreenedPost(post.payload, refusal=(_hold(ticket, author, post, lane, verdict), flagged))
        if verdict.action >= WordAction.SHADOW:
            return ScreenedPost(post.payload, refusal=(_refusal(ticket, verdict), flagged))
        outcome = Outcome.MASKED if verdict.action is WordAction.MASK else Outcome.ACCEPTED
        return ScreenedPost(payload, outcome, (flagged,))

    def before_review(
        self, ticket: T, author: Author, post: Post
    ) -> tuple[Sequence[Effect[T]], tuple[ReviewFinding, ...]]:
        """Screen a post that goes into the review queue whatever is found: return the effects of its refusal, where a
        word refuses it, else what was found, for the reviewer."""
        self._refresh()
        if self._screen is None or author.role in self._screens.exempt:
            return _NOTHING, ()
        verdict, _ = self._screen.screened(post.type, post.payload)
        if verdict is None:
            return _NOTHING, ()
        if verdict.action is not WordAction.BLOCK:
            return _NOTHING, _review_findings(verdict)
        self._screens.count(verdict)
        flagged = Flagged(author.user_id, author.name, post.type, post.payload, verdict)
        return (_refusal(ticket, verdict), flagged), ()

    def _is_screened(self, role: Role, lane: Lane) -> bool:
        return role not in self._screens.exempt and (role is not Role.APP or lane >= Lane.CHAT)

    def item(self, item: PendingDanmaku) -> Showing:
        """Screen an item of a window that would be shown; one that is masked is changed."""
        if item.role in self._screens.exempt or id(item) in self._approved:
            return _SHOWN
        verdict, payload = self._searched(item)
        action = self._screens.near_duplicates
        if action is not None and self._is_near_duplicate(item):
            verdict = with_near_duplicate(verdict, item.text, action)
        if verdict is None:
            return _SHOWN
        self._found.append((item, verdict))
        if verdict.action is WordAction.FLAG:
            return _SHOWN
        if verdict.action is not WordAction.MASK:
            return _WITHHELD
        _mask(item, payload)
        return _MASKED

    def shadowed(self, ticket: T, item: PendingDanmaku) -> tuple[Sequence[Effect[T]], Outcome]:
        """Screen a danmaku of a shadow-muted user, to whom words are refused, held and masked as to anybody: return the
        effects of what is not shown, and the answer. One that is masked is changed; nothing is counted."""
        self._refresh()
        if item.role in self._screens.exempt:
            return _NOTHING, Outcome.ACCEPTED
        verdict, payload = self._searched(item)
        if verdict is not None and verdict.action is WordAction.BLOCK:
            return (_refusal(ticket, verdict),), Outcome.REJECTED
        if verdict is not None and verdict.action is WordAction.HOLD:
            return (_hold_item(ticket, item, verdict),), Outcome.HELD
        if verdict is None or verdict.action is not WordAction.MASK:
            return _NOTHING, Outcome.ACCEPTED
        _mask(item, payload)
        return _NOTHING, Outcome.MASKED

    def _searched(self, item: PendingDanmaku) -> tuple[ScreenResult | None, Any]:
        """Return what was found in an item, and its text or payload with what is to be masked masked."""
        screen, is_custom = self._screen, item.type >= CUSTOM_TYPE_MIN
        if screen is None:
            return None, item.extra if is_custom else item.text
        if is_custom:
            return screen.screened(item.type, item.extra)
        found, (text,) = screen.screened(item.type, (item.text,))
        return found, text

    def _is_near_duplicate(self, item: PendingDanmaku) -> bool:
        said = self._said
        if said is None or item.type != MessageType.DANMAKU:
            return False
        return said.is_near_duplicate(item.user_id, item.text, item.at)

    def closed(
        self,
        withheld: Sequence[tuple[PendingDanmaku, Sequence[T]]],
        shadow: Callable[[T, PendingDanmaku], Sequence[Effect[T]]],
    ) -> Sequence[Effect[T]]:
        """Return what follows a window whose items have been screened; ``withheld``: those that are not shown, with
        their tickets; ``shadow``: shows one to its sender alone.

        Of equal texts that are held the first is in the queue, for all of them.
        """
        self._approved.clear()
        if not self._found:
            return _NOTHING
        found, self._found = self._found, []
        tickets = {id(item): each for item, each in withheld}
        effects: list[Effect[T]] = []
        for item, verdict in found:
            self._screens.count(verdict)
            for number, ticket in enumerate(tickets.get(id(item), ())):
                if verdict.action is WordAction.HOLD:
                    effects.append(Reply(ticket, Outcome.HELD) if number else _hold_item(ticket, item, verdict))
                elif verdict.action is WordAction.SHADOW:
                    effects += shadow(ticket, item)
                else:
                    effects.append(_refusal(ticket, verdict))
            payload = item.extra if item.type >= CUSTOM_TYPE_MIN else (item.text,)
            effects.append(Flagged(item.user_id, item.name, item.type, payload, verdict))
        return effects


def _mask(item: PendingDanmaku, payload: Any) -> None:
    if item.type >= CUSTOM_TYPE_MIN:
        item.extra = payload
    else:
        item.text = payload


def _refusal(ticket: T, verdict: ScreenResult) -> RefusePost[T]:
    return RefusePost(ticket, ErrorCode.BLOCKED, reason=verdict.reason)


@dataclass(slots=True)
class _ItemAuthor:
    """Author of an item of a window."""

    user_id: str
    name: str
    role: Role
    may_post: frozenset[int] = frozenset()


def _hold_item(ticket: T, item: PendingDanmaku, verdict: ScreenResult) -> Hold[T]:
    payload: Any = item.extra
    if item.type < CUSTOM_TYPE_MIN:
        payload = (item.text,) if item.style is None else (item.text, item.style)
    author = _ItemAuthor(item.user_id, item.name, item.role)
    return _hold(ticket, author, Post(item.type, "", payload), Lane.CHAT, verdict)


def _hold(ticket: T, author: Author, post: Post, lane: Lane, verdict: ScreenResult) -> Hold[T]:
    return Hold(ticket, author, post, lane, HeldBy.WORDS, verdict.reason, _review_findings(verdict))


def _review_findings(verdict: ScreenResult) -> tuple[ReviewFinding, ...]:
    return tuple(ReviewFinding(*each[:5]) for each in verdict.findings[:MAX_FINDINGS])
