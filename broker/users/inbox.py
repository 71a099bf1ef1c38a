"""Must-deliver messages: each user's inbox is on the disk, and every link of that user gets what is not acknowledged.

A message counts as sent when the ledger has it; then it goes to every link of its user, in order, and again to every
new link until one of them acknowledges it (an acknowledgement covers all earlier ones), it expires or is cancelled. A
link that is behind gets a window of messages and the next when it has acknowledged some, so an inbox of thousands
cannot flood it. What is in the window is remembered by number only: messages come from the disk, or straight from their
commit where the link has had everything before.

Bounds: users with something pending are remembered up to `MAX_USERS`; beyond that every login reads the ledger. What
one link has in flight is bounded by `WINDOW`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import structlog
import trio

from broker.core.users.marketing import Suppression
from broker.ledger import (
    Committed,
    DirectAcked,
    DirectEntry,
    DirectsCancelled,
    DirectState,
    Item,
    Key,
    Ledger,
    LedgerError,
    LedgerResult,
    LedgerState,
    OutboxEntry,
    Reader,
    Repeated,
    StoredDirect,
    SubmitResult,
    make_key,
)
from broker.ledger.pending import PendingResult
from broker.ledger.queries import LedgerQueries
from broker.users.registry import UserRegistry, UserSession
from protocol.codes import Lane
from protocol.direct_batches import fill
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body
from protocol.messages import MAX_DIRECT_BYTES, Direct

__all__ = ["BatchResult", "Inboxes", "packed_direct", "payload_of"]

log = structlog.get_logger("roomcast.inboxes")

WINDOW = 64
"""Messages in flight to one link; at 4 KiB each 256 KiB, a quarter of what a link may have waiting."""
MAX_USERS = 200_000
MAX_PAYLOAD_BYTES = MAX_DIRECT_BYTES
SAVE_AGAIN_S = 5.0


class BatchResult(NamedTuple):
    """Result of a batch: users whose message is durable now, was before, and could not be written."""

    sent: int
    repeated: int
    failed: int
    reused: int = 0
    """Of those repeated: users who have another message under the same batch."""
    suppressed: int = 0
    """Users to whom no marketing was to be sent."""


class _Pending:
    """One user's inbox: ``acked`` < what is pending <= ``last``; ``saving`` is acknowledged and not durable yet; and
    how far each link has come.
    """

    __slots__ = ("acked", "last", "links", "saving")

    def __init__(self, acked: int, last: int) -> None:
        self.acked = acked
        self.saving = acked
        self.last = last
        self.links: dict[UserSession, _Cursor] = {}


class _Part:
    """Messages that are answered together. As many as the ledger has room for are submitted, the rest waits here."""

    __slots__ = (
        "_in_flight",
        "_on_done",
        "_repeated",
        "_reused",
        "_send",
        "_sent",
        "_suppressed",
        "_total",
        "_waiting",
    )

    def __init__(
        self,
        payloads: Sequence[tuple[str, Any]],
        send: Callable[[str, Any, Callable[[LedgerResult], None]], SubmitResult],
        on_done: Callable[[BatchResult], None],
    ) -> None:
        self._waiting = deque(payloads)
        self._send = send
        self._on_done = on_done
        self._total = len(payloads)
        self._reused = 0
        self._in_flight = self._sent = self._suppressed = self._repeated = 0

    def pump(self) -> bool:
        """Hand over what there is room for; False if the ledger has none of the part. What it cannot take has failed,
        unless one under way will make room.
        """
        while self._waiting:
            submitted = self._send(*self._waiting[0], self._on_result)
            if submitted is not SubmitResult.QUEUED:
                if submitted is SubmitResult.UNAVAILABLE or not self._in_flight:
                    self._waiting.clear()
                break
            self._waiting.popleft()
            self._in_flight += 1
        return self._in_flight > 0

    def _on_result(self, result: LedgerResult) -> None:
        """Count the result of one message. The ledger calls this later, never from within `pump`."""
        self._in_flight -= 1
        if isinstance(result, Committed):
            is_sent = result.direct_ids[0] > 0
            self._sent += is_sent
            self._suppressed += not is_sent
        elif isinstance(result, Repeated):
            self._repeated += 1
            self._reused += bool(result.reused)
        if not self.pump():
            failed = self._total - self._sent - self._suppressed - self._repeated
            self._on_done(BatchResult(self._sent, self._repeated, failed, self._reused, self._suppressed))


class _Cursor:
    """How far one link has come. ``is_outdated``: messages that it asks for were cancelled meanwhile."""

    __slots__ = ("is_asking", "is_outdated", "sent")

    def __init__(self, sent: int) -> None:
        self.sent = sent
        self.is_asking = False
        self.is_outdated = False


class Inboxes:
    """All inboxes of one broker. All methods but the ``async`` ones are synchronous and never wait."""

    def __init__(
        self,
        ledger: Ledger,
        queries: LedgerQueries,
        users: UserRegistry,
        unix_ms: Callable[[], int],
        expiry_s: float,
        report_acked: Callable[[str, int, int], Sequence[OutboxEntry]] = lambda user, direct_id, at_ms: (),
    ) -> None:
        """``report_acked`` returns what the outbox gets for an acknowledgement, by user, number and time."""
        self._report_acked = report_acked
        self._ledger = ledger
        self._users = users
        self._queries = queries
        self._unix_ms = unix_ms
        self._expiry_ms = round(expiry_s * 1000)
        self._pending: dict[str, _Pending] = {}
        self._knows_all = True
        self._unsaved: dict[str, int] = {}
        """Acknowledgements that the ledger could not take yet; bounded by the users who have logged in since."""
        self._unread: dict[str, None] = {}
        """Users whose messages could not be read for some link; bounded likewise."""
        self.delivered = 0
        """Messages written to links, repeated ones included."""
        self.suppressed: Counter[Suppression] = Counter()
        """Marketing messages that were not sent, by why."""
        self.withdrawn = 0
        """Marketing messages that waited when their user did not want any more."""

    @property
    def pending_users(self) -> frozenset[str]:
        """Users whose messages wait for an acknowledgement."""
        return frozenset(self._pending)

    @property
    def unsaved_count(self) -> int:
        """Acknowledgements that are not in the ledger yet."""
        return len(self._unsaved)

    async def load(self) -> None:
        """Read which users have pending messages. At the start, and where the copy of a log was filled anew."""
        found = await self._ledger.ask(Reader.pending_inboxes, MAX_USERS)
        self._knows_all = len(found) < MAX_USERS
        before, self._pending = self._pending, {user: _Pending(acked, last) for user, acked, last in found}
        for user, pending in list(self._pending.items()):
            cursors = before[user].links if user in before else {}
            for link in [link for link in self._users.sessions(user) if not link.is_remote]:
                pending.links[link] = cursors.get(link) or _Cursor(pending.acked)
                self._pump(user, pending, link)

    # ---- sending

    def send(
        self,
        user: str,
        kind: int,
        payload: Any,
        on_done: Callable[[LedgerResult], None],
        *,
        key: str | Key = "",
        batch: str = "",
        expires_at_ms: int | None = None,
        marketing: bool = False,
        then: Sequence[Item] = (),
    ) -> SubmitResult:
        """Put a message into a user's inbox; ``on_done`` gets the ledger's result, with its number when it is durable.

        ``kind``: message type; ``payload``: any value of the wire, up to 4 KiB packed (else ValueError); ``key``
        makes a repeated call harmless: it gets the first result, with the number of the first message. As text it is a
        key of this user's. ``marketing``: it is written only where the rules of marketing allow for it; else its number
        is a `Suppression`. ``then``: what is written with it.
        """
        # Any: payloads of custom types are any value.
        entry = self.entry(user, kind, payload, batch, expires_at_ms)._replace(marketing=marketing)
        if isinstance(key, str):
            keys = (make_key("direct", user, key, content=pack_body((kind, payload))),) if key else ()
        else:
            keys = (key,)
        return self._ledger.record((entry, *then), partial(self._on_committed, entry, payload, on_done), keys)

    def entry(
        self, user: str, kind: int, payload: Any, batch: str = "", expires_at_ms: int | None = None
    ) -> DirectEntry:
        """Return the item of a submission that puts a message into a user's inbox; report its number to `written`.

        ValueError: the payload is above 4 KiB packed.
        """
        body = pack_body((payload,))
        if len(body) - 1 > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a payload of {len(body) - 1} bytes is above {MAX_PAYLOAD_BYTES}")
        now_ms = self._unix_ms()
        expires = now_ms + self._expiry_ms if expires_at_ms is None else expires_at_ms
        return DirectEntry(user, kind, now_ms, expires, body, batch)

    def written(self, entries: Sequence[DirectEntry], direct_ids: Sequence[int]) -> None:
        """Deliver messages that are durable. ``direct_ids``: the numbers that the ledger gave them."""
        for entry, direct_id in zip(entries, direct_ids, strict=True):
            self._on_new(entry, unpack_body(entry.body)[0], direct_id)

    async def send_batch(
        self,
        batch: str,
        kind: int,
        template: Any,
        values: Mapping[str, Mapping[str, str]],
        expires_s: float | None = None,
    ) -> BatchResult:
        """Send one text to many users, each with its own ``values``; returns when all are durable or have failed.

        Every user's message is made before the first is sent (TemplateError, ValueError: none is). Sending a batch
        again sends only what is missing. Waits for space where the ledger is full. After a cancellation
        the sending continues without a result.
        """
        messages = [(user, fill(template, own)) for user, own in values.items()]
        for _, payload in messages:
            if len(pack_body((payload,))) - 1 > MAX_PAYLOAD_BYTES:
                raise ValueError(f"a payload is above {MAX_PAYLOAD_BYTES} bytes")
        if not messages:
            return BatchResult(0, 0, 0)
        pending = PendingResult[BatchResult]()
        while not self.send_part(batch, kind, messages, expires_s, pending.set):
            if self._ledger.state is not LedgerState.READY:
                return BatchResult(0, 0, len(messages))
            await self._ledger.flush()
        return await pending.wait()

    def send_part(
        self,
        batch: str,
        kind: int,
        payloads: Sequence[tuple[str, Any]],
        expires_s: float | None,
        on_done: Callable[[BatchResult], None],
        *,
        marketing: bool = False,
    ) -> bool:
        """Send a part of a batch, (user, payload) each; ``on_done`` is called when the ledger has answered all of it.

        False: the ledger takes nothing now, and nothing was sent. Never waits; ``payloads`` are kept until the ledger
        has room for them. ValueError as in `send`.
        """
        expires_at_ms = None if expires_s is None else self._unix_ms() + round(expires_s * 1000)

        def send(user: str, payload: Any, on_result: Callable[[LedgerResult], None]) -> SubmitResult:
            key = f"batch {batch}"
            return self.send(
                user, kind, payload, on_result, key=key, batch=batch, expires_at_ms=expires_at_ms, marketing=marketing
            )

        return _Part(payloads, send, on_done).pump()

    def cancel(
        self,
        on_done: Callable[[LedgerResult], None],
        *,
        batch: str = "",
        user: str = "",
        direct_id: int = 0,
        marketing: bool = False,
        then: Sequence[Item] = (),
    ) -> SubmitResult:
        """Cancel pending messages: up to `CANCEL_ROWS` of a batch, one of a user, or up to `CANCEL_ROWS` of marketing
        to a user; ``on_done`` gets the ledger's result, which names them. ``then``: what is written with it.

        From then on no link is sent them. What a link has been sent may still be shown, and stays cancelled.
        """
        cancelled = DirectsCancelled(batch, user, direct_id, marketing)
        return self._ledger.record((*then, cancelled), partial(self._on_cancelled, on_done, marketing))

    def _on_cancelled(self, on_done: Callable[[LedgerResult], None], marketing: bool, result: LedgerResult) -> None:
        if isinstance(result, Committed):
            self.withdrawn += len(result.cancelled) if marketing else 0
            for user, _ in result.cancelled:
                pending = self._pending.get(user)
                for cursor in () if pending is None else pending.links.values():
                    cursor.is_outdated = cursor.is_asking
        on_done(result)

    def ask_progress(self, batch: str, on_done: Callable[[Mapping[DirectState, int] | None], None]) -> bool:
        """As `progress`, without waiting: ``on_done`` gets the answer, None where there is none. False: not now."""
        return self._queries.submit(Reader.batch_progress, (batch,), on_done)

    async def state(self, user: str, direct_id: int) -> DirectState | None:
        """Return the state of a message; None for one that is not kept (any more)."""
        stored = await self._ledger.ask(Reader.direct, user, direct_id)
        return None if stored is None else stored.state

    async def progress(self, batch: str) -> dict[DirectState, int]:
        """How many messages of a batch are in each state."""
        return await self._ledger.ask(Reader.batch_progress, batch)

    def forget(self, user: str) -> None:
        """Deliver no more of what a user's inbox had: its messages are being removed."""
        for table in (self._pending, self._unsaved, self._unread):
            table.pop(user, None)

    def follow(self, items: Sequence[Item], result: Committed) -> None:
        """Take over what another node has submitted, and deliver it to the links here."""
        numbers = iter(result.direct_ids)
        for item in items:
            if isinstance(item, DirectEntry) and (number := next(numbers)) > 0:
                self._on_new(item, unpack_body(item.body)[0], number)
            elif isinstance(item, DirectAcked) and (pending := self._pending.get(item.user)) is not None:
                self._acknowledged(item.user, pending, item.direct_id)
        self._on_cancelled(lambda result: None, False, result)

    # ---- links

    def arrive(self, user: str, link: UserSession) -> None:
        """Deliver to a link that has logged in what is pending, then what comes; it is in the registry already."""
        pending = self._pending.get(user)
        if pending is not None:
            pending.links[link] = _Cursor(pending.acked)
            self._pump(user, pending, link)
        elif not self._knows_all:
            self._look_up(user)

    def leave(self, user: str, link: UserSession) -> None:
        """Stop delivering to a link that has ended."""
        pending = self._pending.get(user)
        if pending is not None:
            pending.links.pop(link, None)

    def acknowledge(self, user: str, link: UserSession, direct_id: int) -> None:
        """Acknowledge everything up to ``direct_id`` for the user of a link; what the link was never sent does not
        count."""
        pending = self._pending.get(user)
        cursor = None if pending is None else pending.links.get(link)
        if pending is None or cursor is None or min(direct_id, cursor.sent) <= pending.acked:
            return
        self._save(user, min(direct_id, cursor.sent))

    def _save(self, user: str, direct_id: int) -> None:
        """Write an acknowledgement. It counts when it is durable: else a restart would bring back, out of order,
        what another device of the user has not got.
        """
        pending = self._pending.get(user)
        if pending is None or direct_id <= max(pending.acked, pending.saving):
            return
        pending.saving = direct_id
        on_done = partial(self._on_saved, user, pending, direct_id)
        now_ms = self._unix_ms()
        items: tuple[Item, ...] = (DirectAcked(user, direct_id, now_ms), *self._report_acked(user, direct_id, now_ms))
        if self._ledger.record(items, on_done) is not SubmitResult.QUEUED:
            self._unsaved[user] = direct_id

    def _on_saved(self, user: str, pending: _Pending, direct_id: int, result: LedgerResult) -> None:
        if isinstance(result, LedgerError):
            self._unsaved[user] = max(direct_id, self._unsaved.get(user, 0))
            return
        if self._pending.get(user) is pending:
            self._acknowledged(user, pending, direct_id)

    def _acknowledged(self, user: str, pending: _Pending, direct_id: int) -> None:
        """Take that everything up to ``direct_id`` is acknowledged, and durably so."""
        pending.acked = max(pending.acked, direct_id)
        if pending.acked >= pending.last:
            del self._pending[user]
            return
        for link in list(pending.links):
            self._pump(user, pending, link)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Repeat what the ledger could not write or read, every `SAVE_AGAIN_S`. Until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(SAVE_AGAIN_S)
            unread, self._unread = self._unread, {}
            for user in unread:
                self._read_again(user)
            unsaved, self._unsaved = self._unsaved, {}
            for user, direct_id in unsaved.items():
                pending = self._pending.get(user)
                if pending is not None and pending.saving <= direct_id:
                    pending.saving = pending.acked
                    self._save(user, direct_id)

    def _read_again(self, user: str) -> None:
        pending = self._pending.get(user)
        if pending is None:
            if not self._knows_all:
                self._look_up(user)
            return
        for link in list(pending.links):
            self._pump(user, pending, link)

    # ---- delivery

    def _on_committed(
        self, entry: DirectEntry, payload: Any, on_done: Callable[[LedgerResult], None], result: LedgerResult
    ) -> None:
        if type(result) is Committed:
            direct_id = result.direct_ids[0]
            if direct_id > 0:
                self._on_new(entry, payload, direct_id)
            else:
                self.suppressed[Suppression(direct_id)] += 1
        on_done(result)

    def _on_new(self, entry: DirectEntry, payload: Any, direct_id: int) -> None:
        """Deliver a durable message at once to every link that has had everything before it."""
        user = entry.user
        pending = self._pending.get(user)
        if pending is None:
            if not self._knows_all:
                self._look_up(user)
                return
            links = tuple(link for link in self._users.sessions(user) if not link.is_remote)
            if not links and len(self._pending) >= MAX_USERS:
                self._knows_all = False
                return
            pending = self._pending[user] = _Pending(direct_id - 1, direct_id)
            pending.links = {link: _Cursor(direct_id - 1) for link in links}
        pending.last = direct_id
        if not pending.links:
            return
        message = Direct(direct_id, entry.kind, entry.at_ms, payload)
        packed = packed_direct(direct_id, entry.kind, entry.at_ms, entry.body)
        for link, cursor in list(pending.links.items()):
            if cursor.sent == direct_id - 1 and not cursor.is_asking and direct_id - pending.acked <= WINDOW:
                cursor.sent = direct_id
                self._deliver(link, message, packed)
            else:
                self._pump(user, pending, link)

    def _look_up(self, user: str) -> None:
        """Read from the ledger what a user has pending. Until then nothing is sent: acknowledging a later message would
        acknowledge the earlier ones.
        """
        if user in self._users and not self._queries.submit(_read_pending, (user,), partial(self._on_found, user)):
            self._unread[user] = None

    def _on_found(self, user: str, found: tuple[int, int] | None) -> None:
        if found is None:
            self._unread[user] = None  # logged already
            return
        acked, last = found
        if last <= acked or user in self._pending or user not in self._users:
            return
        pending = self._pending[user] = _Pending(acked, last)
        for link in [link for link in self._users.sessions(user) if not link.is_remote]:
            pending.links[link] = _Cursor(pending.acked)
            self._pump(user, pending, link)

    def _pump(self, user: str, pending: _Pending, link: UserSession) -> None:
        """Read the next messages of a link, if its window has space and there are any."""
        cursor = pending.links[link]
        cursor.sent = max(cursor.sent, pending.acked)
        room = WINDOW - (cursor.sent - pending.acked)
        if cursor.is_asking or cursor.sent >= pending.last or room <= 0:
            return
        on_done = partial(self._on_messages, user, pending, link, pending.last, room)
        cursor.is_asking = self._queries.submit(Reader.inbox, (user, cursor.sent, room), on_done)
        if not cursor.is_asking:  # too many ask at once
            self._unread[user] = None

    def _on_messages(
        self,
        user: str,
        pending: _Pending,
        link: UserSession,
        last: int,
        room: int,
        messages: Sequence[StoredDirect] | None,
    ) -> None:
        """Deliver what the ledger has read: up to ``room`` messages of those up to ``last``."""
        cursor = pending.links.get(link)
        if cursor is None or self._pending.get(user) is not pending:
            return
        cursor.is_asking = False
        if cursor.is_outdated:
            cursor.is_outdated = False
            self._pump(user, pending, link)
            return
        if messages is None:
            self._unread[user] = None  # logged already
            return
        for stored in messages:
            if stored.direct_id > max(cursor.sent, pending.acked):
                cursor.sent = stored.direct_id
                self._deliver(link, Direct(stored.direct_id, stored.kind, stored.at_ms, payload_of(stored)))
        if len(messages) < room:
            # There is no more up to ``last``: the rest has expired, was cancelled, or acknowledged by another link.
            if pending.last == last:
                pending.last = cursor.sent
                if cursor.sent <= pending.acked:
                    del self._pending[user]
                    return
            cursor.sent = max(cursor.sent, last)
        self._pump(user, pending, link)

    def _deliver(self, link: UserSession, message: Direct, packed: bytes | None = None) -> None:
        self.delivered += 1
        link.send(message, lane=Lane.COMMERCE, packed=packed)


def packed_direct(direct_id: int, kind: int, at_ms: int, body: bytes) -> bytes:
    """Return the packed `Direct` with the payload of a ledger row: ``body`` is the packed ``(payload,)``.

    The payload is packed once, for the ledger, and its bytes go to every link: both bodies are msgpack arrays of less
    than 16 elements, whose first byte holds the length.
    """
    fields = pack_body((direct_id, kind, at_ms))
    return bytes((fields[0] + 1,)) + fields[1:] + body[1:]


def _read_pending(reader: Reader, user: str) -> tuple[int, int]:
    """Return the number before the first pending message of ``user`` and the last one; (0, 0) = nothing is pending."""
    return reader.pending_inbox(user) or (0, 0)


def payload_of(stored: StoredDirect) -> Any:
    """Return what a message says; None, and a line in the log, where its body cannot be read. Any: a payload."""
    try:
        return unpack_body(stored.body)[0]
    except (RemoteProtocolError, IndexError):
        log.error("a message cannot be read", user=stored.user, direct_id=stored.direct_id)
        return None
