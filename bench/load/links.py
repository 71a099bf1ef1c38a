"""One viewer's link: the bytes that join a room, and the positions of the streams that it received.

A link joins like any client: TCP connection, for WebSocket the upgrade, then HELLO, AUTH and JOIN (or RESUME) in one
write. It has no read buffer: the process that reads (`viewers`) keeps only the bytes of a partial frame here.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import msgspec

from bench.load.accounting import (
    SINGLE,
    STREAM_EVENT,
    STREAM_STATE,
    STREAM_TICK,
    FrameGroup,
    FrameRecord,
    ViewerAccounting,
)
from bench.load.client_link import ClientLink, LinkState
from bench.load.sockets import mask_message
from protocol.codes import Codec, Feature, Lane, Tier
from protocol.connection import encode
from protocol.messages import MAGIC, VERSION, Auth, ClientHello, Join, Message, Ping, Resume

__all__ = [
    "FEATURES",
    "Link",
    "ReadMode",
    "ViewerSpec",
    "check_final_state",
    "check_sequence",
    "client_bytes",
    "join_bytes",
]

FEATURES: dict[str, int] = {"plain": 0, "lz4": Feature.LZ4, "dictionary": Feature.LZ4 | Feature.LZ4_DICT_1}
"""Codecs that a viewer supports, by the names in scenarios."""
CODECS: dict[str, Codec] = {"plain": Codec.PLAIN, "lz4": Codec.LZ4, "dictionary": Codec.LZ4_DICT_1}

LATE_COUNTERS = 16
"""Largest distance by which counters for one viewer may overtake a broadcast that is still being written."""


class ViewerSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Spec of one viewer process."""

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
    verify_share: float = 0.01
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
    shared: bool = False
    """Whether each socket stands for several viewers (`shared_sockets`)."""
    fault: str = ""
    """``drop-frame``: one link drops one frame it received, to see that the checks fail."""


class ReadMode(IntEnum):
    """How a viewer reads."""

    HEALTHY = 0
    THROTTLED = 1
    """Reads a limited number of bytes a second."""
    STALLED = 2
    """Reads nothing once it has joined."""


class Link(ClientLink):
    """One viewer. ``positions``: last sequence received of each stream (-1: none; any first one is valid)."""

    __slots__ = (
        "allowance",
        "attempts",
        "begun_us",
        "code",
        "cut_us",
        "epoch",
        "gaps",
        "group",
        "holes",
        "index",
        "missed_events",
        "positions",
        "read_mode",
        "receive",
        "repeated_events",
        "replay_until",
        "reported_missed",
        "room",
        "room_name",
        "room_number",
        "seen",
        "token",
        "verifies",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        room_name: str,
        group: FrameGroup,
        *,
        websocket: bool,
        read_mode: ReadMode,
        verifies: bool,
        token: str | None,
    ) -> None:
        super().__init__(websocket)
        self.index = index
        self.room_name = room_name
        self.group = group
        self.seen: dict[bytes, FrameRecord] = group.seen
        self.read_mode = read_mode
        self.verifies = verifies
        self.token = token
        self.receive: Callable[[memoryview], int] | None = None
        """The socket's ``recv_into`` if the fast path applies: it has joined and does not compare bodies."""
        self.room = 0
        """Number of the room; -1 during the replay of a RESUME, so that every frame takes the slow path."""
        self.room_number = 0
        """Number of the room, also during a replay."""
        self.positions = [0, 0, -1, 0]
        self.epoch = 0
        self.replay_until = 0
        self.holes: list[tuple[int, int]] = []
        """Ranges of tick numbers that never arrived."""
        self.gaps = 0
        """Reports of the broker that this link has missed messages."""
        self.reported_missed = 0
        """Danmaku that this link has missed, by the broker's reports."""
        self.code = 0
        """Close code of the last GOAWAY."""
        self.attempts = 0
        self.allowance = 0.0
        self.begun_us = 0
        self.cut_us = 0
        """Time at which the scenario cut this link; 0 once it has rejoined."""
        self.missed_events = 0
        """Events of lanes 0 to 2 that never arrived, by their offsets."""
        self.repeated_events = 0
        """Events of lanes 0 to 2 that arrived more than once."""

    def __str__(self) -> str:
        return f"viewer {self.index}"


