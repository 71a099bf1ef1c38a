"""State machine of a link: which side may send which frame, and when.

Each side of a link has its own state, which only the frames sent by *that side* change; so a client may send HELLO,
AUTH and JOIN in one write without waiting. A second table says which state of the client an answer of the server
needs. Both ends keep both states and use the same tables; a missing key is not allowed.
"""

from __future__ import annotations

from enum import StrEnum

from .codes import Opcode
from .messages import Side

__all__ = ["ANSWERS", "TRANSITIONS", "LinkState"]


class LinkState(StrEnum):
    """State of one side. A StrEnum because its hash is C code, and every frame is looked up in the tables."""

    SILENT = "silent"
    """Nothing sent yet."""
    GREETED = "greeted"
    """HELLO sent."""
    OPEN = "open"
    """AUTH sent: by the client with its token; by the server as acceptance."""
    CLOSED = "closed"
    """GOAWAY sent: no further frame is allowed."""


_S, _G, _O, _C = LinkState.SILENT, LinkState.GREETED, LinkState.OPEN, LinkState.CLOSED

TRANSITIONS: dict[Side, dict[tuple[LinkState, Opcode], LinkState]] = {
    Side.CLIENT: {
        (_S, Opcode.HELLO): _G,
        (_S, Opcode.GOAWAY): _C,
        (_G, Opcode.AUTH): _O,
        (_G, Opcode.PING): _G,
        (_G, Opcode.GOAWAY): _C,
        (_O, Opcode.AUTH): _O,
        (_O, Opcode.JOIN): _O,
        (_O, Opcode.RESUME): _O,
        (_O, Opcode.LEAVE): _O,
        (_O, Opcode.POST): _O,
        (_O, Opcode.ACK): _O,
        (_O, Opcode.CALL): _O,
        (_O, Opcode.PING): _O,
        (_O, Opcode.GOAWAY): _C,
    },
    Side.SERVER: {
        (_S, Opcode.HELLO): _G,
        (_S, Opcode.GOAWAY): _C,
        (_G, Opcode.AUTH): _O,
        (_G, Opcode.PONG): _G,
        (_G, Opcode.ERROR): _G,
        (_G, Opcode.GOAWAY): _C,
        (_O, Opcode.AUTH): _O,
        (_O, Opcode.JOIN): _O,
        (_O, Opcode.RESUME): _O,
        (_O, Opcode.LEAVE): _O,
        (_O, Opcode.ACK): _O,
        (_O, Opcode.EVENT): _O,
        (_O, Opcode.TICK): _O,
        (_O, Opcode.STATE): _O,
        (_O, Opcode.DIRECT): _O,
        (_O, Opcode.RESULT): _O,
        (_O, Opcode.PONG): _O,
        (_O, Opcode.ERROR): _O,
        (_O, Opcode.GOAWAY): _C,
    },
}
"""Next state by ``TRANSITIONS[side][state of that side, opcode it sends]``; a missing key is not allowed."""

ANSWERS: dict[Opcode, frozenset[LinkState]] = {
    Opcode.HELLO: frozenset({_G, _O, _C}),
    Opcode.AUTH: frozenset({_O, _C}),
}
"""States of the client in which the server may send this opcode (others: any).

CLOSED is among them because an answer may be in transit when the client sends GOAWAY."""
