"""The registry of rooms and the nursery of their tasks.

A room is opened by the first JOIN (policy) or by call, gets a broker-wide number, and is removed when its task ends. A
room that crashes is closed, counted and logged once; its members get LEFT, every other room continues, and the next
JOIN opens it again from its checkpoint: with its epoch, its offsets and its in-memory history, so that clients that
return miss nothing. Without a ledger, a room that was idle begins a new epoch.

Viewers of one address open so many new rooms a minute, and one in which nothing was posted is forgotten soon after its
last viewer has left. So no address can fill the table of rooms, or push other rooms' checkpoints out.
"""

from __future__ import annotations

import random
import secrets
import sqlite3
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from math import floor, inf
from typing import Any

import structlog
import trio

from broker.config.moderation import ModerationConfig
from broker.config.schema import RoomConfig
from broker.core.clock import TrustedClock
from broker.core.commerce.room_activities import ActivityCounts, ActivityKey, RoomActivities, Times
from broker.core.limits.join_limit import JoinLimit
from broker.core.limits.overload import OverloadStage, TickPacer
from broker.core.limits.rate_limit import Gcra, Rate
from broker.core.moderation.sanctions import RoomSanctions, SanctionTable
from broker.core.moderation.screening import Screens
from broker.core.net.connection_limits import address_key
from broker.core.rooms.ended import EndedRooms
from broker.core.rooms.erasure import Erasure
from broker.core.rooms.event_ids import EventIds
from broker.core.rooms.idempotency import MAX_ORDERS, ORDER_WINDOW_S, IdempotencyTable
from broker.core.rooms.keys import KeySpace
from broker.core.rooms.live_stats import LiveBudget
from broker.core.rooms.masking import NameMask
from broker.core.rooms.policies import Policy
from broker.core.rooms.state import RoomRules, RoomState
from broker.core.rooms.totals import RoomReading, RoomTotals
from broker.core.rooms.types import CustomRule
from broker.core.structures.steps import run_steps
from broker.core.tenants.names import tenant_of
from broker.core.tenants.quotas import Tenants, TenantUse
from broker.core.users.preferences import PreferenceTable
from broker.ledger import LedgerDamaged, LedgerRefused, LedgerState, ResultBatch
from broker.rooms.actions import ActionQueue
from broker.rooms.activity_records import read_activity
from broker.rooms.ending import remove_members
from broker.rooms.fanout import FanOut
from broker.rooms.hints import RoomHints
from broker.rooms.measures import RoomMeasures
from broker.rooms.own_links import SessionsOf
from broker.rooms.room import PostRef, Room
from broker.rooms.room_checkpoints import RoomCheckpoint
from broker.rooms.room_store import RoomStore
from protocol.codes import ErrorCode, LeaveReason, Role, RoomPhase
from protocol.messages import Account

__all__ = ["Hub"]

log = structlog.get_logger("roomcast.hub")
GOES_ON = "the room goes on at another node"

CHECKPOINT_S = 1.0
"""How often totals are written, and so the likes that a kill can cost; one row a changed room, in one commit."""
CHECKPOINT_BATCH = 200
"""Rooms between two checkpoints of the event loop: 0.5 us for a room without a change."""
READ_AGAIN_S = 1.0
"""When the activities of a room that has crashed are read again, which the disk could not read; it stays closed."""
TOTALS_STEP = 100
"""Rooms that are summed in one step: some 0.6 ms where all have changed since they were read last, else 0.1 ms."""
MAX_RECALLS_WAITING = 100
"""Callers that wait for activities that have left memory: they are read one after the other."""
MAX_CRASHED = 100
"""Checkpoints of crashed rooms where no ledger keeps them; beyond, the room of the oldest begins a new epoch."""


