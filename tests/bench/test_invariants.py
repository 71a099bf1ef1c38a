"""The three parties agree in ``agreed``; each test changes one number of one of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bench.report.activities import check_lottery, check_packets, check_sale, with_activities
from bench.report.invariants import check, check_shared


@pytest.fixture
def agreed() -> dict[str, Any]:
    zero = [0] * 6
    accounts = [[2, 2, 0, 0, 0, 0], zero, [3, 2, 1, 0, 0, 0], [10, 4, 3, 2, 1, 0], [5, 1, 4, 0, 0, 0]]
    return {
        "publisher": {
            "sent": [["danmaku", 0, 12], ["gift", 0, 3], ["announcement", 0, 2], ["like", 0, 4]],
            "answers": [
                ["danmaku", 0, "accepted", 4, 4], ["danmaku", 0, "merged", 3, 3], ["danmaku", 0, "sampled_out", 2, 2],
                ["danmaku", 0, "expired", 1, 1], ["danmaku", 0, "limited", 2, 2], ["gift", 0, "accepted", 2, 4],
                ["gift", 0, "merged", 1, 2], ["announcement", 0, "accepted", 2, 2], ["like", 0, "accepted", 3, 30],
                ["like", 0, "limited", 1, 10],
            ],
            "unanswered": 0, "first_unanswered": [], "problems": [],
        },
        "broker": {
            "rooms_crashed": 0,
            "rooms": [{"name": "bench-0", "number": 1, "accounts": accounts, "likes": 30, "last_offset": 4}],
        },
        "viewers": [
            {
                "violations": [], "violation_count": 0,
                "rooms": [
                    {
                        "name": "bench-0", "account": [10, 4, 3, 2, 1, 0], "events_by_lane": [2, 0, 2, 0, 0],
                        "last_offset": 4, "gifts": 6, "likes": 30,
                    }
                ],
            }
        ],
    }  # fmt: skip


def violations(parties: dict[str, Any]) -> list[str]:
    return check(**parties, full_tier=True, rooms=1).violations


def test_parties_that_agree_pass(agreed: dict[str, Any]) -> None:
    findings = check(**agreed, full_tier=True, rooms=1)
    assert findings.violations == []
    assert findings.checked > 30


CHANGES: list[tuple[str, Any, str]] = [
    (
        "a tick frame is lost",
        lambda p: p["viewers"][0]["rooms"][0]["account"].__setitem__(1, 3),
        "shown: viewers counted 3",
    ),
    ("an event is lost", lambda p: p["viewers"][0]["rooms"][0]["events_by_lane"].__setitem__(2, 1), "paid, events"),
    ("a gift is lost", lambda p: p["viewers"][0]["rooms"][0].__setitem__("gifts", 5), "viewers received 5"),
    ("a like is lost", lambda p: p["broker"]["rooms"][0].__setitem__("likes", 29), "likes: publishers received 30"),
    ("a like is not shown", lambda p: p["viewers"][0]["rooms"][0].__setitem__("likes", 29), "viewers last received 29"),
    (
        "an account is off",
        lambda p: p["broker"]["rooms"][0]["accounts"][3].__setitem__(2, 2),
        "parts of its account sum to 9",
    ),
    ("something is still held", lambda p: p["broker"]["rooms"][0]["accounts"][4].__setitem__(5, 1), "still holds 1"),
    ("an ack is wrong", lambda p: p["publisher"]["answers"][0].__setitem__(3, 5), "received accepted for 5"),
    ("a post is not answered", lambda p: p["publisher"]["sent"][0].__setitem__(2, 13), "publishers sent 13"),
    ("an announcement is lost", lambda p: p["broker"]["rooms"][0]["accounts"][0].__setitem__(1, 1), "lane control"),
    (
        "an order is broken",
        lambda p: p["viewers"][0].update(violations=["viewer 1: back"], violation_count=1),
        "viewer 1: back",
    ),
    ("more than are reported", lambda p: p["viewers"][0].update(violation_count=3), "3 more"),
    ("a room is missing", lambda p: p["broker"].__setitem__("rooms", []), "bench-0 does not exist"),
    ("a room crashed", lambda p: p["broker"].__setitem__("rooms_crashed", 1), "crashed 1"),
]


@pytest.mark.parametrize(("what", "change", "words"), CHANGES, ids=[change[0] for change in CHANGES])
def test_one_wrong_number_is_found_and_named(agreed: dict[str, Any], what: str, change: Any, words: str) -> None:
    changed = copy.deepcopy(agreed)
    change(changed)
    found = violations(changed)
    assert any(words in sentence for sentence in found), found


def five_viewers() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Five viewers, two rooms, two sockets: socket 0 has viewers 0, 2, 4 of room 0, socket 1 has 1, 3 of room 1."""
    broker = {
        "shared": {"closed": 0, "missed_chat_frames": 0, "missed_ambient_frames": 0},
        "rooms": [{"name": "bench-0", "number": 11}, {"name": "bench-1", "number": 12}],
    }
    report = {
        "per_record": {"11": [[1, 3], [4, 12], [2, 6]], "12": [[0, 0], [2, 4], [1, 2]]},
        "per_socket": [[3, 12, 6], [0, 4, 2]],
    }
    return broker, [report]


