"""Clients of the roomcast protocol; this package is the Python one, on Trio."""

from __future__ import annotations

from .directs import ClientEvents
from .events import (
    ClientClosed,
    ClientEvent,
    Connected,
    Danmaku,
    Direct,
    Disconnected,
    Event,
    Fault,
    Gap,
    Left,
    Missed,
    Position,
    PostResult,
    Pulse,
    Rejoined,
    RoomEvent,
    RoomRefused,
    State,
    TickAccount,
)
from .subscription import Likes, Membership, Room
from .transports import Address, BytePipe, Connector, PipeLost, StreamPipe, connector
from .trio_client import Client, open_client

__all__ = [
    "Address",
    "BytePipe",
    "Client",
    "ClientClosed",
    "ClientEvent",
    "ClientEvents",
    "Connected",
    "Connector",
    "Danmaku",
    "Direct",
    "Disconnected",
    "Event",
    "Fault",
    "Gap",
    "Left",
    "Likes",
    "Membership",
    "Missed",
    "PipeLost",
    "Position",
    "PostResult",
    "Pulse",
    "Rejoined",
    "Room",
    "RoomEvent",
    "RoomRefused",
    "State",
    "StreamPipe",
    "TickAccount",
    "connector",
    "open_client",
]
