"""The fold of a show: sums over runs, bounds, and a report that depends on the entries alone."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from broker.cli.report_page import report_html, report_json
from broker.core.commerce.activity import Fact
from broker.core.commerce.kinds import activity_kinds
from broker.core.moderation.review import REVIEWS_KEY
from broker.core.reports.moderation import MAX_SANCTIONS
from broker.core.reports.show import ShowFold
from broker.core.reports.timeline import MAX_LINES, MAX_TEXT
from broker.core.rooms.samples import RoomSample, read_sample
from protocol.activities.reviews import HeldBy
from protocol.codes import Lane, MessageType, RoomPhase
from protocol.messages import Account, Event

KINDS = activity_kinds(lambda: bytes(32))
BEGUN_MS = 1_790_000_000_000


def sample(
    run: int = 1, danmaku: int = 0, likes: int = 0, online: int = 0, *, is_last: bool = False, title: str = ""
) -> RoomSample:
    chat = Account(danmaku, danmaku, 0, 0, 0, 0)
    accounts = (Account(), Account(), Account(), chat, Account())
    return RoomSample(
        run, is_last, RoomPhase.LIVE, 0, 100, online, online, 2 * online, 3 * online, likes, accounts,
        (("duplicates", danmaku),), title,
    )  # fmt: skip


def event(kind: int, *payload: object) -> Event:
    return Event(kind, BEGUN_MS, "max", "Max", payload)


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=5), min_size=1, max_size=4), st.booleans())
def test_runs_add_up_and_each_interval_once(runs: list[list[int]], ends: bool) -> None:
    fold = ShowFold("lobby", 7, KINDS)
    at_ms, likes = BEGUN_MS, 0
    for run, added in enumerate(runs, 1):
        danmaku = 0
        for number, each in enumerate(added):
            danmaku, likes, at_ms = danmaku + each, likes + each, at_ms + 10_000
            is_last = ends and number == len(added) - 1
            fold.sample(sample(run, danmaku, likes, online=2, is_last=is_last), at_ms)
    report = fold.report()
    total = sum(map(sum, runs))
    assert report["accounts"]["chat"]["admitted"] == report["interaction"]["danmaku"] == total
    assert report["interaction"]["likes"] == total
    points = report["interaction"]["points"]
    assert sum(point[1] for point in points) == sum(point[2] for point in points) == total
    assert report["moderation"]["counts"].get("duplicates", 0) == total
    assert report["service"]["runs"] == len(runs)
    assert report["service"]["interrupted_runs"] == (0 if ends else len(runs) - 1)
    intervals = sum(len(added) - 1 for added in runs)
    assert report["audience"]["watch_ms"] == 2 * 10_000 * intervals
    assert json.loads(report_json(report)) == report


@given(st.builds(sample, *(st.integers(0, 2**40) for _ in range(4)), title=st.text(max_size=20), is_last=st.booleans()))
def test_a_sample_is_read_as_it_was_packed(made: RoomSample) -> None:
    assert read_sample(made.pack()) == made


def test_a_report_is_bounded_and_says_what_is_left_out() -> None:
    fold = ShowFold("lobby", 7, KINDS)
    for number in range(MAX_LINES + 7):
        fold.event(event(MessageType.ANNOUNCEMENT, f"{number} " + "x" * 400), BEGUN_MS + number)
    report = fold.report()
    assert (len(report["timeline"]), report["timeline_left_out"]) == (MAX_LINES, 7)
    assert len(report["timeline"][0]["text"]) == MAX_TEXT
    assert b"7 more." in report_html(report)


def test_what_cannot_be_read_is_counted_and_the_rest_reported() -> None:
    fold = ShowFold("lobby", 7, KINDS)
    fold.event(event(MessageType.GIFT, "order"), BEGUN_MS)
    fold.event(event(MessageType.ROOM_PHASE, 99), BEGUN_MS)
    fold.facts(("sales", "sale-1"), [Fact("claims_taken", (1,))], BEGUN_MS)
    fold.event(event(MessageType.GIFT, "o", "ann", "Ann", "rose", 2, 50, ""), BEGUN_MS)
    report = fold.report()
    assert report["service"]["unreadable_entries"] == 3
    assert report["interaction"]["gift_cents"] == 100
    assert b"3 entries could not be read" in report_html(report)


def test_a_product_is_shown_as_long_as_it_is_explained_and_to_as_many_as_were_there() -> None:
    fold = ShowFold("acme\x1flobby", 7, KINDS)

    def explain(product: str | None, at_s: int) -> None:
        data = {"product": product, "number": 1, "at_ms": 0}
        fold.event(event(MessageType.ACTIVITY, "products.explaining", "", data), BEGUN_MS + 1000 * at_s)

    put = {"product": {"id": "mug", "title": "<Mug>"}}
    fold.event(event(MessageType.ACTIVITY, "products.put", "", put), BEGUN_MS)
    fold.sample(sample(online=3), BEGUN_MS)
    explain("mug", 10)
    fold.sample(sample(online=9), BEGUN_MS + 20_000)
    explain("pan", 30)
    fold.sample(sample(online=50), BEGUN_MS + 40_000)
    explain("mug", 50)
    explain(None, 55)
    fold.facts(("products", ""), [Fact("clicked", ((("mug", 4), ("pan", 5)), (("ann", 1),)))], BEGUN_MS + 60_000)
    report = fold.report()
    found = {each["product"]: each for each in report["commerce"]["products"]}
    assert list(found) == ["pan", "mug"], "the most clicks first"
    assert (found["mug"]["shown"], found["mug"]["shown_ms"], found["mug"]["viewers"]) == (2, 25_000, 50)
    assert (found["pan"]["shown"], found["pan"]["shown_ms"], found["pan"]["viewers"]) == (1, 20_000, 50)
    page = report_html(report)
    assert b"&lt;Mug&gt;" in page
    assert b"<Mug>" not in page


def test_the_page_of_an_empty_show_is_whole() -> None:
    fold = ShowFold("lobby", 7, KINDS)
    fold.event(event(MessageType.ROOM_PHASE, int(RoomPhase.ENDED)), BEGUN_MS)
    assert report_html(fold.report()).endswith(b"</body></html>\n")
    assert fold.report()["accounts"].keys() == {lane.name.lower() for lane in Lane}


def test_reviews_and_sanctions_are_counted_with_who_decided_and_how_long_it_took() -> None:
    fold = ShowFold("lobby", 7, KINDS)
    held = {"held_by": int(HeldBy.WORDS), "at_ms": BEGUN_MS}
    facts = [Fact("held", (number, held)) for number in (1, 2, 3)]
    facts += [Fact("approved", (1, "max", "", BEGUN_MS + 4000)), Fact("released", (1, BEGUN_MS + 4000))]
    facts += [Fact("rejected", (2, "", "nobody", BEGUN_MS + 8000))]
    fold.facts(REVIEWS_KEY, facts, BEGUN_MS)
    for number in range(MAX_SANCTIONS + 2):
        fold.action(BEGUN_MS, "moderation.ban", "user", "max", f"u{number}", "<spam>", "OK", {"seconds": 60})
    fold.action(BEGUN_MS, "moderation.ban", "user", "max", "u", "", "NOT_ALLOWED", {})
    found = fold.report()["moderation"]
    assert found["reviews"] == {
        "held": 3, "held_by": {"words": 3}, "reported": 0, "reports": 0, "approved": 1, "rejected": 1, "released": 1,
        "undecided": 1, "without_reviewer": 1, "average_wait_ms": 6000, "longest_wait_ms": 8000,
        "reviewers": {"max": 1},
    }  # fmt: skip
    assert (len(found["sanctions"]), found["sanctions_left_out"]) == (MAX_SANCTIONS, 2)
    assert found["audit"]["actions"] == {"moderation.ban": MAX_SANCTIONS + 2}
    assert found["audit"]["refused"] == 1
    page = report_html(fold.report())
    assert b"&lt;spam&gt;" in page
    assert b"2 more." in page
