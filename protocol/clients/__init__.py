"""Clients of the roomcast protocol; this package is the Python one, on Trio."""

from __future__ import annotations

from .client import Client
from .connect import open_client
from .credentials import TokenSource, new_guest_token
from .dictionaries import DictionaryCache
from .directs import ClientEvents
from .events import (
    ActivityCounters,
    BatchState,
    CallLost,
    CallRefused,
    CertificateRefused,
    ClientClosed,
    ClientEvent,
    Connected,
    Danmaku,
    Direct,
    Disconnected,
    Fault,
    Gap,
    MessagesMissed,
    Position,
    PostDecided,
    PostResult,
    Pulse,
    RecentJoin,
    Rejoined,
    RoomEvent,
    RoomLeft,
    RoomRefused,
    State,
    StreamEvent,
    TickAccount,
    TokenRefused,
    TopLiker,
)
from .keys import RoomMap
from .likes import Likes
from .membership import Membership
from .room import JoinedRoom
from .room_posts import UnjoinedRoom
from .transports import Address, BytePipe, Connector, PipeLost, StreamPipe, connector

__all__ = [
    "ActivityCounters",
    "Address",
    "BatchState",
    "BytePipe",
    "CallLost",
    "CallRefused",
    "CertificateRefused",
    "Client",
    "ClientClosed",
    "ClientEvent",
    "ClientEvents",
    "Connected",
    "Connector",
    "Danmaku",
    "DictionaryCache",
    "Direct",
    "Disconnected",
    "Fault",
    "Gap",
    "JoinedRoom",
    "Likes",
    "Membership",
    "MessagesMissed",
    "PipeLost",
    "Position",
    "PostDecided",
    "PostResult",
    "Pulse",
    "RecentJoin",
    "Rejoined",
    "RoomEvent",
    "RoomLeft",
    "RoomMap",
    "RoomRefused",
    "State",
    "StreamEvent",
    "StreamPipe",
    "TickAccount",
    "TokenRefused",
    "TokenSource",
    "TopLiker",
    "UnjoinedRoom",
    "connector",
    "new_guest_token",
    "open_client",
]
