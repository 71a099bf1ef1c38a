from __future__ import annotations

import json

import click
import pytest

from broker.cli.tail import EventPrinter, TailEvent, as_json
from protocol.activities import ActivityEvent
from protocol.activities.mic import MicRejected
from protocol.activities.moderation import Hint
from protocol.activities.sales import SaleSoldOut
from protocol.clients.events import (
    ActivityCounters,
    Connected,
    Danmaku,
    Direct,
    Disconnected,
    Fault,
    Gap,
    MessagesMissed,
    Pulse,
    RecentJoin,
    Rejoined,
    RoomLeft,
    State,
    StreamEvent,
    TickAccount,
)
from protocol.codes import KeyCause, Lane, LeaveReason, MediaKind, MessageType, Role, RoomPhase, Tier
from protocol.messages import Account, Joined, PinnedMessage, RoomKey, TickEntry
from protocol.payloads import (
    AnnouncementPayload,
    DanmakuPayload,
    DeletedPayload,
    EmotePayload,
    GiftPayload,
    KeyChange,
    KeysPayload,
    MediaPayload,
    PhasePayload,
    PinsPayload,
)

JOINED = Joined(
    "lobby", 7, 3, Role.GUEST, RoomPhase.LIVE, Tier.FULL, 100, 5, 4, 9, 6, 33,
    (TickEntry(MessageType.DANMAKU, "bob", "Bob", DanmakuPayload("早")),),
)  # fmt: skip
STATE = State(0, RoomPhase.LIVE, 0, 100, 5, 4, 9, 6, 34, (), (("eve", "Eve"),), 2, (Account(1, 1),) * 5)
GIFT = GiftPayload("order", "bob", "Bob", "rocket", 5, 200, "host")
KEYS = (KeyChange("price", 1, {"cents": 5}, KeyCause.SET), KeyChange("seat", 2, None, KeyCause.OWNER_LEFT))
PINS = tuple(PinnedMessage(id, 4, ("hi",), "h", "Host", 0) for id in ("p1", "p2"))
MEDIUM = MediaPayload("https://a.example/b", MediaKind.IMAGE, 9, "0" * 64, "new")


