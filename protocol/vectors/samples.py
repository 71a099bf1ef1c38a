"""Messages of ``messages.json``: every body of both sides, every built-in payload, limits of the rules.

And the steps of ``session.json``. Data only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..codes import (
    CloseCode,
    Codec,
    ErrorCode,
    Feature,
    KeyCause,
    Lane,
    LeaveReason,
    MediaKind,
    MessageType,
    Outcome,
    Role,
    RoomPhase,
    Tier,
)
from ..dictionaries import BUILT_IN
from ..messages import (
    MAGIC,
    Account,
    Ack,
    AckReason,
    AckResult,
    Auth,
    Authenticated,
    Call,
    ClientHello,
    CustomType,
    Direct,
    DirectAck,
    ErrorReply,
    Event,
    FirstResult,
    GoAway,
    Join,
    Joined,
    Leave,
    Left,
    Message,
    Missed,
    OfferedDictionary,
    Ping,
    PinnedMessage,
    Pong,
    Post,
    Result,
    Resume,
    Resumed,
    RoomKey,
    RoomPulse,
    RoomRole,
    ServerHello,
    Side,
    State,
    Tick,
    TickEntry,
)
from ..operations.directs import DirectProgress, SentDirects
from ..operations.rooms import HistoryPage, MembersPage, MemberView
from ..operations.users import Kicked
from ..payloads import (
    ActivityPayload,
    AnnouncementPayload,
    DanmakuPayload,
    DeletedPayload,
    EmotePayload,
    GiftPayload,
    HighlightPayload,
    KeyChange,
    KeysPayload,
    LikePayload,
    MediaPayload,
    NotAddressedPayload,
    PhasePayload,
    PinsPayload,
)

__all__ = ["SAMPLES", "SESSION", "Sample", "Step"]


class Sample(NamedTuple):
    """Message and the fields of its header."""

    name: str
    side: Side
    message: Message
    lane: Lane = Lane.CONTROL
    room: int = 0
    sequence: int = 0


C, S = Side.CLIENT, Side.SERVER
AT_MS = 1_764_547_200_000
MAX_U32 = 2**32 - 1
MAX_SAFE = 2**53 - 1

_MEDIA = MediaPayload("https://cdn.example/a.jpg", MediaKind.IMAGE, 48_213, "ab" * 32, "the red one")
_GIFT = GiftPayload("order-7", "u-1", "小明", "rocket", 2, 9900, "")
_HIGHLIGHT = HighlightPayload("order-8", "u-1", "小明", "主播好美", 2000)
_GIFT_EVENT = _GIFT._replace(combo="order-5", seq=3, added=2, total=9)
_SHOWN = (
    TickEntry(MessageType.DANMAKU, "u-2", "viewer 2", DanmakuPayload("多少钱"), 3, ("u-4", "u-9")),
    TickEntry(MessageType.DANMAKU, "u-3", "viewer 3", DanmakuPayload("666", (1, 0xFF2D55, 2))),
    TickEntry(MessageType.EMOTE, "u-5", "viewer 5", EmotePayload("rose")),
    TickEntry(130, "u-6", "", {"card": (1, None, True, -1.5), "note": "custom"}),
)
_LONG_TICK = tuple(
    TickEntry(MessageType.DANMAKU, f"u-{n}", f"viewer {n}", DanmakuPayload(text), 1 + n % 3)
    for n, text in enumerate(
        ["来了来了", "多少钱", "链接在哪", "666666", "哈哈哈哈哈哈", "还有库存吗", "什么时候发货", "好看"] * 5
    )
)
_SNAPSHOT = Joined("lobby", 7, 41, Role.VIEWER, RoomPhase.LIVE, Tier.FULL, 100, 1200, 1100, 2300, 1500, 88000, _SHOWN)
_LANES = (
    Account(12, 12), Account(3, 3), Account(40, 38, 0, 0, 0, 2),
    Account(9000, 6000, 1500, 1200, 200, 100), Account(88_000, 88_000),
)  # fmt: skip

_FROM_CLIENT: list[tuple[str, Message, int, int]] = [
    ("hello", ClientHello(MAGIC, 1, 1, int(Feature.LZ4 | Feature.LZ4_DICT_1), "example/1.0"), 0, 0),
    ("hello-bare", ClientHello(MAGIC, 1, 1), 0, 0),
    ("hello-dictionaries", ClientHello(MAGIC, 1, 1, int(Feature.LZ4), "example/1.0", ("5f" * 32,)), 0, 0),
    ("hello-newer-client", ClientHello(MAGIC, 1, 3, MAX_U32, ""), 0, 0),
    ("auth", Auth("a-token-of-the-platform"), 0, 0),
    ("auth-guest", Auth(None), 0, 0),
    ("join", Join("lobby", Tier.FULL), 0, 1),
    ("join-low-tier-unicode", Join("直播间-8", Tier.LOW), 0, MAX_U32),
    ("leave", Leave(), 3, 2),
    ("post-danmaku", Post(MessageType.DANMAKU, "m-1", DanmakuPayload("主播好美")), 3, 5),
    ("post-danmaku-styled", Post(MessageType.DANMAKU, "m-2", DanmakuPayload("好看", (2, 0xFFFFFF, 0))), 3, 6),
    ("post-danmaku-100-emoji", Post(MessageType.DANMAKU, "", DanmakuPayload("\U0001f339" * 100)), 3, 7),
    ("post-emote", Post(MessageType.EMOTE, "m-3", EmotePayload("rose")), 3, 8),
    ("post-like", Post(MessageType.LIKE, "", LikePayload(25)), 3, 9),
    ("post-like-longest-id", Post(MessageType.LIKE, "\U0001f4a1" * 64, LikePayload(1000)), 3, 9),
    (
        "post-announcement",
        Post(MessageType.ANNOUNCEMENT, "a-1", AnnouncementPayload("Sale at 20:00\nTwo lines")),
        3,
        10,
    ),
    ("post-gift", Post(MessageType.GIFT, "g-1", _GIFT), 3, 11),
    ("post-highlight", Post(MessageType.HIGHLIGHT, "", _HIGHLIGHT), 3, 11),
    ("post-room-phase", Post(MessageType.ROOM_PHASE, "p-1", PhasePayload(RoomPhase.PAUSED)), 3, 12),
    ("post-media", Post(MessageType.MEDIA, "v-1", _MEDIA), 3, 23),
    ("post-deleted", Post(MessageType.MESSAGES_DELETED, "d-1", DeletedPayload((), "u-9", AT_MS, "spam")), 3, 24),
    ("post-custom", Post(128, "x-1", {"a": (1, -2, 2.5, None, False), "b": {"深": "层"}}), MAX_U32, 13),
    ("post-custom-nil", Post(255, "", None), 3, 14),
    ("post-gift-by-room-name", Post(MessageType.GIFT, "g-1", _GIFT, "lobby"), 0, 21),
    ("post-danmaku-by-room-name", Post(MessageType.DANMAKU, "", DanmakuPayload("666"), "直播间-8"), 0, 22),
    ("ack", DirectAck(9), 0, 0),
    ("ping", Ping(AT_MS), 0, 15),
    ("ping-renew", Ping(AT_MS, True), 0, 15),
    ("ping-token", Ping(AT_MS, False, "token"), 0, 16),
    ("resume", Resume("lobby", Tier.MEDIUM, 7, 41), 0, 16),
    ("resume-largest-integers", Resume("a", Tier.FULL, MAX_SAFE, MAX_SAFE), 0, 17),
    ("goaway", GoAway(CloseCode.CLIENT_DONE, "bye"), 0, 0),
    (
        "call-send-many",
        Call(
            81,
            "",
            (
                "may-coupons",
                MessageType.ANNOUNCEMENT,
                ("{who}，您的优惠码：{code}",),
                {"u-1": {"who": "小明", "code": "C-1"}, "u-2": {"who": "Ann", "code": "C-2"}},
                None,
                86_400,
            ),
        ),
        0,
        18,
    ),
    ("call-progress", Call(82, "", ("may-coupons",)), 0, 20),
    ("call", Call(42, "", ("lobby", "u-9", "spam")), 0, 21),
    ("call-joined-room", Call(7, "", (None, 41)), 3, 22),
    ("call-with-key", Call(20, "order-17", {"room": "lobby", "type": 4, "payload": ("欢迎",)}), 0, 23),
    ("call-newer-than-the-reader", Call(65_535, "", ()), 0, 24),
    ("call-by-a-name-newer-than-the-reader", Call("lottery.draw", "", {}), 0, 25),
]

_PINNED = (
    PinnedMessage("41", MessageType.ANNOUNCEMENT, AnnouncementPayload("Sale at 20:00"), "u-8", "host", AT_MS, 0, 41),
    PinnedMessage("rules", 128, {"text": "be kind"}, "app", "app", AT_MS, AT_MS + 60_000),
)

_KEYS = KeysPayload(
    (
        KeyChange("seat-1", AT_MS, {"user": "u-2"}, KeyCause.SET, AT_MS + 60_000, "u-2", True),
        KeyChange("price", AT_MS, None, KeyCause.DELETED),
    )
)

_FROM_SERVER: list[tuple[str, Message, Lane, int, int]] = [
    (
        "hello",
        ServerHello(1, 3, AT_MS, 30_000, 75_000, 8, (CustomType(128, "product_card", Lane.COMMERCE),), "roomcast"),
        Lane.CONTROL, 0, 0,
    ),
    ("hello-bare", ServerHello(1, 0, 0, 30_000, 75_000, 1), Lane.CONTROL, 0, 0),
    (
        "hello-dictionaries",
        ServerHello(
            1, 1, AT_MS, 30_000, 75_000, 8, (), "roomcast",
            (
                OfferedDictionary(Codec.LZ4_DICT_2, "5f" * 32, 32_768),
                OfferedDictionary(Codec.LZ4_DICT_1, BUILT_IN.name, len(BUILT_IN.data)),
            ),
        ),
        Lane.CONTROL, 0, 0,
    ),
    ("auth", Authenticated("u-1", "小明", AT_MS + 3_600_000), Lane.CONTROL, 0, 0),
    ("auth-again", Authenticated("u-1", "小明", AT_MS, "", 0, (RoomRole(3, Role.MODERATOR),)), Lane.CONTROL, 0, 9),
    ("auth-guest", Authenticated("guest-5f3a", ""), Lane.CONTROL, 0, 0),
    (
        "auth-ticket",
        Authenticated("u-1", "小明", AT_MS + 3_600_000, "a-ticket-of-the-broker", 600_000),
        Lane.CONTROL, 0, 0,
    ),
    ("join", _SNAPSHOT, Lane.CONTROL, 3, 1),
    (
        "join-empty-room",
        Joined("a", 1, 0, Role.GUEST, RoomPhase.PAUSED, Tier.LOW, 100, 0, 0, 0, 0, 0),
        Lane.CONTROL, 1, 1,
    ),
    ("leave", Left(LeaveReason.REQUESTED), Lane.CONTROL, 3, 2),
    ("leave-kicked", Left(LeaveReason.KICKED, "spam"), Lane.CONTROL, 3, 0),
    (
        "ack",
        Ack((
            AckResult(5, Outcome.ACCEPTED), AckResult(6, Outcome.MERGED), AckResult(7, Outcome.SAMPLED_OUT),
            AckResult(8, Outcome.LIMITED, 1500), AckResult(9, Outcome.HELD),
            AckResult(10, Outcome.REJECTED, int(ErrorCode.DUPLICATE_TEXT)), AckResult(11, Outcome.EXPIRED),
            AckResult(12, Outcome.UNAVAILABLE, 2000),
        )),
        Lane.CONTROL, 3, 0,
    ),
    ("ack-empty", Ack(()), Lane.CONTROL, 3, 0),
    (
        "ack-reasons",
        Ack(
            (AckResult(5, Outcome.REJECTED, int(ErrorCode.BLOCKED)), AckResult(6, Outcome.MASKED, 44)), (),
            (AckReason(5, "不文明用语", 600_000), AckReason(6, "")),
        ),
        Lane.CONTROL, 3, 0,
    ),
    (
        "ack-repeated",
        Ack(
            (AckResult(5, Outcome.ACCEPTED, 44), AckResult(6, Outcome.REJECTED, int(ErrorCode.KEY_REUSED))),
            (FirstResult(5, "lobby", 7, 44), FirstResult(6, "直播间-8", MAX_SAFE, 1)),
        ),
        Lane.CONTROL, 3, 0,
    ),
    (
        "event-announcement",
        Event(MessageType.ANNOUNCEMENT, AT_MS, "u-8", "host", AnnouncementPayload("Sale at 20:00")),
        Lane.CONTROL, 3, 42,
    ),
    ("event-custom", Event(128, AT_MS, "", "", {"sku": "A-1", "price_cents": 1999}), Lane.COMMERCE, 3, 43),
    (
        "event-activity",
        Event(MessageType.ACTIVITY, AT_MS, "", "", ActivityPayload("products.removed", "", {"product": "p-1"})),
        Lane.COMMERCE, 3, 45,
    ),
    (
        "event-activity-counter",
        Event(
            MessageType.ACTIVITY_COUNTER, AT_MS, "", "", ActivityPayload("polls.counts", "poll-1", {"voters": 9})
        ),
        Lane.AMBIENT, 3, 6,
    ),
    ("event-gift", Event(MessageType.GIFT, AT_MS, "u-1", "小明", _GIFT_EVENT), Lane.PAID, 3, 44),
    (
        "event-highlight",
        Event(
            MessageType.HIGHLIGHT, AT_MS, "u-1", "小明",
            _HIGHLIGHT._replace(tier=3, until_ms=AT_MS + 300_000, displaced=12),
        ),
        Lane.PAID, 3, 45,
    ),
    (
        "event-room-phase",
        Event(MessageType.ROOM_PHASE, AT_MS, "u-8", "host", PhasePayload(RoomPhase.ENDED)),
        Lane.CONTROL, 3, MAX_U32,
    ),
    ("tick", Tick(AT_MS, 100, 0, _SHOWN, Account(9, 4, 2, 2, 0, 1)), Lane.CHAT, 3, 77),
    ("tick-long", Tick(AT_MS, 250, 1, _LONG_TICK, Account(200, 40, 39, 115, 6)), Lane.CHAT, 3, 78),
    (
        "tick-numbers",
        Tick(
            AT_MS, 100, 0,
            (
                TickEntry(MessageType.DANMAKU, "10283746", "viewer 2", ("多少钱",)),
                TickEntry(MessageType.DANMAKU, "9007199254740991", "viewer 3", ("666",), 3, ("7", "u-9")),
                TickEntry(MessageType.DANMAKU, "9007199254740992", "viewer 4", ("88",)),
                TickEntry(MessageType.EMOTE, "007", "viewer 5", ("wave",), 1, (), Role.HOST),
            ),
            Account(6, 4, 2),
        ),
        Lane.CHAT, 3, 80,
    ),
    ("tick-silent", Tick(AT_MS, 1000, 4, ()), Lane.CHAT, 3, 79),
    (
        "state",
        State(
            AT_MS, RoomPhase.LIVE, 1, 100, 1200, 1100, 2300, 1500, 88_000,
            (("u-2", 900), ("u-3", 700)), (("u-6", "new one"),), 17, _LANES,
        ),
        Lane.AMBIENT, 3, 12,
    ),
    ("state-bare", State(0, RoomPhase.ENDED, 0, 0, 0, 0, 0, 0, 0), Lane.AMBIENT, 3, 13),
    ("direct", Direct(9, 129, AT_MS, {"coupon": "C-1"}), Lane.COMMERCE, 0, 0),
    ("direct-missed", Direct(0, MessageType.MISSED, AT_MS, Missed(120, 3)), Lane.COMMERCE, 0, 0),
    ("pong", Pong(AT_MS, AT_MS + 12, (RoomPulse(3, 1200, 100),), 120), Lane.CONTROL, 0, 15),
    ("pong-no-rooms", Pong(0, AT_MS), Lane.CONTROL, 0, 0),
    ("pong-ticket", Pong(AT_MS, AT_MS + 12, (), 0, "a-ticket-of-the-broker"), Lane.CONTROL, 0, 15),
    ("pong-expires", Pong(AT_MS, AT_MS + 12, (), 0, "", AT_MS + 3_600_000), Lane.CONTROL, 0, 16),
    ("error", ErrorReply(ErrorCode.BAD_FIELD, "must be a string", "payload.text"), Lane.CONTROL, 3, 6),
    ("error-with-wait", ErrorReply(ErrorCode.RATE_LIMITED, "too many joins", "room_name", 1500), Lane.CONTROL, 0, 1),
    ("error-newer-than-the-reader", ErrorReply(999, ""), Lane.CONTROL, 0, 1),
    (
        "goaway",
        GoAway(CloseCode.GOING_AWAY, "restart", 500, 5000, ("b.example.com:7412",)),
        Lane.CONTROL, 0, 0,
    ),
    ("goaway-bare", GoAway(CloseCode.SLOW_VIEWER), Lane.CONTROL, 0, 0),
    (
        "join-announcement",
        _SNAPSHOT._replace(
            announcement=Event(MessageType.ANNOUNCEMENT, AT_MS, "u-8", "host", AnnouncementPayload("Sale at 20:00"))
        ),
        Lane.CONTROL, 3, 1,
    ),
    (
        "join-keys",
        _SNAPSHOT._replace(
            keys=(RoomKey("price", 1999, AT_MS), RoomKey("seat-1", {"user": "u-2"}, AT_MS + 1, AT_MS + 60_000, "u-2")),
            keys_more=1,
        ),
        Lane.CONTROL, 3, 1,
    ),
    (
        "join-pinned",
        _SNAPSHOT._replace(pinned=_PINNED),
        Lane.CONTROL, 3, 1,
    ),
    ("event-pins", Event(MessageType.PINS_CHANGED, AT_MS, "u-8", "host", PinsPayload(_PINNED)), Lane.COMMERCE, 3, 46),
    ("event-unpinned", Event(MessageType.PINS_CHANGED, AT_MS, "", "", PinsPayload(())), Lane.COMMERCE, 3, 47),
    ("event-media", Event(MessageType.MEDIA, AT_MS, "u-8", "host", _MEDIA), Lane.COMMERCE, 3, 48),
    (
        "event-deleted",
        Event(MessageType.MESSAGES_DELETED, AT_MS, "u-8", "host", DeletedPayload((41, 42), reason="an advertisement")),
        Lane.COMMERCE, 3, 49,
    ),
    (
        "event-not-addressed", Event(MessageType.NOT_ADDRESSED, AT_MS, "", "", NotAddressedPayload()),
        Lane.CONTROL, 3, 50,
    ),
    ("event-keys", Event(MessageType.KEYS_CHANGED, AT_MS, "u-8", "host", _KEYS), Lane.COMMERCE, 3, 45),
    ("resume-recovered", Resumed(True, 42, _SNAPSHOT), Lane.CONTROL, 3, 16),
    ("resume-with-gap", Resumed(False, 1, _SNAPSHOT._replace(recent=())), Lane.CONTROL, 3, 16),
    ("result-send-many", Result(81, SentDirects("may-coupons", 1, 1, 0)), Lane.CONTROL, 0, 18),
    ("result-send-many-failed", Result(81, SentDirects("b", 0, 0, 1)), Lane.CONTROL, 0, 19),
    ("result-progress", Result(82, DirectProgress("may-coupons", 40, 2, 1)), Lane.CONTROL, 0, 20),
    ("result", Result(42, Kicked(1)), Lane.CONTROL, 0, 21),
    ("result-joined-room", Result(7, HistoryPage((), 7, 41, False)), Lane.CONTROL, 3, 22),
    (
        "result-page",
        Result(6, MembersPage((MemberView("u-1", "小明", Role.HOST, 2),), "5:u-1", 3, 2)),
        Lane.CONTROL, 0, 26,
    ),
    ("result-newer-than-the-reader", Result(65_535, {"a": (1,)}), Lane.CONTROL, 0, 24),
    ("error-of-a-call", ErrorReply(ErrorCode.UNKNOWN_OPERATION, "is no operation", "operation"), Lane.CONTROL, 0, 24),
]  # fmt: skip

SAMPLES: tuple[Sample, ...] = (
    *(
        Sample(f"client-{name}", C, message, Lane.CONTROL, room, sequence)
        for name, message, room, sequence in _FROM_CLIENT
    ),
    *(
        Sample(f"server-{name}", S, message, lane, room, sequence)
        for name, message, lane, room, sequence in _FROM_SERVER
    ),
)
"""Every message of the wire at least once, in the order of `codes.Opcode`."""


class Step(NamedTuple):
    """One write of the transcript: the frames that ``side`` sends without waiting, and a description."""

    side: Side
    says: str
    frames: tuple[Sample, ...]


def _frame(name: str, side: Side, message: Any, lane: Lane = Lane.CONTROL, room: int = 0, sequence: int = 0) -> Sample:
    return Sample(name, side, message, lane, room, sequence)


SESSION: tuple[Step, ...] = (
    Step(
        C,
        "the client sends the handshake and JOIN in one write",
        (
            _frame("hello", C, ClientHello(MAGIC, 1, 1, 19, "demo/1")),
            _frame("auth", C, Auth("token")),
            _frame("join", C, Join("lobby", Tier.FULL), sequence=1),
        ),
    ),
    Step(
        S,
        "the server answers in the same order",
        (
            _frame("hello", S, ServerHello(1, 19, AT_MS, 30_000, 75_000, 8, (), "roomcast")),
            _frame("auth", S, Authenticated("u-1", "Ming", 0)),
            _frame(
                "join",
                S,
                Joined("lobby", 7, 41, Role.VIEWER, RoomPhase.LIVE, Tier.FULL, 100, 2, 2, 5, 3, 0),
                room=3,
                sequence=1,
            ),
        ),
    ),
    Step(
        C,
        "a danmaku; the client numbers its POSTs in the header",
        (_frame("post", C, Post(MessageType.DANMAKU, "m-1", DanmakuPayload("666")), room=3, sequence=2),),
    ),
    Step(
        S,
        "the tick in which it is shown, and its result",
        (
            _frame(
                "tick",
                S,
                Tick(
                    AT_MS + 100,
                    100,
                    0,
                    (TickEntry(MessageType.DANMAKU, "u-1", "Ming", DanmakuPayload("666")),),
                    Account(1, 1),
                ),
                lane=Lane.CHAT,
                room=3,
                sequence=1,
            ),
            _frame("ack", S, Ack((AckResult(2, Outcome.ACCEPTED),)), room=3),
        ),
    ),
    Step(
        C,
        "a CALL of rooms.history, operation 7, for the joined room of the header: events after offset 41",
        (_frame("call", C, Call(7, "", (None, 41)), room=3, sequence=3),),
    ),
    Step(
        S,
        "its RESULT: there are none",
        (_frame("result", S, Result(7, HistoryPage((), 7, 41, False)), room=3, sequence=3),),
    ),
    Step(C, "closing the link", (_frame("goaway", C, GoAway(CloseCode.CLIENT_DONE, "bye")),)),
)
"""The transcript of SPEC.md."""
