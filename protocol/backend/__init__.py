"""Client of the control API for the platform's backend: `Backend` for synchronous programs, `AsyncBackend` for others.

``Backend("http://127.0.0.1:7401", key).rooms.open(room="live-1")``: a method an operation, with the operation's fields
as keyword arguments and its typed result. The methods are generated from the table of operations.
"""

from __future__ import annotations

from .calls import ApiError, BackendError, NoAnswer
from .client import AsyncBackend, Backend

__all__ = ["ApiError", "AsyncBackend", "Backend", "BackendError", "NoAnswer"]
