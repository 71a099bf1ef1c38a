"""RTC calls of a broker: rings the devices of users, hands both the token, and ends calls without an answer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import trio

from broker.core.tenants.names import plain_name
from broker.core.users.rtc import RING_S, CallEnd, RtcCall, RtcTable
from broker.ledger import Ledger, Reader, RecordPut, RecordRemoved, StoredRecord
from broker.ledger.records import read_records
from broker.users.message_stores import MessageStore
from broker.users.registry import LinkedUsers
from broker.webhooks.events import WebhookEvents
from protocol.activities import activity_payload
from protocol.activities.rtc import (
    RtcAccepted,
    RtcAnswered,
    RtcEnded,
    RtcEndedData,
    RtcRinging,
    RtcRingingData,
    RtcTransferred,
)
from protocol.codes import Lane, MessageType
from protocol.frames import pack_body
from protocol.messages import Direct

__all__ = ["KIND", "RtcService"]

KIND = "user.rtc_call"
"""Kind of the records of calls, where the next node that decides is to know them; subject: the caller, name: the id.
Erased with all records of a user."""

TICK_S = 0.5


class RtcService:
    """All calls of one broker. Counter ``rung`` only grows."""

    def __init__(
        self,
        store: MessageStore,
        users: LinkedUsers,
        unix_ms: Callable[[], int],
        clock: Callable[[], float],
        events: WebhookEvents,
        *,
        is_shared: bool = False,
    ) -> None:
        """``is_shared``: several nodes have the users; calls are kept, for the next node that decides."""
        self._is_shared = is_shared
        self.table = RtcTable()
        self._store = store
        self._users = users
        self._unix_ms = unix_ms
        self._clock = clock
        self._events = events
        self._wake = trio.Event()
        self.rung = 0
        """Calls that have begun."""

    @property
    def open_calls(self) -> int:
        """Calls that ring or are answered."""
        return len(self.table)

    async def load(self, ledger: Ledger) -> None:
        """Take over the calls of the node that decided before. One that rings does so for its whole time from now."""
        self.leave()
        now, now_ms = self._clock(), self._unix_ms()
        for call, answered_ms in await ledger.ask(_read_calls):
            call.started_at = now
            call.answered_at = None if answered_ms is None else now - max(0, now_ms - answered_ms) / 1000
            if self.table.ring(call):
                for user in call.users:
                    self.table.set_online(user, now, is_online=user in self._users)
        self._wake.set()

    def leave(self) -> None:
        """Forget all: another node decides now."""
        self.table = RtcTable()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End calls without an answer, and those of users who are gone. Until cancelled."""
        task_status.started()
        while True:
            if not len(self.table):
                self._wake = trio.Event()
                await self._wake.wait()
            await trio.sleep(TICK_S)
            for call, why in self.table.due(self._clock()):
                self.end(call, why)

    def on_change(self, user: str, is_online: bool) -> None:
        """Take note of a user's first link, or that the last one has ended."""
        self.table.set_online(user, self._clock(), is_online=is_online)

    def ring(self, conversation: str, caller: str, name: str, callee: str, *, video: bool) -> RtcCall | None:
        """Begin a call between two users (qualified ids; callee "" = it waits for `follow`); None: one of them has
        another one, or there are too many."""
        call = RtcCall(
            secrets.token_hex(8), conversation, caller, callee, secrets.token_urlsafe(24), self._clock()
        )  # fmt: skip
        call.name, call.video = name, video
        if not self.table.ring(call):
            return None
        self.rung += 1
        self._wake.set()
        self._keep(call)
        self._show_ringing(call)
        return call

    def _show_ringing(self, call: RtcCall) -> None:
        if not call.callee:
            return
        id, caller, callee = map(plain_name, (call.conversation, call.caller, call.callee))
        ringing = RtcRinging(id, caller, call.name, call.video, round(RING_S * 1000))
        self._show((call.callee,), "ringing", call, ringing)
        self._report("rtc.ringing", call, RtcRingingData(call.id, id, caller, callee, call.video))

    def follow(self, conversation: str, customer: str, holder: str) -> None:
        """Let the call of a customer of the service desk ring at who holds the conversation now; "" = it waits until
        one does. All ids are qualified."""
        call = self.table.of_user(customer)
        if call is None or (call.conversation, call.caller) != (conversation, customer) or call.callee == holder:
            return
        before = call.callee
        if not self.table.redirect(call, holder, secrets.token_urlsafe(24), self._clock()):
            self.end(call, CallEnd.BUSY)
            return
        self._keep(call)
        if before:
            self._show((before,), "ended", call, RtcEnded(CallEnd.TRANSFERRED.value, 0))
        self._show((customer,), "transferred", call, RtcTransferred(plain_name(holder) if holder else ""))
        self._show_ringing(call)

    def accept(self, call: RtcCall, user: str) -> bool:
        """Answer a call; False where it does not ring at this user, or another device was quicker."""
        if not self.table.accept(call, user, self._clock()):
            return False
        self._keep(call)
        self._show((call.callee,), "answered", call, RtcAnswered())
        self._show((call.caller,), "accepted", call, RtcAccepted(call.token))
        return True

    def end(self, call: RtcCall, why: CallEnd) -> None:
        """End a call; nothing happens where it has ended already."""
        if not self.table.end(call):
            return
        if self._is_shared:
            self._store.record((RecordRemoved(KIND, call.caller, call.id),), lambda result: None)
        lasted_ms = 0 if call.answered_at is None else max(0, round((self._clock() - call.answered_at) * 1000))
        self._show(call.users, "ended", call, RtcEnded(why.value, lasted_ms))
        callee = plain_name(call.callee) if call.callee else ""
        self._report("rtc.ended", call, RtcEndedData(call.id, plain_name(call.caller), callee, why.value, lasted_ms))

    def end_between(self, callee: str, caller: str) -> None:
        """End the call of two users (qualified ids), as the first one wants none of the other any more."""
        call = self.table.of_user(callee)
        if call is not None and caller in call.users:
            self.end(call, CallEnd.HUNG_UP if call.answered_at is not None else CallEnd.REJECTED)

    def forget(self, user: str) -> None:
        """End the call of a user who is being erased."""
        call = self.table.of_user(user)
        if call is not None:
            self.end(call, CallEnd.LOST)

    def _show(self, users: Iterable[str], verb: str, call: RtcCall, data: object) -> None:
        payload = activity_payload(f"rtc.{verb}", call.id, data)
        direct = Direct(0, MessageType.ACTIVITY, self._unix_ms(), payload)
        for user in users:
            self._users.send(user, direct, Lane.COMMERCE)

    def _report(self, kind: str, call: RtcCall, data: object) -> None:
        """Report to the platform, where it asks and the ledger takes it: a call goes on without."""
        items = self._events.of_user(kind, call.caller, data, self._unix_ms())
        if items:
            self._store.record(items, lambda result: None)

    def _keep(self, call: RtcCall) -> None:
        """Let the next node that decides know how a call is; it goes on where the ledger does not take that."""
        if not self._is_shared:
            return
        now_ms = self._unix_ms()
        answered_ms = None if call.answered_at is None else now_ms - round((self._clock() - call.answered_at) * 1000)
        body = pack_body((call.conversation, call.callee, call.token, call.name, call.video, answered_ms))
        self._store.record((RecordPut(KIND, call.caller, call.id, now_ms, body),), lambda result: None)


def _read_calls(reader: Reader) -> list[tuple[RtcCall, int | None]]:
    """Return the calls that are kept, and when each was answered (Unix milliseconds). Runs in the reading thread."""

    def call_of(record: StoredRecord, body: Sequence[Any]) -> tuple[RtcCall, int | None]:
        conversation, callee, token, name, video, answered_ms = body[:6]
        call = RtcCall(record.name, conversation, record.subject, callee, token, 0.0)
        call.name, call.video = name, video
        return call, answered_ms

    return list(read_records(reader, KIND, call_of))
