"""Bugs of every kind that the rules name, planted one by one: the simulation must find each within a few seeds.

A plant replaces a small part of the product. `PLANTS` has one row for each: what it breaks, the plant, and the
conditions under which the bug must show. A world without the plant passes under the same conditions.
"""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from broker import server
from broker.auth import tokens
from broker.auth.grants import RoomGrant
from broker.auth.ticket_keys import TicketKeyFile
from broker.auth.tickets import Tickets
from broker.auth.tokens import Authenticator
from broker.config.schema import Config
from broker.core.chat.fold import fold
from broker.core.commerce import gifts
from broker.core.commerce.gifts import ComboPacer
from broker.core.limits.join_limit import JoinLimit
from broker.core.limits.post_limits import PostLimits
from broker.core.limits.rate_limit import UNLIMITED, Gcra
from broker.core.net.connection_limits import AddressTable, ConnectionLimits
from broker.core.net.send_queue import QueueLimits
from broker.core.rooms import kept, posting
from broker.core.rooms.ended import EndedRooms
from broker.core.rooms.idempotency import OperationKey
from broker.core.rooms.keys import RoomKeys
from broker.core.rooms.posting import Posting
from broker.core.rooms.state import RoomState
from broker.core.rooms.types import TypeRules
from broker.ledger import Reader, RecordRemoved, make_key, schema
from broker.ledger.maintenance import Maintenance
from broker.ledger.transaction import Transaction
from broker.net import protocol_detection
from broker.net.transport import Framing, TransportSettings
from broker.operations import directs
from broker.operations.calls import HANDLERS
from broker.rooms import hub, room_store
from broker.rooms.hub import Hub
from broker.rooms.journal import RoomJournal
from broker.rooms.room import Room
from broker.sessions import joining, link
from broker.sessions.calls import LinkCalls
from broker.sessions.context import SessionContext
from broker.sessions.session import Session
from broker.users.inbox import Inboxes
from protocol.codes import ErrorCode, Role
from protocol.operations import BY_NAME, BY_NUMBER
from protocol.operations.directs import SentDirects
from tests.simulation.broker import SimBroker
from tests.simulation.disk import Disk, SimLedger
from tests.simulation.faults import QUIET
from tests.simulation.scenario import simulate
from tests.simulation.world import World

pytestmark = pytest.mark.integration

SEEDS = range(1, 9)
"""Worlds change with the broker: a bug that four of them showed yesterday may need the fifth today."""
Patch = pytest.MonkeyPatch


class Plant(NamedTuple):
    """One bug. ``point``: the kind of fault; ``conditions``: what replaces those of `QUIET`."""

    point: int
    plant: Callable[[Patch], None]
    conditions: dict[str, Any]
    seeds: range = SEEDS


PLANTS: dict[str, Plant] = {}


def bug(point: int, *probes: str, seeds: range = SEEDS, **conditions: Any) -> Callable[[Callable[[Patch], None]], None]:
    """Add a plant to `PLANTS` under its function's name."""

    def add(plant: Callable[[Patch], None]) -> None:
        PLANTS[plant.__name__] = Plant(point, plant, {"probes": probes, **conditions}, seeds)

    return add