class Hub:
    """All rooms of one broker."""

    def __init__(
        self,
        config: RoomConfig,
        rules: RoomRules,
        fanout: FanOut,
        *,
        open_roles: frozenset[Role],
        clock: Callable[[], float],
        unix_ms: Callable[[], int],
        rng: random.Random,
        room_store: RoomStore | None = None,
        results: ResultBatch | None = None,
        trusted: TrustedClock | None = None,
        tenants: Tenants | None = None,
        actions: ActionQueue | None = None,
        sessions_of: SessionsOf = lambda user: (),
    ) -> None:
        self.event_ids = EventIds(secrets.token_bytes(32))
        """Ids of events for watchers, the same over a restart if the key is."""
        self.tenants = Tenants() if tenants is None else tenants
        """Quotas of all tenants but the default one."""
        self._actions = ActionQueue() if actions is None else actions
        """What activities have to be done outside of their rooms."""
        self._results = results or ResultBatch()
        self._room_store = room_store
        self.key_space = KeySpace() if room_store is None else room_store.key_space
        self.trusted = TrustedClock(unix_ms, clock) if trusted is None else trusted
        """By it keys and sanctions expire."""
        self.preferences = PreferenceTable() if room_store is None else room_store.preferences
        self.sanctions = SanctionTable()
        """Who may not post, or not enter."""
        self._sessions_of = sessions_of
        self._config = config
        self._rules = rules
        self._fanout = fanout
        self.dictionaries = fanout.dictionaries
        self._open_roles = open_roles
        """Roles whose JOIN may open a new room."""
        self._clock = clock
        self._unix_ms = unix_ms
        self._rng = rng
        self._reports = None if room_store is None else room_store.reports
        self._by_name: dict[str, Room] = {}
        self._by_number: dict[int, Room] = {}
        self._last_number = 0
        self._crashed: dict[str, RoomCheckpoint] = {}
        self._nursery: trio.Nursery | None = None
        self._stage = OverloadStage.NORMAL
        self.second_taken = trio.Event()
        """Set when the last second of every room has been taken; another one follows it."""
        self.live_budget = LiveBudget()
        """Bytes of the live statistics of all rooms."""
        self.measures = RoomMeasures()
        """What all rooms measure together."""
        self._past = RoomTotals()
        """Sums of the rooms that have ended."""
        self._orders: IdempotencyTable[PostRef] = IdempotencyTable(ORDER_WINDOW_S, MAX_ORDERS)
        self._ended = EndedRooms(config.reopen_ended_s)
        self.join_limit = JoinLimit(rules.policy.user_joins)
        self._new_rooms = _new_rooms(config)
        """New rooms that viewers opened, by address."""
        self.activity_counts = ActivityCounts()
        self.hints = RoomHints(clock, unix_ms)
        """Keyword hints of all rooms."""
        self._recalls = trio.Lock()
        self.may_open: Callable[[str], bool] | None = None
        """Whether this node owns a room; None: there are no other nodes."""
        self.on_opened: Callable[[Room], None] | None = None
        """Called with each room that was opened, before it has members."""
        self.opened = 0
        self.crashed = 0

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Room]:
        return iter(list(self._by_name.values()))

    def use_policy(self, policy: Policy) -> None:
        """Apply another policy to all rooms, open ones included. O(rooms)."""
        if policy != self._rules.policy:
            self._rules = self._rules.with_policy(policy)
            self.join_limit.use_rate(policy.user_joins)
            for room in self._by_number.values():
                room.use_broker_policy(policy)

    def use_types(self, custom: Mapping[int, CustomRule]) -> None:
        """Apply other types of the deployment's own to all rooms, open ones included. O(rooms)."""
        self._rules.types.use(custom)
        for room in self._by_number.values():
            room.state.use_types()

    def use_moderation(self, config: ModerationConfig) -> None:
        """Take the hints; rooms screen for what the rules have when they screen next."""
        self.hints.use(config)

    def use_limits(self, config: RoomConfig, open_roles: frozenset[Role]) -> None:
        """Apply other limits of rooms from now on; open rooms stay, and keep the times after which they close."""
        if config.new_rooms_per_minute != self._config.new_rooms_per_minute:
            self._new_rooms = self._new_rooms.at_rate(_new_rooms(config).rate)
        self._config = config
        self._open_roles = open_roles

    @property
    def screens(self) -> Screens:
        """What messages and names are screened for."""
        return self._rules.screens

    @property
    def policy(self) -> Policy:
        """Limits of the rooms that have none of their own."""
        return self._rules.policy

    def room(self, number: int) -> Room | None:
        """Return the open room with a number."""
        return self._by_number.get(number)

    def find(self, name: str) -> Room | None:
        """Return the open room with a name."""
        return self._by_name.get(name)

    def epoch_of(self, name: str) -> int | None:
        """Return the present epoch of a room's stream, open or not; None where the room would begin a new one."""
        room = self._by_name.get(name)
        if room is not None:
            return room.state.epoch
        checkpoint = self._crashed.get(name) if self._room_store is None else self._room_store.find(name)
        return None if checkpoint is None else checkpoint.epoch

    def new_room_wait_s(self, address: str) -> float:
        """Return the seconds until viewers of an address may open a new room."""
        return self._new_rooms.wait_s(address_key(address), self._clock())

    def open(
        self, name: str, *, joining: Role | None = None, address: str = "", reopens: bool = True, number: int = 0,
        goes_on: bool = False,
    ) -> Room | ErrorCode:  # fmt: skip
        """Find or open a room.

        ``joining``: the role of a member that joins it from ``address``; None: the platform opens it. ``reopens``:
        whether staff and the platform open a room again that was ended; ``number``: in frames, 0 = a new one;
        ``goes_on``: it was open at another node.

        A refusal is a value: UNKNOWN_ROOM (the role opens no new rooms), RATE_LIMITED (too many new rooms of one
        address, see `new_room_wait_s`), ROOM_ENDED (for viewers, until staff or the platform open the room again or
        ``room.reopen_ended_s`` have passed), TOO_MANY_ROOMS_OPEN (of the broker or of the tenant), or OVERLOADED where
        the hub has no task, or the ledger has not yet answered every record of the room's last run.
        """
        room = self._by_name.get(name)
        if room is not None and room.state.phase is not RoomPhase.ENDED:
            return room
        if self.may_open is not None and not self.may_open(name):
            return ErrorCode.OVERLOADED
        room_store = self._room_store
        checkpoint = None
        if room is not None and (
            room.has_crashed
            or (room_store is not None and room.ended[0] is not LeaveReason.ROOM_ENDED and not room.is_left_unused)
        ):
            if room.journal.pending or room.is_reading:
                return ErrorCode.OVERLOADED
            checkpoint = self._checkpoint(room)
        if not reopens or (joining is not None and joining < Role.MODERATOR):
            was_ended = room is not None and room.ended[0] is LeaveReason.ROOM_ENDED and not room.has_crashed
            if (was_ended and self._config.reopen_ended_s) or self._ended.is_ended(name, self._clock()):
                return ErrorCode.ROOM_ENDED
        is_known = (
            checkpoint is not None or name in self._crashed or (room_store is not None and room_store.knows(name))
        )
        if joining is not None and not is_known and joining not in self._open_roles:
            return ErrorCode.UNKNOWN_ROOM
        if len(self._by_name) >= self._config.max_rooms:
            return ErrorCode.TOO_MANY_ROOMS_OPEN
        if self._nursery is None:
            return ErrorCode.OVERLOADED
        is_by_viewer = joining is not None and joining < Role.MODERATOR and not is_known
        if is_by_viewer and self._new_rooms.try_acquire(address_key(address), self._clock()):
            return ErrorCode.RATE_LIMITED
        if not self.tenants.try_open_room(tenant_of(name), goes_on=goes_on):
            return ErrorCode.TOO_MANY_ROOMS_OPEN
        number = number or self.next_number()
        if checkpoint is None:
            checkpoint = self._crashed.pop(name, None) if room_store is None else room_store.take(name)
        epoch = self._rng.getrandbits(48) if checkpoint is None else checkpoint.epoch
        state: RoomState[PostRef] = RoomState(
            self._rules, epoch, self._rng, self._clock(), name, self._orders, self.key_space,
            self._activities_of(checkpoint), RoomSanctions(self.sanctions, name, self.trusted.continued_ms),
            self.live_budget,
        )  # fmt: skip
        state.stage = self._stage
        if checkpoint is not None:
            state.rankings.restore(checkpoint.scores)
            now_ms = None if self.trusted.distrust() else self.trusted.now_ms()
            state.restore(checkpoint.last_offset, checkpoint.totals, checkpoint.events, self._clock(), now_ms)
            state.keys.restore(*checkpoint.keys, self._clock(), is_counted=True)
            state.gifts.restore(checkpoint.combos)
            state.highlights.restore(checkpoint.highlights)
        room = Room(
            name,
            number,
            state,
            self._fanout,
            TickPacer(state.policy.tick_ms, state.policy.tick_max_ms),
            self._results,
            idle_close_s=self._config.idle_close_s,
            unused_close_s=self._config.unused_close_s if is_by_viewer else inf,
            clock=self._clock, unix_ms=self._unix_ms, room_store=room_store, event_ids=self.event_ids,
            on_crash=self.crash, trusted=self.trusted,
            reporter=None if self._reports is None else self._reports.of(name, epoch),
            tenant=self.tenants.find(tenant_of(name)), on_actions=self._actions.put, sessions_of=self._sessions_of,
            hints=self.hints, preferences=self.preferences, mask=self.mask_of(name), measures=self.measures,
        )  # fmt: skip
        if checkpoint is None:
            room.journal.open_epoch()
        if self.on_opened is not None:
            self.on_opened(room)
        self._ended.discard(name)
        self._by_name[name] = room
        self._by_number[room.number] = room
        self.opened += 1
        self._nursery.start_soon(self._supervise, room, name=f"room {name}")
        log.info("room opened", room=name, number=room.number)
        return room

    def next_number(self) -> int:
        """Return a number for a room, which no other of this process has had."""
        self._last_number += 1
        return self._last_number

    def mask_of(self, name: str) -> NameMask | None:
        """Return the masks of a room (qualified name); None: it masks no name."""
        use = self.tenants.find(tenant_of(name))
        return NameMask(self.event_ids.mask_key(name)) if self._masks_guests(use) else None

    def give_up(self, room: Room) -> None:
        """End a room here, without its members, that goes on at another node."""
        if self._by_name.get(room.name) is room:
            del self._by_name[room.name]
        room.end(LeaveReason.ROOM_IDLE, GOES_ON)

    def _masks_guests(self, tenant: TenantUse | None) -> bool:
        """Return whether guests get masks in rooms of a tenant, None = the default one."""
        own = None if tenant is None else tenant.quotas.masks_guests
        return self._rules.masks_guests if own is None else own

    def flush(self, room: Room) -> None:
        """Publish at once what a room holds back, and write its checkpoint: the broker is about to stop."""
        try:
            room.flush()
            room.journal.checkpoint()
        except Exception:
            self.crash(room)

    def end_run(self, room: Room) -> None:
        """Submit the counters of a room whose task ends: the last ones of its run."""
        try:
            room.journal.sample(is_last=True)
        except Exception:
            self.crash(room)

    def erase(self, room: Room, erasure: Erasure) -> bool:
        """Keep nothing of a user any more in an open room of its tenant; return whether that is done, see
        `Room.erase`."""
        try:
            return room.erase(erasure)
        except Exception:
            self.crash(room)
            return False

    def set_stage(self, stage: OverloadStage) -> None:
        """Set the overload stage of every room."""
        self._stage = stage
        for room in self._by_name.values():
            room.stage = stage

    @property
    def stage(self) -> OverloadStage:
        """Overload stage in force."""
        return self._stage

    def totals_in_steps(self) -> Generator[None, None, RoomTotals]:
        """Sum all rooms, those that have ended included, and stop after each `TOTALS_STEP` rooms, so that the event
        loop may run; the returned sums only grow from one time to the next.

        A room that ends meanwhile is counted once, as ended; one that is opened meanwhile is counted the next time.
        """
        totals = RoomTotals(self._past)
        for count, room in enumerate(list(self._by_number.values()), 1):
            if room.number in self._by_number:
                totals.add(room.name, self._read(room))
            else:
                totals.add_closed(room.state.counters)
            if count % TOTALS_STEP == 0:
                yield
        return totals

    @staticmethod
    def _read(room: Room) -> RoomReading:
        """Return the numbers of an open room, those read before where nothing has happened in it since."""
        if room.reading is None:
            room.reading = RoomReading.of(room.state.counters, room.state.activities.activities)
        return room.reading

    def totals(self) -> RoomTotals:
        """Return the sums over all rooms, those that have ended included. O(rooms), see `totals_in_steps`."""
        return run_steps(self.totals_in_steps())

    def accounts(self) -> tuple[Account, ...]:
        """Return the five lanes' accounts over all rooms, those that have ended included."""
        return self.totals().accounts

    @property
    def limiter_full(self) -> int:
        """Refusals because a table of the limits of all rooms was full: of joins, and of new rooms."""
        return self.join_limit.full_refusals + self._new_rooms.full_refusals

    @property
    def keys_lost(self) -> int:
        """Keys of orders forgotten before their time."""
        return self._orders.forgotten

    def rooms_with_activity(self, key: ActivityKey) -> list[str]:
        """Return the rooms that have an activity in memory, with a task or without. O(rooms)."""
        found = [
            room.name
            for room in self._by_name.values()
            if room.state.activities.activities is not None and room.state.activities.activities.find(*key) is not None
        ]
        return found if self._room_store is None else [*found, *self._room_store.with_activity(key)]

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the rooms' tasks until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for name in () if self._room_store is None else self._room_store.with_activities():
                self.open(name)
            try:
                task_status.started()
                while True:
                    due = (floor(self._clock() / CHECKPOINT_S) + 1) * CHECKPOINT_S
                    await trio.sleep(max(0.0, due - self._clock()))  # it may have passed between the two readings
                    await self._take_second(floor(max(due, self._clock())))
                    self.join_limit.sweep(self._clock())
                    self._new_rooms.sweep(self._clock())
                    await self._checkpoint_all()
                    if self._reports is not None:
                        self._reports.flush(self._clock())
            finally:
                self._nursery = None

    async def _take_second(self, second: int) -> None:
        """Take what happened in each room in the second that is over, and wake those who follow it."""
        for count, room in enumerate(self, 1):
            room.state.counters.take_second(second)
            if count % CHECKPOINT_BATCH == 0:
                await trio.lowlevel.checkpoint()
        taken, self.second_taken = self.second_taken, trio.Event()
        taken.set()

    async def _checkpoint_all(self) -> None:
        """Write the totals of every room that has changed; the ledger commits them together."""
        if self._room_store is None:
            return
        self._room_store.write_again()
        for count, room in enumerate(self, 1):
            try:
                if room.state.phase is not RoomPhase.ENDED:
                    room.journal.checkpoint()
                    room.journal.sample()
            except Exception:
                self.crash(room)
            if count % CHECKPOINT_BATCH == 0:
                await trio.lowlevel.checkpoint()

    async def write_checkpoints(self) -> None:
        """Write the totals of all rooms, again and again where the ledger's queue is full, until it has them all.

        Returns early where the ledger cannot write.
        """
        store = self._room_store
        while store is not None and store.ledger.state is LedgerState.READY:
            await self._checkpoint_all()
            await store.ledger.flush()
            if not store.unwritten and all(room.has_crashed or room.journal.is_written for room in self):
                return

    async def _supervise(self, room: Room) -> None:
        """Run one room; however it ends, remove its members and the room, and keep its account."""
        try:
            try:
                await room.run()
            except Exception:
                self.crash(room)
            try:
                await remove_members(room)
            except Exception:
                self.crash(room)
            await room.journal.wait_answered()
            self.end_run(room)
            if room.has_crashed:
                await self._read_activities(room)
            if room.ended[1] != GOES_ON:
                log.info("room ended", room=room.name, number=room.number, reason=room.ended[0].name)
        finally:
            if self._by_number.get(room.number) is room:
                del self._by_number[room.number]
            room.state.counters.live.clear()
            room.traces.clear()
            if room.ended[0] is LeaveReason.ROOM_ENDED and not room.has_crashed:
                room.state.keys.clear()
                if room.state.phase is RoomPhase.ENDED:  # not where the broker stops
                    room.journal.remove_records()
            if room.tenant is not None:
                room.tenant.rooms -= 1
            if self._by_name.get(room.name) is room:
                del self._by_name[room.name]
                self._keep_checkpoint(room)
            try:
                self._past.add_closed(room.state.counters)
            except Exception:
                log.exception("the account of a room is not counted", room=room.name, number=room.number)

    def restore_ended(self, ended_ago_s: Mapping[str, float]) -> None:
        """Take over the rooms that were ended before this process started: name and seconds since then."""
        now = self._clock()
        for name, ago_s in ended_ago_s.items():
            self._ended.add(name, now - max(0.0, ago_s))

    def _activities_of(self, checkpoint: RoomCheckpoint | None) -> RoomActivities[Any] | None:
        """Return the activities of a room that is opened; None where nothing is kept."""
        if self._room_store is None:
            return None
        activities = None if checkpoint is None else checkpoint.activities
        if activities is None:
            activities = RoomActivities(self._room_store.kinds)
        activities.counts = self.activity_counts
        return activities

    def recall(self, room: Room, key: ActivityKey) -> Coroutine[Any, Any, None] | None:
        """Return what takes an activity of a room from the ledger again that has left memory (`RoomActivities.recall`);
        awaiting raises what `Ledger.ask` does. None: too many wait for that."""
        waiting = self._recalls.statistics().tasks_waiting
        return None if waiting >= MAX_RECALLS_WAITING else self._recall(room, key)

    async def _recall(self, room: Room, key: ActivityKey) -> None:
        async with self._recalls:
            steps, store = room.state.activities, self._room_store
            activities = steps.activities
            if store is not None and activities is not None and activities.has_left(key):
                activity = await store.ledger.ask(
                    read_activity, store.kinds, room.name, room.state.epoch, key, store.erasing
                )
                if steps.activities is activities:  # the room may have crashed
                    times = Times(self.trusted.now_ms(), self.trusted.continued_ms())
                    steps.recall(activity, self._clock(), times)
                    room.reading = None

    async def _read_activities(self, room: Room) -> None:
        """Read the activities of a room that has crashed, whose memory is not to be trusted, from the ledger."""
        steps = room.state.activities
        if self._room_store is None or steps.activities is None or not len(steps.activities):
            return
        room.is_reading = True
        try:
            while True:
                try:
                    steps.activities = await self._room_store.read_activities(room.name, room.state.epoch)
                    return
                except sqlite3.Error as error:
                    log.warning("the activities of a room cannot be read yet", room=room.name, why=str(error))
                await trio.sleep(READ_AGAIN_S)
        except (LedgerRefused, LedgerDamaged) as error:
            log.error("the activities of a room cannot be read", room=room.name, why=str(error))
        finally:
            room.is_reading = False

    def _keep_checkpoint(self, room: Room) -> None:
        """Keep the checkpoint of a closed room, unless the room was ended."""
        if room.ended[0] is LeaveReason.ROOM_ENDED and not room.has_crashed:
            self._ended.add(room.name, self._clock())
        room_store = self._room_store
        if room_store is None:
            checkpoint = self._checkpoint(room) if room.has_crashed else None
            if checkpoint is not None:
                self._crashed[room.name] = checkpoint
                if len(self._crashed) > MAX_CRASHED:
                    forgotten = self._crashed.pop(next(iter(self._crashed)))
                    self.key_space.take(-forgotten.keys.nbytes)
            else:
                room.state.keys.clear()
        elif room.state.phase is RoomPhase.ENDED and (room.ended[0] is LeaveReason.ROOM_ENDED or room.is_left_unused):
            room_store.end(room.name, room.state.epoch, unused=room.is_left_unused)
        elif (checkpoint := self._checkpoint(room)) is not None:
            room_store.close(room.name, checkpoint)

    def _checkpoint(self, room: Room) -> RoomCheckpoint | None:
        """Return the checkpoint of a room; None if a defect prevents it."""
        try:
            return room.journal.last_checkpoint(with_events=room.has_crashed)
        except Exception:
            log.exception("no checkpoint of a room", room=room.name, number=room.number)
            return None

    def crash(self, room: Room) -> None:
        """End a room whose code has failed, in its task or in a call from a session, and no other.

        What fails in a room that has crashed already is part of the same crash.
        """
        if not room.has_crashed:
            self.crashed += 1
            log.exception("room crashed", room=room.name, number=room.number)
            room.crash()


def _new_rooms(config: RoomConfig) -> Gcra:
    return Gcra(Rate(config.new_rooms_per_minute / 60, config.new_rooms_per_minute))
