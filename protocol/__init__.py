"""The roomcast wire protocol: usable with no broker installed. Public names: those of the Python clients.

They are imported when they are first used: the wire itself needs no Trio. All names of the viewers' client are in
`protocol.clients`, those of the backend's in `protocol.backend`. The same files are the distribution roomcast-client,
where this package is called ``roomcast_client``: its modules import each other relatively.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backend import ApiError, AsyncBackend, Backend, BackendError, NoAnswer
    from .clients import Client, ClientClosed, JoinedRoom, Membership, PostResult, RoomRefused, open_client

_BACKEND = ("ApiError", "AsyncBackend", "Backend", "BackendError", "NoAnswer")
__all__ = [
    "ApiError", "AsyncBackend", "Backend", "BackendError", "Client", "ClientClosed", "JoinedRoom", "Membership",
    "NoAnswer", "PostResult", "RoomRefused", "open_client",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # Any: a class or a function
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(".backend" if name in _BACKEND else ".clients", __name__)
    return getattr(module, name)