def lines(*events: TailEvent) -> list[str]:
    printer = EventPrinter("lobby")
    return [f"{mark} {text}" for event in events for mark, text, _ in printer.lines(event)]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Danmaku(1, "bob", "Bob", DanmakuPayload("好看"), 48, ("eve",), 0, 1), "   Bob: 好看  x48"),
        (Danmaku(1, "bob", "", DanmakuPayload("好看"), 1, (), 0, 1), "   bob: 好看"),
        (Danmaku(2, "bob", "Bob", EmotePayload("clap"), 1, (), 0, 1), "   Bob: [clap]"),
        (Danmaku(130, "bob", "Bob", {"sku": 1}, 1, (), 0, 1), "   Bob: type 130: {'sku': 1}"),
        (StreamEvent(4, Lane.CONTROL, 4, 0, "h", "Host", AnnouncementPayload("今天\n八折")), "** 今天 / 八折"),
        (StreamEvent(5, Lane.PAID, 5, 0, "", "", GIFT), "$$ Bob gave rocket x5 to host, 10.00"),
        (StreamEvent(6, Lane.CONTROL, 6, 0, "", "", PhasePayload(RoomPhase.PAUSED)), "** the room is paused now"),
        (
            StreamEvent(7, Lane.COMMERCE, 12, 0, "", "", ActivityEvent("sales.sold_out", "s-1", SaleSoldOut(2, 98))),
            '*  sales.sold_out s-1 {"reserved": 2, "confirmed": 98}',
        ),
        (Direct(1, 12, 0, ActivityEvent("mic.rejected", "", MicRejected())), "-> direct message: mic.rejected {}"),
        (StreamEvent(7, Lane.COMMERCE, 140, 0, "", "Shop", {"sku": 1}), "*  commerce type 140 of Shop: {'sku': 1}"),
        (
            StreamEvent(8, Lane.COMMERCE, 16, 0, "", "", KeysPayload(KEYS)),
            '*  keys: price = {"cents": 5}, seat owner left',
        ),
        (StreamEvent(9, Lane.CONTROL, 10, 0, "", "", PinsPayload(())), "*  pinned messages: none"),
        (StreamEvent(9, Lane.CONTROL, 10, 0, "", "", PinsPayload(PINS)), "*  pinned messages: p1, p2"),
        (
            StreamEvent(9, Lane.CONTROL, 11, 0, "", "", DeletedPayload((3, 4), reason="spam")),
            "*  deleted events 3, 4: spam",
        ),
        (StreamEvent(9, Lane.CONTROL, 11, 0, "", "", DeletedPayload(user_id="eve")), "*  deleted messages of eve"),
        (
            StreamEvent(9, Lane.PAID, 5, 0, "b", "Bob", GIFT._replace(combo="o", seq=2, added=5, total=8)),
            "$$ Bob gave rocket x5 to host, 10.00 (combo x8)",
        ),
        (
            StreamEvent(9, Lane.PAID, 5, 0, "b", "Bob", GIFT._replace(order_id="", count=0, seq=3, total=8, flags=2)),
            "$$ Bob ended a combo of rocket x8",
        ),
        (StreamEvent(9, Lane.COMMERCE, 9, 0, "", "", MEDIUM), "*  image https://a.example/b new"),
        (TickAccount(1, 0, 100, 0, Account(9, 2, 3, 4, 0, 0)), ".. of 9 danmaku: 2 shown (3 merged), 4 sampled out"),
        (TickAccount(1, 0, 100, 0, Account(3, 0, 0, 0, 2, 1)), ".. of 3 danmaku: 0 shown, 2 expired, 1 held"),
        (MessagesMissed(4, 1, False), "!! this link is too slow: missed 4 danmaku"),
        (MessagesMissed(4, 0, True), "!! this terminal is too slow: missed 4 danmaku"),
        (Gap(3, 5), "!! missed 3 events (3 to 5)"),
        (Gap(1, 0, True), "!! the room started a new stream; earlier events are lost"),
        (Rejoined(JOINED, True), "-- rejoined lobby, no gift or announcement was missed; 5 online, 4 users"),
        (RoomLeft(LeaveReason.ROOM_ENDED, "bye", True), "!! room ended: bye"),
        (RoomLeft(LeaveReason.ROOM_CRASHED, "", False), "!! room crashed; joining again"),
        (Disconnected(4000, "restarts", 0.72), "!! going away: restarts; trying again in 0.7 s"),
        (Disconnected(None, "broke", None), "!! link lost: broke"),
        (Connected("guest-1", "", 0, "roomcast", 0), "-- connected as guest-1"),
        (Fault(301, "too many", "", 0), "!! refused (301): too many"),
        (Direct(1, 200, 0, ("hi",)), "-> direct message, type 200: ('hi',)"),
        (
            Direct(1, 4, 0, AnnouncementPayload("您的优惠码 C-1\n\x1b[1m")),
            "-> direct message: 您的优惠码 C-1 / \ufffd[1m",
        ),
        (Direct(1, 4, 0, 7), "-> direct message, type 4: 7"),
        (
            ActivityCounters(
                0, "moderation.hint", "price", Hint("price", "Ann\x1b asks", "太贵", "ann", "Ann", "太贵了")
            ),
            "-> hint price: Ann\ufffd asks",
        ),
    ],
)
def test_each_event_is_one_line_of_text(event: TailEvent, expected: str) -> None:
    assert lines(event) == [expected]


@pytest.mark.parametrize(
    "quiet",
    [TickAccount(1, 0, 100, 0, Account(3, 2, 1)), MessagesMissed(0, 2, False), Gap(5, 4), Pulse(0, 1.0, 0.0, (), 0)],
)
def test_an_event_without_a_loss_has_no_line(quiet: TailEvent) -> None:
    assert lines(quiet) == []