def wrap(patch: Patch, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace an attribute by what ``make`` returns for the present one."""
    patch.setattr(owner, name, make(getattr(owner, name)))


# ---- 1: sizes


@bug(1, "snapshot")
def a_snapshot_above_the_cap(patch: Patch) -> None:
    patch.setattr(kept, "MAX_RECENT_BYTES", 1 << 30)


@bug(1, "combos")
def a_combo_above_the_range_of_its_count(patch: Patch) -> None:
    patch.setattr(gifts, "MAX_GIFT_COUNT", 1 << 40)


# ---- 2: keys


@bug(2, "keys")
def a_key_without_the_type(patch: Patch) -> None:
    wrap(patch, posting, "post_key", lambda key: lambda user, post: _renamed(key(user, post), lambda p: (*p[:2], p[3])))


@bug(2, "keys")
def a_key_joined_by_spaces(patch: Patch) -> None:
    wrap(patch, posting, "post_key", lambda key: lambda user, post: _renamed(key(user, post), lambda p: (" ".join(p),)))


def _renamed(key: OperationKey | None, name: Callable[[tuple[str, ...]], tuple[str, ...]]) -> OperationKey | None:
    return None if key is None else key._replace(parts=name(key.parts))


@bug(2, "keys")
def an_order_for_each_room(patch: Patch) -> None:
    patch.setattr(
        room_store,
        "_key",
        lambda room, key, asked: make_key("room", room, *key.parts, content=key.fingerprint, outcome=asked.outcome),
    )


@bug(2, "keys")
def a_key_without_content(patch: Patch) -> None:
    for name in ("post_key", "order_key"):
        wrap(patch, posting, name, lambda key: lambda *args: key(*args) and key(*args)._replace(fingerprint=b""))


@bug(2, kills=0.5, idle_close_s=0.5)
def keys_of_a_room_that_are_not_kept(patch: Patch) -> None:
    patch.setattr(room_store, "key_items", lambda room, event: [])


@bug(2, restarts=0.3)
def a_deleted_key_that_comes_back(patch: Patch) -> None:
    def without_removals(key_items: Callable[..., Any]) -> Callable[..., Any]:
        return lambda room, event: [item for item in key_items(room, event) if not isinstance(item, RecordRemoved)]

    wrap(patch, room_store, "key_items", without_removals)


@bug(2)
def a_key_whose_version_is_not_compared(patch: Patch) -> None:
    patch.setattr(RoomKeys, "_has_version", lambda keys, name, version: True)


# ---- 3: time


@bug(3, "clock")
def expiry_and_retention_by_the_raw_wall_clock(patch: Patch) -> None:
    def raw(init: Any) -> Any:
        def start(self: SimLedger, disk: Disk, results: Any, clock: Any) -> None:
            wall = SimpleNamespace(
                now_ms=disk.world.wall_ms, distrust=lambda: "", start=clock.start, trusted=clock.trusted
            )
            init(self, disk, results, wall)

        return start

    wrap(patch, SimLedger, "__init__", raw)


@bug(3, "clock")
def tokens_by_the_raw_wall_clock(patch: Patch) -> None:
    def raw(init: Any) -> Any:
        def start(self: SimBroker, world: World, disk: Disk) -> None:
            def by_the_wall(config: Any, *, clock: Any, rng: Any) -> Authenticator:
                return Authenticator(config, clock=lambda: world.wall_ms() / 1000, rng=rng)

            patch.setattr(server, "Authenticator", by_the_wall)
            init(self, world, disk)

        return start

    wrap(patch, SimBroker, "__init__", raw)


@bug(3, "expiry")
def messages_that_never_expire(patch: Patch) -> None:
    patch.setattr(Maintenance, "_expire", lambda *args: 0)


@bug(3, seeds=range(1, 9), kills=0.3, cuts=1.0)
def an_empty_answer_that_forgets_pending_messages(patch: Patch) -> None:
    calls = itertools.count()
    wrap(patch, Reader, "inbox", lambda inbox: lambda *args: inbox(*args) if next(calls) % 3 else [])


# ---- 4: restored ledgers


@bug(4, restores=True)
def a_restored_ledger_that_keeps_its_epochs(patch: Patch) -> None:
    def keep(begin: Any) -> Any:
        def lineage(self: Transaction, *args: Any) -> int:
            self.streams.find_all = lambda *args: []  # type: ignore[method-assign]
            return int(begin(self, *args))

        return lineage

    wrap(patch, Transaction, "begin_lineage", keep)


@bug(4, restores=True)
def a_restored_ledger_that_repeats_inbox_numbers(patch: Patch) -> None:
    from broker.ledger import inbox_rows

    patch.setattr(inbox_rows, "INBOX_STEP", 1)


# ---- 5: shares


@bug(5, "addresses")
def no_share_of_an_address(patch: Patch) -> None:
    patch.setattr(AddressTable, "is_full", lambda self, key: False)
    patch.setattr(ConnectionLimits, "_judge_address", lambda self, key, now: None)


@bug(5, "logins")
def no_limit_of_failed_log_ins(patch: Patch) -> None:
    patch.setattr(ConnectionLimits, "login_wait_s", lambda *args: 0.0)


@bug(5, "rooms")
def no_limit_of_new_rooms(patch: Patch) -> None:
    numbers = itertools.count()
    patch.setattr(hub, "address_key", lambda address: str(next(numbers)))


@bug(5, "rooms")
def unused_rooms_that_stay_open(patch: Patch) -> None:
    patch.setattr(Room, "is_left_unused", property(lambda self: False))


@bug(5, "guests")
def guests_that_open_rooms(patch: Patch) -> None:
    patch.setattr(Config, "open_roles", property(lambda self: frozenset(Role)))


@bug(5, "tickets")
def tickets_that_are_renewed_without_limit(patch: Patch) -> None:
    def without_interval(init: Any) -> Any:
        def start(self: SessionContext) -> None:
            init(self)
            self.renew_every_s = 0.0

        return start

    wrap(patch, SessionContext, "__post_init__", without_interval)


# ---- 6: guests


@bug(6, "guests")
def guests_that_resume_from_zero(patch: Patch) -> None:
    patch.setattr(joining, "Role", SimpleNamespace(GUEST=object(), MODERATOR=Role.MODERATOR, APP=Role.APP))


@bug(6, "guests")
def guests_in_every_room(patch: Patch) -> None:
    patch.setattr(tokens, "RoomGrant", lambda pattern, role: RoomGrant("*", role))


# ---- 7: rules of types


@bug(7, "batches")
def batches_of_types_that_the_role_may_not_send(patch: Patch) -> None:
    patch.setattr(directs, "_permitted", lambda parts, caller: frozenset(range(256)))


@bug(7, "batches")
def batches_above_the_size_of_their_type(patch: Patch) -> None:
    def any_size(refusal: Any) -> Any:
        def judge(*args: Any) -> ErrorCode | None:
            code: ErrorCode | None = refusal(*args)
            return None if code is ErrorCode.PAYLOAD_TOO_LARGE else code

        return judge

    wrap(patch, TypeRules, "refusal", any_size)


@bug(7, "batches")
def batches_of_viewers(patch: Patch) -> None:
    row = BY_NAME["directs.send_many"]
    patch.setitem(BY_NUMBER, row.number, row._replace(roles=frozenset(Role)))


@bug(7, "batches")
def batches_without_keys(patch: Patch) -> None:
    wrap(patch, Inboxes, "send", lambda send: lambda *args, key="", **kwargs: send(*args, **kwargs))


@bug(7)
def a_batch_that_is_answered_before_its_commit(patch: Patch) -> None:
    def early(parts: Any, caller: Any, request: Any) -> SentDirects:
        return SentDirects(request.batch, len(request.values), 0, 0)

    patch.setitem(HANDLERS, "directs.send_many", early)


@bug(7, "calls")
def calls_of_viewers_that_change_a_room(patch: Patch) -> None:
    row = BY_NAME["rooms.set_phase"]
    patch.setitem(BY_NUMBER, row.number, row._replace(roles=frozenset(Role)))


@bug(8, "calls")
def calls_that_are_answered_twice(patch: Patch) -> None:
    def twice(reply: Any) -> Any:
        def answer(self: Any, *args: Any) -> None:
            reply(self, *args)
            reply(self, *args)

        return answer

    wrap(patch, LinkCalls, "_reply", twice)


# ---- 8: answers


@bug(8, "leave")
def answers_that_are_dropped_after_leave(patch: Patch) -> None:
    def members_only(reply: Any) -> Any:
        def answer(self: Session, room: int, results: Any) -> None:
            if room in [each.room.number for each in self.memberships]:
                reply(self, room, results)

        return answer

    wrap(patch, Session, "reply_acks", members_only)


@bug(8, "leave")
def answers_that_are_sent_twice(patch: Patch) -> None:
    wrap(patch, Session, "send_acks", lambda send: lambda self, room, acks: send(self, room, acks * 2))


@bug(8, "duplicates")
def duplicates_of_texts_that_were_not_shown(patch: Patch) -> None:
    def mark(post: Any) -> Any:
        def always(self: Any, ticket: Any, author: Any, message: Any, now: float, at_ms: int) -> Any:
            effects = post(self, ticket, author, message, now, at_ms)
            self.duplicates.mark(hash((author.user_id, fold(message.payload[0]))), now)
            return effects

        return always

    wrap(patch, Posting, "_danmaku", mark)


# ---- 9: ended rooms


@bug(9, "ended")
def viewers_who_open_ended_rooms(patch: Patch) -> None:
    wrap(
        patch,
        Hub,
        "open",
        lambda open: (
            lambda self, name, *, joining=None, **kwargs: open(
                self, name, joining=None if joining is None else Role.HOST, **kwargs
            )
        ),
    )


@bug(9, "ended")
def ended_rooms_that_a_restart_forgets(patch: Patch) -> None:
    patch.setattr(Hub, "restore_ended", lambda *args: None)


@bug(9, "ended")
def ended_rooms_that_are_not_remembered(patch: Patch) -> None:
    patch.setattr(EndedRooms, "is_ended", lambda *args: False)


# ---- 10: bounds


@bug(10, burst=24, total_bytes=8192, link_bytes=1024, black_holes=1.0)
def queues_above_their_common_bound(patch: Patch) -> None:
    patch.setattr(TransportSettings, "_shed", lambda self: None)


@bug(10, burst=12, critical_bytes=1024, link_bytes=1024, black_holes=1.0)
def a_queue_above_its_bound(patch: Patch) -> None:
    def endless(init: Any) -> Any:
        def start(self: Any, poller: Any, limits: QueueLimits, *args: Any) -> None:
            init(self, poller, QueueLimits(limits.frames * 100, 1 << 30, 1 << 30), *args)

        return start

    wrap(patch, TransportSettings, "__init__", endless)


# ---- 11: verification


@bug(11, seeds=range(1, 13))
def a_ledger_whose_tallies_are_not_verified(patch: Patch) -> None:
    patch.setattr(Reader, "_verify_tallies", lambda *args: None)


# ---- 12: files


@bug(12)
def a_database_that_others_may_read(patch: Patch) -> None:
    patch.setattr(schema, "open_private", lambda path, flags: os.open(path, flags | os.O_CREAT, 0o644))


@bug(12, "tickets")
def a_ticket_key_that_is_not_kept(patch: Patch) -> None:
    patch.setattr(TicketKeyFile, "_read", lambda file: None)


# ---- 13: development mode


@bug(13, "origins", development=True)
def development_mode_for_every_origin(patch: Patch) -> None:
    every = frozenset("*")
    wrap(patch, protocol_detection, "upgrade", lambda upgrade: lambda request, origins: upgrade(request, every))


# ---- 14: likes


@bug(14, "likes")
def totals_that_are_not_written(patch: Patch) -> None:
    patch.setattr(RoomJournal, "checkpoint", lambda self: None)


# ---- 15: reload


@bug(15, "reload")
def a_reload_that_changes_no_limit(patch: Patch) -> None:
    first: set[int] = set()

    def once(use: Any) -> Any:
        def limits(self: Any, config: Any) -> None:
            if id(self) not in first:
                use(self, config)
            first.add(id(self))

        return limits

    wrap(patch, SessionContext, "use_limits", once)


# ---- 16: joins


@bug(16, "joins")
def no_limit_of_joins(patch: Patch) -> None:
    patch.setattr(JoinLimit, "wait_s", lambda *args, **kwargs: 0.0)


@bug(16, "joins")
def returns_that_cost_a_join(patch: Patch) -> None:
    wrap(patch, JoinLimit, "wait_s", lambda wait: lambda *args, is_free: wait(*args, is_free=False))


# ---- 17: torn ends


@bug(17, seeds=range(1, 13), restores=True)
def a_ledger_that_lacks_its_end_and_is_served(patch: Patch) -> None:
    patch.setattr(Reader, "_compare", lambda *args: None)


# ---- 18: limits of staff


@bug(18, "staff")
def staff_without_a_limit(patch: Patch) -> None:
    patch.setattr(PostLimits, "of_staff", lambda self, role: Gcra(UNLIMITED))


# ---- 19 to 22: JSON links, orders, the backend


@bug(19, "json")
def a_json_link_that_gets_binary_frames(patch: Patch) -> None:
    wrap(patch, link, "variant_of", lambda variant: lambda framing, *args: variant(Framing.WEBSOCKET, *args))


@bug(20, "combos")
def a_combo_that_does_not_count_its_orders(patch: Patch) -> None:
    def forget(wait: Any) -> Any:
        def merge(self: Any, combo: Any, position: int, orders: Any) -> None:
            others, count = bool(combo.waiting), combo.waiting_count
            wait(self, combo, position, orders)
            if others:
                combo.waiting_count = count

        return merge

    wrap(patch, ComboPacer, "_wait", forget)


@bug(21)
def a_backend_that_is_counted_as_a_viewer(patch: Patch) -> None:
    wrap(
        patch,
        RoomState,
        "enter",
        lambda enter: lambda self, user, name, role, now: enter(self, user, name, min(role, Role.HOST), now),
    )


# ---- tickets


@bug(3, "tickets")
def tickets_that_never_expire(patch: Patch) -> None:
    wrap(patch, Tickets, "verify", lambda verify: lambda self, ticket, now_s: verify(self, ticket, 0.0))


@bug(3, "tickets")
def tickets_that_outlive_their_token(patch: Patch) -> None:
    def longer(issue: Any) -> Any:
        def give(self: Any, grant: Any, now_s: int) -> Any:
            return issue(self, replace(grant, expires_at=now_s + 86_400), now_s)

        return give

    wrap(patch, Tickets, "issue", longer)


def found_by(plant: Plant) -> str:
    """Return the first seed and error that shows a bug; "" if no seed does."""
    for seed in plant.seeds:
        try:
            simulate(seed, **{**QUIET, **plant.conditions})
        except (Exception, BaseExceptionGroup) as error:
            found: BaseException = error
            while isinstance(found, BaseExceptionGroup):
                found = found.exceptions[0]
            return f"{seed}: {found!r}"
        finally:
            gc.collect()  # what a broken run leaves is reported here and not in a later test
    return ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", PLANTS)
def test_the_simulation_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant = PLANTS[name]
    plant.plant(monkeypatch)
    assert found_by(plant)


def test_every_kind_of_fault_has_a_plant() -> None:
    assert {plant.point for plant in PLANTS.values()} >= set(range(1, 19))