def join_bytes(link: Link, features: int, tier: Tier) -> bytes:
    """Return HELLO, AUTH and JOIN as bytes, with RESUME in place of JOIN if the link was in the room before."""
    hello = ClientHello(MAGIC, VERSION, VERSION, int(features), "roomcast-bench")
    request: Message
    if link.epoch:
        request = Resume(link.room_name, tier, link.epoch, link.positions[STREAM_EVENT])
    else:
        request = Join(link.room_name, tier)
    messages: tuple[Message, ...] = (hello, Auth(link.token), request)
    frames = [encode(message, 0, number, Lane.CONTROL) for number, message in enumerate(messages, 1)]
    return client_bytes(b"".join(frames), link.websocket)


def client_bytes(frames: bytes, websocket: bool) -> bytes:
    """Return whole frames as a client sends them."""
    return mask_message(frames) if websocket else frames


def ping_bytes(websocket: bool) -> bytes:
    """Return a heartbeat; the same bytes serve every link of a process."""
    return client_bytes(encode(Ping(0), 0, 0, Lane.CONTROL), websocket)


def check_sequence(link: Link, record: FrameRecord) -> tuple[bool, str]:
    """Check a frame that is not the next one of its stream: (whether it counts as a live copy, the violation or "").

    Updates the link's positions and holes. EVENT offsets have no holes; TICK numbers rise, and the numbers left out are
    kept as holes that the broker must report; STATE numbers rise.
    """
    stream, number = record.stream, record.sequence
    if stream == SINGLE:
        return True, ""
    if record.room != link.room_number:
        return False, f"{link} of room {link.room_number} received frame {number} of room {record.room}"
    position = link.positions[stream]
    violation = ""
    if stream == STREAM_EVENT:
        if number != position + 1:
            link.missed_events += max(0, number - position - 1)
            link.repeated_events += number <= position
            violation = f"{link}: event offsets go from {position} to {number} (room {link.room_name})"
    elif stream == STREAM_TICK:
        if 0 <= position < number - 1:
            link.holes.append((position + 1, number - 1))
        elif number < position:
            violation = f"{link}: tick numbers go back from {position} to {number} (room {link.room_name})"
    elif stream == STREAM_STATE and number <= position:
        # Counters for one viewer, after a gap, may overtake the broadcast of older ones: every client drops those.
        if number == position or not link.gaps or position - number > LATE_COUNTERS:
            violation = f"{link}: counters go back from {position} to {number} (room {link.room_name})"
        number = position
    link.positions[stream] = number
    live = True
    if link.room == -1:
        live = stream != STREAM_EVENT or number > link.replay_until
        if link.positions[STREAM_EVENT] >= link.replay_until:
            link.room = link.room_number
    return live, violation


def missing_danmaku(link: Link, weights: dict[int, int]) -> int:
    """Return the danmaku in the ticks that this link never received; ``weights``: tick number -> danmaku."""
    return sum(weights.get(number, 0) for first, last in link.holes for number in range(first, last + 1))


def link_report(links: list[Link]) -> dict[str, Any]:
    """Return states and close codes of all links as JSON."""
    states: dict[str, int] = {}
    codes: dict[str, int] = {}
    for link in links:
        name = link.state.name.lower()
        states[name] = states.get(name, 0) + 1
        if link.state is LinkState.CLOSED and link.code:
            codes[str(link.code)] = codes.get(str(link.code), 0) + 1
    return {"states": states, "close_codes": codes}


def check_final_state(accounting: ViewerAccounting, link: Link) -> None:
    """Check, at the end of the run, that a link received everything it had to."""
    totals = accounting.rooms.get(link.room_number)
    if link.state is not LinkState.READY or totals is None:
        if not link.read_mode:
            accounting.report_violation(f"{link} is {link.state.name.lower()} at the end (close code {link.code})")
        return
    weights = totals.ticks[link.group.tier]
    position, last = link.positions[STREAM_TICK], max(weights, default=0)
    holes = list(link.holes)
    if 0 <= position < last:
        link.holes.append((position + 1, last))
    missing = missing_danmaku(link, weights)
    if link.read_mode:
        if link.reported_missed > missing:
            accounting.report_violation(
                f"{link} was reported {link.reported_missed} missed danmaku, but missed only {missing}"
            )
    else:
        if link.holes and (not link.reported_missed or missing != link.reported_missed):
            first, final = link.holes[0]
            accounting.report_violation(
                f"{link} ({totals.name}) never received ticks {first} to {final}, {missing} danmaku are missing, "
                f"and the broker reported {link.reported_missed}"
            )
        offset = max(totals.events, default=link.positions[STREAM_EVENT])
        if link.positions[STREAM_EVENT] < offset:
            link.missed_events += offset - link.positions[STREAM_EVENT]
            accounting.report_violation(
                f"{link} ({totals.name}) received events up to {link.positions[STREAM_EVENT]} of {offset}: a lost frame"
            )
    link.holes = holes