def test_the_snapshot_shows_counters_phase_and_recent_danmaku() -> None:
    assert lines(JOINED) == ["-- joined lobby as guest; 5 online, 4 users, 33 likes", "   Bob: 早"]
    assert lines(JOINED._replace(phase=RoomPhase.PAUSED, recent=()))[1] == "-- the room is paused"


def test_the_snapshot_shows_what_is_pinned_and_the_keys() -> None:
    keys = RoomKey("price", {"cents": 5}, 1), RoomKey("host", "玩家", 2)
    assert lines(JOINED._replace(recent=(), pinned=PINS, keys=keys))[1:] == [
        "*  pinned messages: p1, p2", '*  keys: price = {"cents": 5}, host = "玩家"',
    ]  # fmt: skip
    assert lines(JOINED._replace(recent=(), keys=keys[:1], keys_more=7))[1] == (
        '*  keys: price = {"cents": 5}, and 7 more'
    )


def test_counters_are_reported_once_until_they_change() -> None:
    silent = STATE._replace(joins=(), joins_more=0)
    printed = lines(JOINED, STATE, silent, silent._replace(stage=2))
    assert printed[2:] == [
        "++ Eve and 2 more joined",
        "-- 5 online, 4 users, 34 likes",
        "-- 5 online, 4 users, 34 likes, overload stage 2",
    ]


def test_text_from_the_wire_cannot_control_the_terminal() -> None:
    evil = "a\x1b[2Jb\nc"
    for event in (
        Danmaku(1, "bob", evil, DanmakuPayload(evil), 1, (), 0, 1),
        StreamEvent(4, Lane.CONTROL, 4, 0, "h", evil, AnnouncementPayload(evil)),
        StreamEvent(5, Lane.PAID, 5, 0, "", "", GiftPayload("o", "u", evil, evil, 1, 1, evil)),
        STATE._replace(joins=((evil, evil),)),
        Disconnected(4408, evil, None),
    ):
        printed: list[str] = []
        EventPrinter("lobby", printed.append).print(event)
        for line in printed:
            assert "\n" not in line
            assert "\x1b[2J" not in click.unstyle(line) + line


@pytest.mark.parametrize(
    "event",
    [
        JOINED,
        STATE,
        Danmaku(130, "b", "B", {1: b"\x01", "x": [1, None]}, 1, (), 0, 1),
        StreamEvent(5, Lane.PAID, 5, 0, "", "", GIFT),
        TickAccount(1, 0, 100, 0, Account(1, 1)),
        Rejoined(JOINED, True),
        RoomLeft(LeaveReason.KICKED, "", True),
        Disconnected(None, "x", None),
    ],
)
def test_every_event_is_one_json_object_with_its_kind(event: TailEvent) -> None:
    written = json.loads(json.dumps(as_json(event)))
    assert written["event"] in {
        "snapshot",
        "state",
        "danmaku",
        "event",
        "tick_account",
        "rejoined",
        "left",
        "disconnected",
    }


def test_json_has_names_of_enums_and_accounts_by_lane() -> None:
    state = as_json(STATE._replace(joins=(RecentJoin("eve", "Eve"),)))
    assert state["joins"] == [["eve", "Eve"]]
    assert state["phase"] == "live"
    assert state["accounts"]["chat"]["shown"] == 1
    danmaku = as_json(Danmaku(1, "bob", "Bob", DanmakuPayload("好看"), 2, ("eve",), 0, 1))
    assert (danmaku["event"], danmaku["text"], danmaku["count"]) == ("danmaku", "好看", 2)
    gift = as_json(StreamEvent(5, Lane.PAID, 5, 0, "", "", GIFT))
    assert (gift["lane"], gift["payload"]) == ("paid", list(GIFT))
