"""One viewer's link: what it sends to come in, and what it remembers of what it heard.

A link comes in like any client: TCP connection, for WebSocket the upgrade, then HELLO, AUTH and JOIN (or RESUME) in
one write. It has no buffer of its own; the process that reads (`viewers`) keeps a half frame's bytes here.
"""

from __future__ import annotations

import socket
from enum import IntEnum
from typing import Any

from bench.books import SINGLE, STREAM_EVENT, STREAM_STATE, STREAM_TICK, Form, Record
from bench.sockets import mask_message
from protocol.codes import Codec, Feature, Lane, Tier
from protocol.connection import encode
from protocol.messages import MAGIC, VERSION, Auth, ClientHello, Join, Message, Ping, Resume

__all__ = ["FEATURES", "Link", "LinkState", "Manner", "client_bytes", "entrance"]

FEATURES: dict[str, int] = {"plain": 0, "lz4": Feature.LZ4, "dictionary": Feature.LZ4 | Feature.LZ4_DICT_1}
"""What a viewer can decompress, by the name scenarios use."""
CODECS: dict[str, Codec] = {"plain": Codec.PLAIN, "lz4": Codec.LZ4, "dictionary": Codec.LZ4_DICT_1}

_JOIN_SEQUENCE = 3


class LinkState(IntEnum):
    """How far a link has come."""

    CONNECTING = 0
    UPGRADING = 1
    JOINING = 2
    READY = 3
    CLOSED = 4


class Manner(IntEnum):
    """How a viewer reads."""

    HEALTHY = 0
    THROTTLED = 1
    """So many bytes a second."""
    STALLED = 2
    """Not at all, once it is in the room."""


class Link:
    """One viewer. ``marks``: last sequence heard per stream (-1: none yet, and the first one is taken as it comes)."""

    __slots__ = (
        "allowance",
        "attempts",
        "begun_us",
        "careful",
        "code",
        "epoch",
        "form",
        "holes",
        "index",
        "manner",
        "marks",
        "named_room",
        "replay_until",
        "rest",
        "room",
        "seat",
        "seen",
        "sock",
        "state",
        "token",
        "told",
        "websocket",
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
        self.index = index
        self.named_room = room_name
        self.form = form
        self.seen: dict[bytes, Record] = form.seen
        self.websocket = websocket
        self.manner = manner
        self.careful = careful
        self.token = token
        self.sock: socket.socket | None = None
        self.state = LinkState.CLOSED
        self.rest = b""
        self.room = 0
        """Number of the room this link is in; -1 while a RESUME is being replayed, so that every frame is looked at."""
        self.seat = 0
        """Number of the room, replay or not."""
        self.marks = [0, 0, -1, 0]
        self.epoch = 0
        self.replay_until = 0
        self.holes: list[tuple[int, int]] = []
        """Ranges of tick numbers that never came."""
        self.told = 0
        """Danmaku that the broker says this link has missed."""
        self.code = 0
        """Close code of the last GOAWAY."""
        self.attempts = 0
        self.allowance = 0.0
        self.begun_us = 0

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
            wrong = f"{link}: event offsets go from {mark} to {number} (room {link.named_room})"
    elif stream == STREAM_TICK:
        if 0 <= mark < number - 1:
            link.holes.append((mark + 1, number - 1))
        elif number < mark:
            wrong = f"{link}: tick numbers go back from {mark} to {number} (room {link.named_room})"
    elif stream == STREAM_STATE and number <= mark:
        wrong = f"{link}: counters go back from {mark} to {number} (room {link.named_room})"
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
