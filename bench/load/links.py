"""One viewer's link: what it sends to come in, and what it remembers of what it heard.

A link comes in like any client: TCP connection, for WebSocket the upgrade, then HELLO, AUTH and JOIN (or RESUME) in
one write. It has no buffer of its own; the process that reads (`viewers`) keeps a half frame's bytes here.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import msgspec

from bench.load.books import SINGLE, STREAM_EVENT, STREAM_STATE, STREAM_TICK, Books, Form, Record
from bench.load.client_link import ClientLink, LinkState
from bench.load.sockets import mask_message
from protocol.codes import Codec, Feature, Lane, Tier
from protocol.connection import encode
from protocol.messages import MAGIC, VERSION, Auth, ClientHello, Join, Message, Ping, Resume

__all__ = ["FEATURES", "Link", "Manner", "ViewerSpec", "client_bytes", "entrance", "judge", "judge_end"]

FEATURES: dict[str, int] = {"plain": 0, "lz4": Feature.LZ4, "dictionary": Feature.LZ4 | Feature.LZ4_DICT_1}
"""What a viewer can decompress, by the name scenarios use."""
CODECS: dict[str, Codec] = {"plain": Codec.PLAIN, "lz4": Codec.LZ4, "dictionary": Codec.LZ4_DICT_1}

LATE_COUNTERS = 16
"""A broadcast of counters is not older than this by the time its sweep reaches the last viewer."""


class ViewerSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What one viewer process does. ``seats``: in a crowd, the room numbers of the viewers behind each socket."""

    host: str
    port: int
    links: int
    first_index: int = 0
    rooms: list[str] = []
    websocket_share: float = 0.0
    features: str = "dictionary"
    tier: int = 20
    sources: int = 4
    connect_per_s: float = 2000.0
    in_flight: int = 200
    careful_share: float = 0.01
    stalled: int = 0
    throttled: int = 0
    throttle_bytes_per_s: int = 2048
    slow_receive_bytes: int = 8192
    auth: str = "token"
    secret: str | None = None
    heartbeat_s: float = 30.0
    origin_us: int = 0
    lifetime_s: float = 900.0
    seed: int = 1
    crowd: bool = False
    crowd_sockets: int = 0
    room_count: int = 0
    fault: str = ""
    """``drop-frame``: one link forgets one frame it was sent, to see that the checks notice."""


class Manner(IntEnum):
    """How a viewer reads."""

    HEALTHY = 0
    THROTTLED = 1
    """So many bytes a second."""
    STALLED = 2
    """Not at all, once it is in the room."""


class Link(ClientLink):
    """One viewer. ``marks``: last sequence heard per stream (-1: none yet, and the first one is taken as it comes)."""

    __slots__ = (
        "allowance",
        "attempts",
        "begun_us",
        "careful",
        "code",
        "cut_us",
        "epoch",
        "form",
        "gaps",
        "holes",
        "index",
        "manner",
        "marks",
        "missed",
        "named_room",
        "receive",
        "replay_until",
        "room",
        "seat",
        "seen",
        "token",
        "told",
        "twice",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        room_name: str,
        form: Form,
        *,
        websocket: bool,
        manner: Manner,
        careful: bool,
        token: str | None,
    ) -> None:
        super().__init__(websocket)
        self.index = index
        self.named_room = room_name
        self.form = form
        self.seen: dict[bytes, Record] = form.seen
        self.manner = manner
        self.careful = careful
        self.token = token
        self.receive: Callable[[memoryview], int] | None = None
        """The socket's ``recv_into`` where frames may be taken the short way: in a room, and not a careful link."""
        self.room = 0
        """Number of the room this link is in; -1 while a RESUME is being replayed, so that every frame is looked at."""
        self.seat = 0
        """Number of the room, replay or not."""
        self.marks = [0, 0, -1, 0]
        self.epoch = 0
        self.replay_until = 0
        self.holes: list[tuple[int, int]] = []
        """Ranges of tick numbers that never came."""
        self.gaps = 0
        """How often the broker said that this link has missed something."""
        self.told = 0
        """Danmaku that the broker says this link has missed."""
        self.code = 0
        """Close code of the last GOAWAY."""
        self.attempts = 0
        self.allowance = 0.0
        self.begun_us = 0
        self.cut_us = 0
        """When the scenario cut this link; 0 once it is back."""
        self.missed = 0
        """Events of lanes 0 to 2 that never came, by their offsets."""
        self.twice = 0
        """Events of lanes 0 to 2 that came again."""

    def __str__(self) -> str:
        return f"viewer {self.index}"


