"""Traces of single posts: when each was received and decided, by which tick or at which offset, and to how many sockets
it was written.

A post is traced if it can be named, by its ``client_msg_id`` or by its offset: every post of lanes 0 to 2, and danmaku
with an id. Of danmaku `MAX_OPEN_TEXTS` wait for their tick at a time, of all posts `MAX_OPEN`; in a flood the others
are not traced, so that traces cost the room next to nothing. The newest `MAX_POSTS` are kept, of all rooms together
those of a `TraceBudget`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from broker.core.chat.fold import fold
from broker.core.tenants.names import plain_name
from protocol.codes import MessageType, Outcome
from protocol.messages import TickEntry

__all__ = ["MAX_OPEN", "MAX_OPEN_TEXTS", "PostTrace", "Publication", "RoomTraces", "TraceBudget"]

T = TypeVar("T")

MAX_OPEN = 32
"""Traced posts of one room that wait for their outcome."""
MAX_OPEN_TEXTS = 8
"""A danmaku is traced while fewer wait: some 6 us each, and so 50 us a tick in any flood."""
MAX_OPEN_S = 30.0
"""How long one of them may wait; then it makes place for others."""
MAX_ENTRIES = 200
"""Entries of a tick in which merged posts are looked for; a tick that merges shows some dozens."""
MAX_POSTS = 128
"""Posts of one room; the oldest one is forgotten."""
MAX_ALL = 20_000
"""Posts of all rooms, some 600 bytes each; beyond it a room has place for new ones only in that of its own."""
_SHOWN = frozenset({Outcome.ACCEPTED, Outcome.MERGED})
_TEXTS = frozenset({MessageType.DANMAKU, MessageType.EMOTE})


class TraceBudget:
    """How many posts of all rooms are traced."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = MAX_ALL) -> None:
        self.limit = limit
        self.used = 0


class Publication:
    """A content with traced posts on its way to the members. ``at``: monotonic seconds."""

    __slots__ = ("at", "members", "queued", "refused", "took_s", "written")

    def __init__(self, at: float, members: int) -> None:
        self.at = at
        self.members = members
        """Members when it was published."""
        self.took_s: float | None = None
        """Until the last member was written to; None: that is not over."""
        self.written = 0
        """Sockets that took it at once."""
        self.queued = 0
        """Members that were behind: it waits in their queue, or did."""
        self.refused = 0
        """Of these, those whose queue did not take it."""

    def finish(self, took_s: float, written: int, queued: int, refused: int) -> None:
        """It has reached every member."""
        self.took_s, self.written, self.queued, self.refused = took_s, written, queued, refused


class PostTrace:
    """One post. Times are monotonic seconds, ``received_ms`` Unix milliseconds."""

    __slots__ = (
        "author", "client_msg_id", "count", "decided_at", "detail", "folded", "merged_into", "outcome", "publication",
        "received_at", "received_ms", "text", "tick", "to_sender", "type", "user",
    )  # fmt: skip

    def __init__(self, user: str, client_msg_id: str, type: int, received_at: float, received_ms: int) -> None:
        self.author = user
        """Who has posted it, as the room knows it."""
        self.user = plain_name(user)
        self.client_msg_id = client_msg_id
        self.type = type
        self.text = 0
        """Hash of the text, 0 where there is none."""
        self.folded = 0
        """Hash of the text as the merge compares it."""
        self.received_at = received_at
        self.received_ms = received_ms
        self.decided_at: float | None = None
        self.outcome: Outcome | None = None
        """None: it waits."""
        self.detail = 0
        """As in `AckResult`: of an event its offset, of a refusal the code or the wait."""
        self.tick: int | None = None
        """Number of the tick that has decided it."""
        self.merged_into = ""
        """Whose equal message it was merged into."""
        self.count = 0
        """How many senders the message that was shown stands for."""
        self.to_sender = False
        """It was shown to its sender alone."""
        self.publication: Publication | None = None


