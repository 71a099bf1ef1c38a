"""Listening sockets that a supervisor has opened, and its control link: given to a node's process by descriptor.

The supervisor names them in one variable of the environment. It keeps the sockets open itself, so that a process that
is replaced leaves no moment in which a connection is refused.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["INHERITED", "describe", "inherited_control", "inherited_node", "inherited_sockets"]

INHERITED = "ROOMCAST_INHERITED"
"""Name of the variable."""


def describe(node: str, control: int, sockets: Mapping[str, Sequence[int]]) -> str:
    """Return the variable's value.

    :param node: name of the node.
    :param control: descriptor of its end of the control link.
    :param sockets: descriptors of listening sockets, by what they are for: ``viewers``, ``api``.
    """
    return json.dumps(
        {"node": node, "control": control, "sockets": {name: list(each) for name, each in sockets.items()}}
    )


def inherited_node() -> str:
    """Return the name of the node that this process is, "" = it has no supervisor."""
    name: str = _inherited().get("node", "")
    return name


def inherited_control() -> socket.socket | None:
    """Return this process's end of the control link."""
    descriptor = _inherited().get("control")
    return None if descriptor is None else socket.socket(fileno=descriptor)


def inherited_sockets(purpose: str) -> list[socket.socket]:
    """Return listening sockets that were opened for this process; [] = it binds its own."""
    return [socket.socket(fileno=number) for number in _inherited().get("sockets", {}).get(purpose, ())]


def _inherited() -> dict[str, Any]:
    """Any: values of three types, by name."""
    text = os.environ.get(INHERITED)
    found: dict[str, Any] = json.loads(text) if text else {}
    return found