def entrance(link: Link, features: int, tier: Tier) -> bytes:
    """The bytes that bring a link in: HELLO, AUTH and JOIN, or RESUME where it has been in the room before."""
    hello = ClientHello(MAGIC, VERSION, VERSION, int(features), "roomcast-bench")
    door: Message
    if link.epoch:
        door = Resume(link.named_room, tier, link.epoch, link.marks[STREAM_EVENT])
    else:
        door = Join(link.named_room, tier)
    messages: tuple[Message, ...] = (hello, Auth(link.token), door)
    frames = [encode(message, 0, number, Lane.CONTROL) for number, message in enumerate(messages, 1)]
    return client_bytes(b"".join(frames), link.websocket)


def client_bytes(frames: bytes, websocket: bool) -> bytes:
    """Whole frames as a client sends them."""
    return mask_message(frames) if websocket else frames


def ping_bytes(websocket: bool) -> bytes:
    """A heartbeat; the same bytes serve every link of a process."""
    return client_bytes(encode(Ping(0), 0, 0, Lane.CONTROL), websocket)


def judge(link: Link, record: Record) -> tuple[bool, str]:
    """Judge a frame that is not simply the next one of its stream: (whether it counts as a live copy, what is wrong).

    Moves the link's marks and holes. EVENT offsets have no holes, ever; TICK numbers rise, and the numbers left out are
    remembered as holes that the broker must own up to; STATE numbers rise.
    """
    stream, number = record.stream, record.sequence
    if stream == SINGLE:
        return True, ""
    if record.room != link.seat:
        return False, f"{link} of room {link.seat} got frame {number} of room {record.room}"
    mark = link.marks[stream]
    wrong = ""
    if stream == STREAM_EVENT:
        if number != mark + 1:
            link.missed += max(0, number - mark - 1)
            link.twice += number <= mark
            wrong = f"{link}: event offsets go from {mark} to {number} (room {link.named_room})"
    elif stream == STREAM_TICK:
        if 0 <= mark < number - 1:
            link.holes.append((mark + 1, number - 1))
        elif number < mark:
            wrong = f"{link}: tick numbers go back from {mark} to {number} (room {link.named_room})"
    elif stream == STREAM_STATE and number <= mark:
        # Counters for one viewer, after a gap, may overtake the sweep of older ones: every client drops those.
        if number == mark or not link.gaps or mark - number > LATE_COUNTERS:
            wrong = f"{link}: counters go back from {mark} to {number} (room {link.named_room})"
        number = mark
    link.marks[stream] = number
    live = True
    if link.room == -1:
        live = stream != STREAM_EVENT or number > link.replay_until
        if link.marks[STREAM_EVENT] >= link.replay_until:
            link.room = link.seat
    return live, wrong


def missing_danmaku(link: Link, weights: dict[int, int]) -> int:
    """How many danmaku stood in the ticks that this link never got; ``weights``: tick number -> danmaku."""
    return sum(weights.get(number, 0) for first, last in link.holes for number in range(first, last + 1))


def link_report(links: list[Link]) -> dict[str, Any]:
    """States and close codes of all links."""
    states: dict[str, int] = {}
    codes: dict[str, int] = {}
    for link in links:
        name = link.state.name.lower()
        states[name] = states.get(name, 0) + 1
        if link.state is LinkState.CLOSED and link.code:
            codes[str(link.code)] = codes.get(str(link.code), 0) + 1
    return {"states": states, "close_codes": codes}


def judge_end(books: Books, link: Link) -> None:
    """What a link must have heard by now."""
    book = books.rooms.get(link.seat)
    if link.state is not LinkState.READY or book is None:
        if not link.manner:
            books.violate(f"{link} is {link.state.name.lower()} at the end (close code {link.code})")
        return
    weights = book.ticks[link.form.tier]
    mark, last = link.marks[STREAM_TICK], max(weights, default=0)
    holes = list(link.holes)
    if 0 <= mark < last:
        link.holes.append((mark + 1, last))
    missing = missing_danmaku(link, weights)
    if link.manner:
        if link.told > missing:
            books.violate(f"{link} was told of {link.told} missed danmaku, but missed only {missing}")
    else:
        if link.holes and (not link.told or missing != link.told):
            first, final = link.holes[0]
            books.violate(
                f"{link} ({book.name}) never got ticks {first} to {final}, {missing} danmaku are missing in all, "
                f"and the broker owned up to {link.told}"
            )
        offset = max(book.events, default=link.marks[STREAM_EVENT])
        if link.marks[STREAM_EVENT] < offset:
            link.missed += offset - link.marks[STREAM_EVENT]
            books.violate(
                f"{link} ({book.name}) heard events up to {link.marks[STREAM_EVENT]} of {offset}: a lost frame"
            )
    link.holes = holes
