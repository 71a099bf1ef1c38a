"""Records as the JSON that HTTP faces have: answers of operations and the events of webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .codes import MessageType

__all__ = ["as_json"]


def as_json(value: Any) -> Any:
    """Return a result as JSON has it: records as objects, names of enumerations in lower case, types of messages as
    numbers. Any: plain values."""
    names = getattr(value, "_fields", None)
    if names is not None:
        return {name: as_json(each) for name, each in zip(names, value, strict=True)}
    if isinstance(value, (tuple, list)):
        return [as_json(each) for each in value]
    if isinstance(value, Mapping):
        return {key: as_json(each) for key, each in value.items()}
    name = getattr(value, "name", None)
    if name is None:
        return value
    return int(value) if isinstance(value, MessageType) else str(name).lower()
