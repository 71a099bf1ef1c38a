"""The parts of a broker that handlers use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.auth.api_keys import ApiKeys
from broker.auth.ticket_keys import TicketKeyFile
from broker.core.rooms.types import TypeRules
from broker.ledger import Ledger
from broker.operations.broadcast_runs import BroadcastRuns
from broker.operations.caller import Caller, OperationError
from broker.operations.erasures import Erasures
from broker.operations.lottery_proofs import LotteryProofs
from broker.operations.other_nodes import OtherNodes
from broker.rooms.hub import Hub
from broker.rooms.locks import Locks
from broker.rooms.room import Room
from broker.rooms.room_store import RoomStore
from broker.rooms.word_lists import OwnLists
from broker.users.cards import Cards
from broker.users.conversations import Conversations
from broker.users.desks import Desks
from broker.users.inbox import Inboxes
from broker.users.presence import Presences
from broker.users.registry import UserRegistry
from broker.users.revocations import Revocations
from broker.users.rtc import RtcService
from broker.users.sanctions import Sanctions
from broker.users.talk import Talk
from broker.users.triggered import TriggeredMarketing
from broker.webhooks.questions import Questions
from broker.webhooks.service import WebhookDeliveries
from protocol.codes import ErrorCode

__all__ = ["BrokerControl", "Handler", "Parts", "Recall"]


@dataclass(frozen=True, slots=True)
class BrokerControl:
    """What operations may ask of the composition root.

    ``status``: readiness and the fields of ``/healthz``; ``counters``: by metric name; ``reload``: reads the
    configuration again and returns what changed and what needs a restart, ValueError or OSError where it cannot;
    ``drain``: begins the shutdown; ``connections``: open ones;
    ``sessions``: theirs, the oldest first; ``settings``: in force, by dotted name, without secrets; ``ticket_keys``:
    the file of keys for tickets, None where no tickets are issued; ``api_keys``: of the control API, None where none
    is needed; ``key_file``: theirs, None as well; ``read_api_keys``: reads it again, ValueError or OSError where it
    cannot; ``origins``: where settings that are not the default came from, by dotted name.
    """

    status: Callable[[], tuple[bool, dict[str, Any]]]
    counters: Callable[[], dict[str, int]]
    reload: Callable[[], Awaitable[tuple[list[str], list[str]]]]
    drain: Callable[[], None]
    connections: Callable[[], int]
    sessions: Callable[[], list[Any]]
    settings: Callable[[], dict[str, Any]]
    origins: Callable[[], dict[str, str]]
    uptime_ms: Callable[[], int]
    ticket_keys: Callable[[], TicketKeyFile | None]
    api_keys: Callable[[], ApiKeys | None]
    key_file: Callable[[], Path | None]
    read_api_keys: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of one broker, made by the composition root.

    ``ledger`` and ``inboxes`` None: nothing is kept; ``questions`` None: the platform is asked nothing.
    """

    hub: Hub
    users: UserRegistry
    types: TypeRules
    ledger: Ledger | None
    inboxes: Inboxes | None
    locks: Locks
    broadcasts: BroadcastRuns
    control: BrokerControl
    clock: Callable[[], float]
    unix_ms: Callable[[], int]
    revocations: Revocations
    word_lists: OwnLists
    sanctions: Sanctions
    webhooks: WebhookDeliveries | None = None
    """None where nothing is kept."""
    questions: Questions | None = None
    erasures: Erasures | None = None
    """None where nothing is kept."""
    room_store: RoomStore | None = None
    """None where nothing is kept."""
    talk: Talk | None = None
    """None of nodes that share an engine and keep nothing."""
    lottery_proofs: LotteryProofs = field(default_factory=LotteryProofs)
    others: OtherNodes = field(default_factory=OtherNodes)

    @property
    def conversations(self) -> Conversations | None:
        """Conversations of users; None of nodes that share an engine and keep nothing."""
        return None if self.talk is None else self.talk.conversations

    @property
    def cards(self) -> Cards | None:
        """Cards that the platform shows; None where nothing is kept."""
        return None if self.talk is None else self.talk.cards

    @property
    def marketing(self) -> TriggeredMarketing | None:
        """Triggered marketing; None where nothing is kept."""
        return None if self.talk is None else self.talk.marketing

    @property
    def presences(self) -> Presences | None:
        """Presence of users; None of nodes that share an engine and keep nothing."""
        return None if self.talk is None else self.talk.presences

    @property
    def rtc(self) -> RtcService | None:
        """RTC calls of users; None of nodes that share an engine and keep nothing."""
        return None if self.talk is None else self.talk.rtc

    @property
    def desks(self) -> Desks | None:
        """Service desks of tenants; None of nodes that share an engine and keep nothing."""
        return None if self.talk is None else self.talk.desks

    def room(self, name: str) -> Room:
        """Return an open room; OperationError UNKNOWN_ROOM where there is none."""
        room = self.hub.find(name)
        if room is None:
            raise OperationError(ErrorCode.UNKNOWN_ROOM, "is not open", "room")
        return room

    def charge_messages(self, caller: Caller, count: int) -> None:
        """Count messages to users for the caller's tenant; OperationError RATE_LIMITED above its quota.

        Messages to rooms are counted by the rooms.
        """
        use = self.hub.tenants.find(caller.tenant)
        wait_s = 0.0 if use is None else use.message_wait_s(self.clock(), count)
        if wait_s:
            retry_after_ms = max(1, round(wait_s * 1000))
            raise OperationError(ErrorCode.RATE_LIMITED, "quota of the tenant: messages", "", retry_after_ms)


# Any: each handler takes its own record and returns its own.
Handler = Callable[[Parts, Caller, Any], Any | Coroutine[Any, Any, Any]]
Recall = Callable[[Parts, str, int], Any]
"""Makes the answer of a call whose effect is known and whose answer is not kept: of the room, and the offset of its
event."""
