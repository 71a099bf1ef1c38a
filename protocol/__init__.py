"""The roomcast wire protocol: usable with no broker installed. Public names: those of the Python client.

They are imported when they are first used: the wire itself needs no Trio. All names of the client are in
`protocol.clients`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protocol.clients import Client, ClientClosed, JoinedRoom, Membership, PostResult, RoomRefused, open_client

__all__ = ["Client", "ClientClosed", "JoinedRoom", "Membership", "PostResult", "RoomRefused", "open_client"]


def __getattr__(name: str) -> Any:  # Any: a class or a function
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import protocol.clients as module

    return getattr(module, name)
