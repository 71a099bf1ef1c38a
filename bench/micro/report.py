"""The report of a long show: time and memory of `roomcast report --from-ledger`, beside reading the same entries.

The ledger is written first, by the broker's own store: gifts with their orders, claims of a sale that are confirmed,
clicks, other events, and a sample of the room every ten seconds of two hours.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.micro.result import Result
from broker.core.commerce.activity import Fact
from broker.core.commerce.sale_commands import SaleConfig
from broker.core.rooms.samples import RoomSample
from broker.ledger import ACTIVITY_FACTS, Entry, database_path, open_directory
from broker.ledger.entries import ROOM_SAMPLED, Submission
from broker.ledger.head import HeadFile
from broker.ledger.orders import ORDER_KIND, Order, pack_order
from broker.ledger.schema import mark_path
from broker.ledger.store import Store
from broker.ledger.streams import all_entries, find_stream
from protocol.activities.eligibility import Eligibility
from protocol.codes import Lane, MessageType, RoomPhase
from protocol.frames import pack_body
from protocol.messages import Account, Event
from protocol.operations.sales import LateConfirm
from protocol.payloads import GiftPayload

__all__ = ["report"]

ROOM, EPOCH = "show", 7
BEGUN_MS = 1_790_000_000_000
SECONDS = 7200
A_SECOND = {"gifts": 35, "claims": 14, "clicks": 14, "others": 27}
"""Things of each second; a gift is two entries, and a claim is confirmed by a second one: 139 entries a second."""
GOAL_S, GOAL_MIB = 60.0, 500.0


def report(smoke: bool) -> list[Result]:
    """Measure one report."""
    seconds = SECONDS // 100 if smoke else SECONDS
    with tempfile.TemporaryDirectory(prefix="roomcast-report-", dir=os.environ.get("ROOMCAST_BENCH_DIR")) as name:
        directory = Path(name)
        entries = _write(directory, seconds)
        begun = time.process_time()
        assert _read(directory) == entries
        read_s = time.process_time() - begun
        command = [sys.executable, "-m", "broker.cli", "report", ROOM, "--from-ledger", f"--data-dir={directory}"]
        begun = time.perf_counter()
        done = subprocess.run(
            [*command, f"--html={directory}/report.html", "--json=-"], capture_output=True, check=True
        )
        took_s = time.perf_counter() - begun
        # The largest of all children that have ended: this one, as no other was started.
        peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        found = json.loads(done.stdout)
    assert found["interaction"]["gift_units"] == A_SECOND["gifts"] * seconds
    assert found["commerce"]["products"][0]["confirmed"] == A_SECOND["claims"] * seconds
    detail: dict[str, Any] = {"entries": entries, "seconds": seconds, "json_bytes": len(done.stdout)}
    what = f"report of {entries:,} entries"
    return [
        Result(
            "report", f"time of the {what}", took_s, "s", None if smoke else GOAL_S, floor=read_s,
            floor_name="reading the entries", detail=detail,
        ),
        Result(
            "report", f"peak memory of the {what}", peak_mib, "MiB", None if smoke else GOAL_MIB, detail=detail,
        ),
    ]  # fmt: skip


def _write(directory: Path, seconds: int) -> int:
    """Write the ledger of a show; return how many entries it has."""
    store = Store(database_path(directory))
    count, batch = 0, []
    for entry in _entries(seconds):
        batch.append(entry)
        if len(batch) == 1000:
            count += len(batch)
            store.commit([Submission(tuple(batch))])
            batch.clear()
    count += len(batch)
    store.commit([Submission(tuple(batch))])
    marks = HeadFile(mark_path(directory))
    marks.write(store.head)
    marks.close()
    store.close()
    return count


def _entries(seconds: int) -> Iterator[Entry]:
    claims = clicks = gifts = 0
    yield _facts(BEGUN_MS, "sales", "sale", Fact("created", (_sale(seconds), bytes(32), BEGUN_MS)), Fact("opened"))
    yield _activity(BEGUN_MS, "products.put", {"product": {"id": "mug", "title": "Mug"}})
    yield _activity(BEGUN_MS, "products.explaining", {"product": "mug", "number": 1, "at_ms": BEGUN_MS})
    for second in range(seconds):
        at_ms = BEGUN_MS + 1000 * second
        if second % 10 == 0:
            yield Entry(ROOM, EPOCH, None, ROOM_SAMPLED, at_ms, _sample(second).pack())
        for _ in range(A_SECOND["gifts"]):
            gifts += 1
            user, order = f"user-{gifts % 5000}", f"order-{gifts}"
            gift = GiftPayload(order, user, "Viewer", "rose", 1, 100, "", f"combo-{gifts}", 1, 1, 1, 3)
            yield _event(at_ms, Lane.PAID, MessageType.GIFT, gift)
            paid = pack_order(Order(order, user, "Viewer", "rose", 1, 100, "", order))
            yield Entry(ROOM, EPOCH, None, ORDER_KIND, at_ms, paid)
        for _ in range(A_SECOND["claims"]):
            claims += 1
            taken = ((f"user-{claims}", f"request-{claims}", 1, 0),)
            yield _facts(at_ms, "sales", "sale", Fact("claims_taken", (claims, 1990, at_ms + 15_000, taken)))
            yield _facts(at_ms, "sales", "sale", Fact("claim_confirmed", (claims, 2, f"paid-{claims}")))
        for _ in range(A_SECOND["clicks"]):
            clicks += 1
            reports = ((f"user-{clicks % 5000}", clicks),)
            yield _facts(at_ms, "products", "", Fact("clicked", ((("mug", 3),), reports)))
        for number in range(A_SECOND["others"]):
            yield _event(at_ms, Lane.COMMERCE, 128, (number, "an event of the deployment's own"))
    yield _event(BEGUN_MS + 1000 * seconds, Lane.CONTROL, MessageType.ROOM_PHASE, (int(RoomPhase.ENDED),))


def _sale(seconds: int) -> tuple[Any, ...]:
    """Return the configuration of a sale as its first fact has it."""
    close_at_ms = BEGUN_MS + 1000 * seconds
    config = SaleConfig(
        "mug", 10**6, 1, 1990, BEGUN_MS, close_at_ms, 15_000, 0, 0, 0, LateConfirm.IF_STOCK, Eligibility()
    )
    return *config[:-1], tuple(config.eligibility)


def _event(at_ms: int, lane: Lane, kind: int, payload: Any) -> Entry:
    return Entry(ROOM, EPOCH, lane, kind, at_ms, pack_body(Event(kind, at_ms, "host", "Host", payload)))


def _activity(at_ms: int, name: str, data: dict[str, Any]) -> Entry:
    return _event(at_ms, Lane.COMMERCE, MessageType.ACTIVITY, (name, "", data))


def _facts(at_ms: int, kind: str, id: str, *facts: Fact) -> Entry:
    return Entry(ROOM, EPOCH, None, ACTIVITY_FACTS, at_ms, pack_body((kind, id, facts)))


def _sample(second: int) -> RoomSample:
    online = 5000 + second % 700
    chat = Account(300 * second, 200 * second, 50 * second, 50 * second, 0, 0)
    accounts = (Account(), Account(), Account(), chat, Account())
    return RoomSample(BEGUN_MS, False, RoomPhase.LIVE, 0, 100, online, online, 9000, 5700, 40 * second, accounts)


def _read(directory: Path) -> int:
    """Read every entry of the show, and return how many there are."""
    reader = open_directory(directory)
    try:
        stream = find_stream(reader, ROOM)
        assert stream is not None
        return sum(1 for _ in all_entries(reader, stream))
    finally:
        reader.close()
