"""What a tenant has on a broker, for tests that call the whole table of operations as another tenant."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

import trio

from broker.core.tenants.names import SEPARATOR, tenant_of
from broker.operations.caller import Caller, OperationError
from broker.server import Broker
from protocol.json_values import as_json
from protocol.messages import Ping, Pong, State
from protocol.operations import BY_NAME, OPERATIONS, KeyUse, OperationRow
from tests.support.broker import RawLink
from tests.support.tenants import backend

OWNER = "acme"
TENANTS = [{"name": "acme"}, {"name": "globex"}]
KEY = "the-key-of-all"
OF_THE_BROKER = frozenset(row.name for row in OPERATIONS if row.subject == "broker")
ENDS = frozenset(
    {
        "rooms.close", "rooms.set_phase", "users.kick", "users.disconnect", "users.revoke", "directs.cancel",
        "packets.cancel", "rains.cancel",
    }
)  # fmt: skip
"""Rows that end what others need."""
GOES_ON = frozenset({"orders.event", "users.erase"})
"""Rows whose effect has a part that follows later."""
MASKED = frozenset(
    {
        "entry",  # of the audit: the ledger numbers the entries of all tenants
        "epoch",
        "opened_at_ms",
        "at_ms",
        "applied_at_ms",
        "expires_at_ms",
        "revoked_at_ms",
        "since_ms",
        "until_ms",
        "received_at_ms",
        "decided_ms",
        "published_ms",
        "written_ms",
        "version",
        "fence",
        "seed",
        "seed_hash",
        "code",
        "commitment",
        "job",
        "reached",
        "missed",
        "done",
        # Events that follow at a time; tests/operations/test_reports.py and test_room_exports.py look for others' data.
        "report",
        "lines",
        "last",
        "action",
    }
)
"""Fields that are chance or time."""
LOCK_TTL_MS = 600_000
YEAR_2001_MS = 978_307_200_000
"""Higher numbers are times, and versions and epochs made from them, which payloads of events hold without a name."""


def push_counters_at_once(broker: Broker) -> None:
    """Let no counter be late: it would look like one of the intruder."""
    assert broker.room_store is not None
    broker.room_store.kinds = {
        name: kind._replace(counter_every_ms=0) for name, kind in broker.room_store.kinds.items()
    }


async def answer(broker: Broker, caller: Caller, row: OperationRow, request: Any) -> Any:
    """Return what a caller gets, without what is chance or time."""
    with trio.fail_after(20):
        try:
            result, _ = await broker.operations.call(caller, row, tuple(request))
        except OperationError as error:
            return error.code.name, error.field, error.rule
    text = repr(result)
    assert SEPARATOR not in text, f"{row.name} returns a qualified name: {text}"
    return masked(as_json(result))


def masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "*" if name in MASKED else masked(each) for name, each in value.items()}
    if isinstance(value, list):
        return [masked(each) for each in value]
    return "*" if type(value) is int and value > YEAR_2001_MS else value


async def populate(broker: Broker, tenant: str) -> None:
    """Give a tenant something of everything that the examples of the table name."""
    for name, *request in (
        ("rooms.open", "live-1"),
        ("messages.publish", "live-1", 4, ("secret",)),
        ("directs.send", "ann", 4, ("secret",)),
        ("directs.send_many", "may", 4, ("secret",), None, ("ann", "bob")),
    ):
        row = BY_NAME[name]
        app = backend(tenant, key=KEY if row.key is not KeyUse.NONE else "")
        await broker.operations.call(app, row, request)
    for row in OPERATIONS:
        if row.changes and row.name not in ENDS | OF_THE_BROKER | GOES_ON:
            request = row.example[0]
            if row.name == "locks.acquire":
                # The next lock of any tenant removes those that have ended, which would look like the intruder's doing.
                request = request._replace(ttl_ms=LOCK_TTL_MS)
            await answer(broker, backend(tenant), row, request)
    await at_rest(broker)


def has_pushed_rankings(broker: Broker) -> bool:
    return all(room.state.rankings.next_push_at == inf for room in broker.hub)


async def at_rest(broker: Broker) -> None:
    """Wait until the ledger has all that the broker writes by itself."""
    for room in broker.hub:
        room.journal.checkpoint()
    assert broker.ledger is not None
    await broker.ledger.flush()


def memory_of(broker: Broker, tenant: str) -> list[Any]:
    """Return what the broker holds of a tenant."""
    found: list[Any] = []
    for room in broker.hub:
        if tenant_of(room.name) == tenant:
            state = room.state
            found.append((room.name, state.epoch, state.last_offset, state.phase))
            found.append((state.counters.counts(), state.counters.accounts()))
            found.append(sorted(member.user_id for member in room.members.all()))
            found.append(state.totals())
            found.append([tuple(view) for view in state.keys.views()])
    assert broker.inboxes is not None
    users = {user for user in broker.inboxes.pending_users if tenant_of(user) == tenant}
    found.append(sorted((user, len(broker.users.sessions(user))) for user in users))
    found.append([each for each in broker.revocations.table.all() if each.tenant == tenant])
    use = broker.hub.tenants.find(tenant)
    if use is not None:
        found.append((use.connections, use.rooms, use.messages, use.calls, dict(use.refused)))
    return found


async def heard(link: RawLink) -> list[Any]:
    """Return what a link was sent until the broker answers its PING, without counters."""
    await link.send((Ping(1), 0, 4711))
    found: list[Any] = []
    while True:
        frame = await link.next_frame()
        assert frame is not None, "the link has ended"
        if isinstance(frame.message, Pong) and frame.sequence == 4711:
            return found
        if not isinstance(frame.message, State):
            found.append(frame.message)


def in_order(rows: Iterable[OperationRow]) -> list[OperationRow]:
    """Return rows in the order in which they are called: what goes on by itself comes last."""
    return sorted(rows, key=lambda each: each.name in GOES_ON or each.name == "messages.broadcast")


def leave_out_times(answers: dict[str, Any]) -> None:
    """Take from answers by operation what is a matter of milliseconds."""
    activities, card = answers["activities.list"], answers.get("cards.send")
    if "items" in activities:
        # The nearest deadline is first, and what was cancelled leaves the list a second later.
        activities["items"][:] = sorted(
            (item for item in activities["items"] if item["data"].get("state") != "cancelled"), key=repr
        )
    if isinstance(card, dict):
        # A draw sends its prizes at its time, and they are numbered with the cards.
        card["number"] = min(card["number"], 1)
