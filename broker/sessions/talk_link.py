"""Users of this node for the node that decides about conversations, and what that node shows them.

The owner of the broker's log decides. The other nodes report to it which users have links there, a batch at a time:
all of them to a new owner, or where it asks for them, then what changes. It sends them what their users are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import trio

from broker.rooms.broker_log import BROKER_LOG
from broker.rooms.node_messages import Moved, NodeMessage, UsersAsked, UsersReported, UsersShown, read_message
from broker.rooms.owners import RoomOwners
from broker.users.talk import Talk
from protocol.codes import Lane, Opcode
from protocol.frames import pack_body
from protocol.messages import Message

__all__ = ["TalkLink"]

T = TypeVar("T")

GATHER_S = 0.02
"""How long changes of users' links are gathered."""
LOOK_S = 1.0
"""Time between two looks at who owns the log."""
REPORT_S = 5.0
"""Time between two reports, also of nothing: by its number the owner sees that it has missed one."""
MAX_USERS = 400
"""Users of one record; an array of the codec holds some more."""
MAX_WATCHES = 20
"""Watches of one record."""


class _Shown(NamedTuple):
    """A message on its way to users of one node."""

    message: Message
    lane: Lane
    body: bytes
    users: list[str]


class TalkLink:
    """The part of one node. ``send``: sends a record to a node; ``clock``: monotonic seconds."""

    def __init__(
        self,
        talk: Talk,
        owners: RoomOwners,
        send: Callable[[str, NodeMessage], None],
        clock: Callable[[], float],
    ) -> None:
        assert talk.shared is not None
        self._users = talk.shared
        self._talk = talk
        self._presences = talk.presences
        self._owners = owners
        self._send = send
        self._clock = clock
        self._reported_to = ""
        self._number = 0
        self._reported_at = 0.0
        self._last: dict[str, int] = {}
        """By other node: number of the last report that was taken."""
        self._shown: dict[str, _Shown] = {}
        self._wake, self._has_shown = trio.Event(), trio.Event()
        self._users.on_local, self._users.show = self._look_soon, self._show

    async def run(self) -> None:
        """Report and show until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show_gathered)
            while True:
                with trio.move_on_after(LOOK_S):
                    await self._wake.wait()
                self._wake = trio.Event()
                await trio.sleep(GATHER_S)
                self._report()

    def _look_soon(self) -> None:
        self._wake.set()

    # ---- what this node reports

    def _report(self) -> None:
        owner = self._owners.owner_of(BROKER_LOG)
        if owner == self._owners.node:
            self._reported_to = ""
            self._users.changed.clear()
            return
        if owner is None:
            self._reported_to = ""
            self._owners.find(BROKER_LOG, lambda found: self._look_soon())
        elif owner != self._reported_to:
            self._reported_to = owner
            self._report_all(owner)
        elif self._users.changed or self._clock() - self._reported_at >= REPORT_S:
            here = self._users.here
            for users in _batches(self._users.changed, MAX_USERS) or [()]:
                self._report_to(
                    owner, (user for user in users if user in here), (user for user in users if user not in here)
                )
        else:
            return
        self._users.changed.clear()

    def _report_all(self, owner: str) -> None:
        self._report_to(owner, (), (), begins=True)
        for users in _batches(self._users.here, MAX_USERS):
            self._report_to(owner, users, ())
        for watches in _batches(self._users.watches.items(), MAX_WATCHES):
            self._report_to(owner, (), (), watches)

    def _report_to(
        self,
        owner: str,
        online: Iterable[str],
        offline: Iterable[str],
        watches: Iterable[tuple[str, tuple[str, ...]]] = (),
        *,
        begins: bool = False,
    ) -> None:
        self._number += 1
        self._reported_at = self._clock()
        self._send(owner, UsersReported(self._number, begins, tuple(online), tuple(offline), tuple(watches)))

    # ---- what the owner takes and shows

    def owned(self) -> None:
        """Take that this node owns the log from now on: it decides, and asks the others for their users."""
        for node in self._owners.table.peers:
            if node != self._owners.node:
                self._send(node, UsersAsked())
        for watcher, users in self._users.watches.items():
            self._presences.resume(watcher, users)

    def left(self) -> None:
        """Take that this node does not own the log any more: another one decides."""
        self._talk.leave()
        self._last.clear()

    def node_gone(self, node: str) -> None:
        """Take that a node, or an earlier life of it, is gone."""
        self._users.drop(node)
        self._last.pop(node, None)

    def take(self, node: str, record: UsersReported | UsersAsked | UsersShown) -> None:
        """Take a record of another node."""
        match record:
            case UsersReported():
                self._take_report(node, record)
            case UsersAsked():
                self._reported_to = ""
                if self._owners.owner_of(BROKER_LOG) != node:
                    self._owners.look_again(BROKER_LOG)
                self._look_soon()
            case UsersShown(users, lane, body):
                message = read_message(Opcode.DIRECT, body)
                for user in users:
                    self._users.send_here(user, message, Lane(lane), body)

    def _take_report(self, node: str, report: UsersReported) -> None:
        if BROKER_LOG not in self._owners.fences:
            self._send(node, Moved(BROKER_LOG))
            return
        if report.begins:
            self._users.drop(node)
        elif self._last.get(node) != report.number - 1:
            self._send(node, UsersAsked())
            return
        self._last[node] = report.number
        self._users.report(node, report.online, report.offline)
        for watcher, users in report.watches:
            self._presences.resume(watcher, users)

    def _show(self, node: str, user: str, message: Message, lane: Lane, packed: bytes | None) -> None:
        """Show a message to a user at another node: users of one message go together."""
        waiting = self._shown.get(node)
        if waiting is not None and waiting.message is message and len(waiting.users) < MAX_USERS:
            waiting.users.append(user)
            return
        self._flush(node)
        self._shown[node] = _Shown(message, lane, packed or pack_body(message), [user])
        self._has_shown.set()

    def _flush(self, node: str) -> None:
        waiting = self._shown.pop(node, None)
        if waiting is not None:
            self._send(node, UsersShown(tuple(waiting.users), int(waiting.lane), waiting.body))

    async def _show_gathered(self) -> None:
        while True:
            await self._has_shown.wait()
            self._has_shown = trio.Event()
            for node in list(self._shown):
                self._flush(node)


def _batches(items: Iterable[T], size: int) -> list[tuple[T, ...]]:
    """Return items in batches of at most ``size``."""
    found = tuple(items)
    return [found[start : start + size] for start in range(0, len(found), size)]