class RoomTraces(Generic[T]):
    """The traced posts of one room. ``T``: the reply address of a post; ``budget``: of all rooms, None = its own."""

    def __init__(self, budget: TraceBudget | None = None) -> None:
        self._budget = TraceBudget() if budget is None else budget
        self.open: dict[T, PostTrace] = {}
        """Those that wait for their outcome, at most `MAX_OPEN`."""
        self._posts: dict[PostTrace, None] = {}
        """All, the oldest first."""
        self._decided: dict[int, list[PostTrace]] = {}
        """Those that a tick has decided which is not published yet, by its number."""
        self._by_offset: dict[int, PostTrace] = {}

    def __len__(self) -> int:
        return len(self._posts)

    def begin(
        self, ticket: T, user: str, client_msg_id: str, type: int, text: str | None, now: float, now_ms: int
    ) -> None:
        """Trace a post that has just come. ``text``: of a danmaku; ``now_ms``: Unix milliseconds. About 3 us."""
        if len(self.open) >= MAX_OPEN:
            return
        if len(self._posts) >= MAX_POSTS or self._budget.used >= self._budget.limit:
            if not self._posts:
                return
            self._forget(next(iter(self._posts)))
        trace = PostTrace(user, client_msg_id, type, now, now_ms)
        if text is not None and type in _TEXTS:
            trace.text, trace.folded = hash(text), hash(fold(text))
        self._posts[trace] = None
        self._budget.used += 1
        self.open[ticket] = trace

    def decide(self, ticket: T, outcome: Outcome, detail: int, now: float, *, to_sender: bool = False) -> None:
        """A post has its answer."""
        trace = self.open.pop(ticket, None)
        if trace is None:
            return
        trace.outcome, trace.detail, trace.decided_at, trace.to_sender = outcome, detail, now, to_sender
        if outcome in _SHOWN and detail and trace.type not in _TEXTS:
            self._by_offset[detail] = trace

    def decide_all(self, outcomes: Iterable[tuple[T, Outcome]], number: int, now: float) -> None:
        """The posts of the tick with a number have their answers; `published_tick` follows, at once or after the
        moderators' delay. Cheap where nothing is traced."""
        opened = self.open
        if not opened:
            return
        for ticket, outcome in outcomes:
            trace = opened.get(ticket)
            if trace is not None:
                self.decide(ticket, outcome, 0, now)
                trace.tick = number
                self._decided.setdefault(number, []).append(trace)
                if not opened:
                    break

    def published_tick(
        self, number: int, entries: Sequence[TickEntry], now: float, members: int
    ) -> Sequence[Publication]:
        """The tick with a number is published; return what waits to learn how that went. Ticks are published in the
        order of their numbers; those between were not shown."""
        decided: list[PostTrace] = []
        while self._decided and (first := next(iter(self._decided))) <= number:
            traces = self._decided.pop(first)
            decided = traces if first == number else []
        if not decided:
            return ()
        own, into = _entries_of(decided, entries)
        publication = Publication(now, members)
        for trace in decided:
            entry = into.get(trace.folded) if trace.outcome is Outcome.MERGED else own.get((trace.author, trace.text))
            if entry is not None:
                trace.count = entry.count
                trace.merged_into = plain_name(entry.user_id) if trace.outcome is Outcome.MERGED else ""
            if trace.outcome in _SHOWN:
                trace.publication = publication
        return (publication,)

    def published_event(self, offset: int, now: float, members: int) -> Sequence[Publication]:
        """An event is published; return what waits to learn how that went."""
        trace = self._by_offset.get(offset)
        if trace is None:
            return ()
        trace.publication = Publication(now, members)
        return (trace.publication,)

    def sweep(self, now: float) -> None:
        """Give up those that have waited for too long; cheap, call it now and then."""
        late = [ticket for ticket, trace in self.open.items() if now >= trace.received_at + MAX_OPEN_S]
        for ticket in late:
            del self.open[ticket]

    def find(self, user: str | None, client_msg_id: str) -> PostTrace | None:
        """Return the newest post of a user (None = of any) with an id."""
        for trace in reversed(self._posts):
            if trace.client_msg_id == client_msg_id and user in (None, trace.user):
                return trace
        return None

    def at_offset(self, offset: int) -> PostTrace | None:
        """Return the post that is in the event at an offset; of several in one event the last."""
        return self._by_offset.get(offset)

    def forget_user(self, user: str) -> None:
        """Forget every post of a user, and that others were merged into one."""
        for trace in [each for each in self._posts if each.user == user]:
            self._forget(trace)
        for trace in self._posts:
            if trace.merged_into == user:
                trace.merged_into = ""

    def clear(self) -> None:
        """Forget all: the room has ended."""
        for trace in list(self._posts):
            self._forget(trace)
        self._decided.clear()

    def _forget(self, trace: PostTrace) -> None:
        del self._posts[trace]
        self._budget.used -= 1
        if self._by_offset.get(trace.detail) is trace:
            del self._by_offset[trace.detail]
        if trace.outcome is None:
            for ticket in [ticket for ticket, each in self.open.items() if each is trace]:
                del self.open[ticket]


def _entries_of(
    traces: Iterable[PostTrace], entries: Sequence[TickEntry]
) -> tuple[dict[tuple[str, int], TickEntry], dict[int, TickEntry]]:
    """Return the entries of a tick that show accepted posts, by author and text, and merged ones, by folded text.

    Looked for until all are found: to fold a text costs as much as to take a message in.
    """
    accepted = {(trace.author, trace.text) for trace in traces if trace.outcome is Outcome.ACCEPTED}
    merged = {trace.folded for trace in traces if trace.outcome is Outcome.MERGED}
    own: dict[tuple[str, int], TickEntry] = {}
    into: dict[int, TickEntry] = {}
    for each in entries:
        if not accepted:
            break
        if each.type not in _TEXTS:
            continue  # payloads of the deployment's own types are any values
        key = each.user_id, hash(each.payload[0])
        if key in accepted:
            accepted.discard(key)
            own[key] = each
    for each in entries[:MAX_ENTRIES]:
        if not merged:
            break
        folded = hash(fold(each.payload[0])) if each.type in _TEXTS else 0
        if folded in merged:
            merged.discard(folded)
            into[folded] = each
    return own, into