def shared_violations(broker: dict[str, Any], viewers: list[dict[str, Any]]) -> list[str]:
    return check_shared(broker, viewers, viewer_count=5, room_count=2, socket_count=2).violations


def test_shared_sockets_with_every_copy_pass() -> None:
    assert shared_violations(*five_viewers()) == []


def test_a_missing_copy_must_be_reported_by_the_broker() -> None:
    broker, viewers = five_viewers()
    viewers[0]["per_record"]["11"][1] = [4, 11]
    assert "copies missing (first in bench-0: 1 of 12) 1" in shared_violations(broker, viewers)[0]
    broker["shared"]["missed_chat_frames"] = 1
    assert shared_violations(broker, viewers) == []


def test_a_copy_on_the_wrong_socket_is_found() -> None:
    broker, viewers = five_viewers()
    viewers[0]["per_socket"] = [[3, 11, 6], [0, 5, 2]]
    first, second = shared_violations(broker, viewers)
    assert "socket 0, ticks: arrived 11" in first
    assert "socket 1, ticks: arrived 5" in second


SALE = {
    "codes": {"RESERVED": 2, "WAITING": 1, "ALL_RESERVED": 7},
    "answered_once": 10,
    "confirmations": {"confirmed": 2},
    "view": {"stock": 2, "available": 0, "reserved": 0, "confirmed": 2},
    "events": 5,
}


def test_a_sale_that_adds_up_passes() -> None:
    findings = check_sale(SALE, claims=10, stock=2)
    assert findings.violations == []
    assert findings.checked == 7


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("answered_once", 9, "were sent 10, and were answered once 9"),
        ("codes", {"RESERVED": 3, "ALL_RESERVED": 7}, "buyers were promised 3, there are 2"),
        ("confirmations", {"confirmed": 1, "EXPIRED": 1}, "the platform has confirmed 1, buyers were promised 2"),
        ("view", {"stock": 2, "available": 1, "reserved": 0, "confirmed": 2}, "available, reserved and sold are 3"),
        ("codes", {"RESERVED": 2, "NOT_OPEN": 8}, "refused with"),
    ],
)
def test_a_sale_that_does_not_add_up_is_found(part: str, change: Any, words: str) -> None:
    violations = check_sale({**SALE, part: change}, claims=10, stock=2).violations
    assert any(words in violation for violation in violations), violations


PACKETS = {
    "codes": {"taken": 5, "OVERLOADED": 1},
    "answered_once": 6,
    "shares": 5,
    "cents": {"packet-0": 300, "packet-1": 170},
    "views": {
        "packet-0": {"taken": 3, "count": 3, "taken_cents": 300, "total_cents": 300},
        "packet-1": {"taken": 2, "count": 3, "taken_cents": 170, "total_cents": 300},
    },
}


def test_packets_that_add_up_pass() -> None:
    findings = check_packets(PACKETS, takers=3, packets=2)
    assert findings.violations == []
    assert findings.checked == 8


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("answered_once", 5, "were sent 6, and were answered once 5"),
        ("shares", 4, "takers were answered 5, different ones 4"),
        ("cents", {"packet-0": 299, "packet-1": 170}, "its shares hold 299, its total is 300"),
        ("cents", {"packet-0": 300, "packet-1": 171}, "takers were answered 171, the broker has given 170"),
        ("codes", {"taken": 6}, "the broker has given 5, takers were answered 6"),
        ("codes", {"taken": 5, "EMPTY": 1}, "refused with"),
    ],
)
def test_packets_that_do_not_add_up_are_found(part: str, change: Any, words: str) -> None:
    violations = check_packets({**PACKETS, part: change}, takers=3, packets=2).violations
    assert any(words in violation for violation in violations), violations


DRAWN = {
    "codes": {"entered": 4, "OVERLOADED": 1},
    "answered_once": 5,
    "closed_entries": 10,
    "entries": 10,
    "winners": 3,
    "verdict": "",
}


def test_a_lottery_that_adds_up_passes() -> None:
    findings = check_lottery(DRAWN, entered=6, winners=3)
    assert findings.violations == []
    assert findings.checked == 6
    assert check_lottery({**DRAWN, "winners": 10}, entered=6, winners=30).violations == []


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("codes", {"entered": 5}, "were answered 11, were closed 10"),
        ("entries", 9, "were closed 10, are in the proof 9"),
        ("winners", 2, "were drawn 2, there are 3"),
        ("answered_once", 4, "were answered once 4, answers 5"),
        ("verdict", "BAD_ROOT", "the proof fails: BAD_ROOT"),
        ("codes", {"entered": 4, "NOT_OPEN": 1}, "refused with"),
    ],
)
def test_a_lottery_that_does_not_add_up_is_found(part: str, change: Any, words: str) -> None:
    violations = check_lottery({**DRAWN, part: change}, entered=6, winners=3).violations
    assert any(words in violation for violation in violations), violations


def test_the_events_of_activities_count_as_commerce_of_the_first_room(agreed: dict[str, Any]) -> None:
    publisher = with_activities(agreed["publisher"], [SALE, {"events": 2}])
    assert publisher["sent"][-1] == ["commerce", 0, 7]
    assert publisher["answers"][-1] == ["commerce", 0, "accepted", 7, 7]
    assert publisher["sent"][:-1] == agreed["publisher"]["sent"]
