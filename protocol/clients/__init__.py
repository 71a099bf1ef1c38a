"""Clients of the roomcast protocol; this package is the Python one, on Trio."""

from __future__ import annotations

from ..messages import BatchState
from .client import Client
from .connect import open_client
from .credentials import TokenSource
from .directs import ClientEvents
from .events import (
    BatchRefused,
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
from .room import Likes, Membership, Room
from .transports import Address, BytePipe, Connector, PipeLost, StreamPipe, connector

__all__ = [
    "Address",
    "BatchRefused",
    "BatchState",
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
    "TokenSource",
    "connector",
    "open_client",
]
