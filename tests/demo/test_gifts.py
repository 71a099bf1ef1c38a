"""Sums of gifts and paid messages in the demo, as a client has seen them and as the ledger has them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from broker.demo.features.gifts import PaidSums, paid_in_ledger, paid_seen
from broker.ledger import Entry, Reader, database_path
from broker.ledger.entries import Submission
from broker.ledger.orders import ORDER_KIND, REFUND_KIND, Order, pack_order
from broker.ledger.store import Store
from protocol.frames import pack_body
from protocol.payloads import COMBO_END, COMBO_START, GiftPayload, HighlightPayload

SEEN: list[GiftPayload | HighlightPayload] = [
    GiftPayload("o1", "fan1", "", "rose", 2, 100, "", "o1", 1, 2, 2, COMBO_START),
    GiftPayload("o2", "someone", "", "rose", 9, 100, "", "o2", 1, 9, 9, COMBO_START | COMBO_END),
    HighlightPayload("o3", "fan1", "", "hello", 500, 1, 1, 0),
    GiftPayload("o4", "fan1", "", "rose", 3, 100, "", "o1", 2, 3, 5, 0),
    GiftPayload("", "fan1", "", "rose", 0, 100, "", "o1", 3, 0, 5, COMBO_END),
]


def test_a_client_counts_what_events_add_and_what_ends_say() -> None:
    assert paid_seen(SEEN, ("fan1",)) == PaidSums(5, 500, 1, 500, 5)
    assert paid_seen(SEEN[:-1], ("fan1",)) == PaidSums(5, 500, 1, 500, 0), "an end is missing"
    assert paid_seen([*SEEN[:3], SEEN[-1]], ("fan1",)) == PaidSums(2, 200, 1, 500, 5), "an event is missing"


def test_orders_and_refunds_of_some_users_are_summed_from_the_ledger(tmp_path: Path) -> None:
    orders = [
        Order("o1", "fan1", "", "rose", 2, 100, "", "o1"),
        Order("o2", "someone", "", "rose", 9, 100, "", "o2"),
        Order("o3", "fan1", "", "", 1, 500, "", "o3"),
    ]
    entries = [Entry("lobby", 7, None, ORDER_KIND, 1, pack_order(order)) for order in orders]
    entries += [
        Entry("other", 7, None, ORDER_KIND, 1, pack_order(orders[0])),
        Entry("lobby", 7, None, REFUND_KIND, 1, pack_body(("o3", "fan1", 500, "demo"))),
        Entry("lobby", 7, None, REFUND_KIND, 1, pack_body(("o2", "someone", 900, ""))),
    ]
    store = Store(database_path(tmp_path))
    store.commit([Submission(tuple(entries))])
    store.close()
    reader = Reader(database_path(tmp_path))
    try:
        assert paid_in_ledger(reader, "lobby", ("fan1",)) == (PaidSums(2, 200, 1, 500), Counter({"fan1": 500}))
    finally:
        reader.close()
