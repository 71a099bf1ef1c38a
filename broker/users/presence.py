"""Presence of users: whether they have an open link, for the users who share a conversation with them.

Changes gather for `SEND_AFTER_S`, so that a link that is replaced by another one at once is no change. A user who is
hidden, by its own wish or the platform's, and one who blocks the watcher, is shown as offline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from broker.core.tenants.names import plain_name
from broker.core.users.preferences import PreferenceTable
from broker.core.users.presence import PresenceTable
from broker.ledger import Committed, Ledger, LedgerResult, Reader, RecordPut, RecordRemoved, SubmitResult
from broker.ledger.records import all_records
from broker.users.conversations import Conversations
from broker.users.message_stores import MessageStore
from broker.users.registry import LinkedUsers
from protocol.activities import activity_payload
from protocol.activities.presence import PresenceChanged
from protocol.codes import Lane, MessageType
from protocol.frames import pack_body
from protocol.messages import Direct

__all__ = ["SEND_AFTER_S", "Presences"]

KIND = "user.presence"
"""Kind of the records of users who are hidden; erased with all records of a user."""
SEND_AFTER_S = 0.5


class Presences:
    """Presence of all users of one broker. Counter ``sent`` only grows."""

    def __init__(
        self,
        store: MessageStore,
        conversations: Conversations,
        users: LinkedUsers,
        preferences: PreferenceTable,
        unix_ms: Callable[[], int],
    ) -> None:
        self.table = PresenceTable()
        self._store = store
        self._conversations = conversations
        self._users = users
        self._preferences = preferences
        self._unix_ms = unix_ms
        self._hidden: set[str] = set()
        self._changed: set[str] = set()
        conversations.on_known = self.note
        self._wake = trio.Event()
        self.sent = 0
        """Changes that watchers were sent."""

    async def load(self, ledger: Ledger) -> None:
        """Take over who is hidden. At the start, before connections are accepted."""
        self._hidden = await ledger.ask(_read_hidden)

    def leave(self) -> None:
        """Forget all: another node decides now."""
        self.table = PresenceTable()
        self._hidden, self._changed = set(), set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send watchers what has changed. Until cancelled."""
        task_status.started()
        while True:
            if not self._changed:
                self._wake = trio.Event()
                await self._wake.wait()
            await trio.sleep(SEND_AFTER_S)
            changed, self._changed = self._changed, set()
            for user in changed:
                self._send_changes(user)
                await trio.lowlevel.checkpoint()

    def on_change(self, user: str, is_online: bool) -> None:
        """Take note of a user's first link, or that the last one has ended."""
        if not is_online:
            self.table.end(user)
        self.note(user)

    def note(self, user: str) -> None:
        """Send the watchers of a user soon what has changed."""
        if self.table.is_watched(user):
            self._changed.add(user)
            self._wake.set()

    def _send_changes(self, user: str) -> None:
        for watcher in self.table.watchers(user):
            is_online = self.is_shown(user, watcher)
            if not self.table.must_send(user, watcher, is_online=is_online):
                continue
            self.sent += 1
            payload = activity_payload("presence.changed", plain_name(user), PresenceChanged(is_online))
            direct = Direct(0, MessageType.ACTIVITY, self._unix_ms(), payload)
            self._users.send(watcher, direct, Lane.COMMERCE)

    def is_shown(self, user: str, watcher: str = "") -> bool:
        """Return whether a user is shown as online to another one; "" = to the platform."""
        if user not in self._users:
            return False
        if not watcher:
            return True
        if user in self._hidden or self._preferences.is_hidden(user):
            return False
        table = self._conversations.table
        return not table.blocks(user, plain_name(watcher)) and table.is_known(user, watcher)

    def watch(self, watcher: str, users: Sequence[str]) -> list[bool]:
        """Let a user watch others; return for each whether it is shown as online now. One that has nothing to do with
        the watcher (`ConversationTable.is_known`) is offline until it has."""
        self.table.watch(watcher, users)
        shown = [self.is_shown(user, watcher) for user in users]
        for user, is_online in zip(users, shown, strict=True):
            self.table.must_send(user, watcher, is_online=is_online)
        return shown

    def resume(self, watcher: str, users: Sequence[str]) -> None:
        """Let a user go on watching others, which another node has decided before; it is sent how they are."""
        self.table.resume(watcher, users)
        for user in users:
            self.note(user)

    def set_visible(self, user: str, on_done: Callable[[LedgerResult], None], *, is_visible: bool) -> SubmitResult:
        """Show a user to its watchers, or hide it."""

        def on_written(result: LedgerResult) -> None:
            if isinstance(result, Committed):
                (self._hidden.discard if is_visible else self._hidden.add)(user)
                self.note(user)
            on_done(result)

        put = RecordPut(KIND, user, "", self._unix_ms(), pack_body(()))
        return self._store.record((RecordRemoved(KIND, user, "") if is_visible else put,), on_written)

    def forget(self, user: str) -> None:
        """Forget a user who is being erased."""
        self._hidden.discard(user)
        self.table.end(user)


def _read_hidden(reader: Reader) -> set[str]:
    return {record.subject for record in all_records(reader, KIND)}
