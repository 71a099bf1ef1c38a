"""The link's state machine: which side may send which frame, and when.

Each side of a link has a state of its own, moved only by the frames *that side* sends; so a client may send
HELLO, AUTH and JOIN in one write without waiting. A second table says what a server's answer needs from the
client first. Both ends keep both states and apply the same tables; a missing key is a refusal.
"""

from __future__ import annotations

from enum import StrEnum

from .codes import Opcode
from .messages import Side

__all__ = ["ANSWERS", "TRANSITIONS", "LinkState"]


class LinkState(StrEnum):
    """How far one side has come. A StrEnum because its hash is C code, and the tables are asked for every frame."""

    SILENT = "silent"
    """Nothing sent yet."""
    GREETED = "greeted"
    """HELLO sent."""
    OPEN = "open"
    """AUTH sent: the client has shown its token; the server has accepted it."""
    CLOSED = "closed"
    """GOAWAY sent: nothing may follow."""


_S, _G, _O, _C = LinkState.SILENT, LinkState.GREETED, LinkState.OPEN, LinkState.CLOSED

TRANSITIONS: dict[Side, dict[tuple[LinkState, Opcode], LinkState]] = {
    Side.CLIENT: {
        (_S, Opcode.HELLO): _G,
        (_S, Opcode.GOAWAY): _C,
        (_G, Opcode.AUTH): _O,
        (_G, Opcode.PING): _G,
        (_G, Opcode.GOAWAY): _C,
        (_O, Opcode.JOIN): _O,
        (_O, Opcode.RESUME): _O,
        (_O, Opcode.LEAVE): _O,
        (_O, Opcode.POST): _O,
        (_O, Opcode.ACK): _O,
        (_O, Opcode.BATCH): _O,
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
        (_O, Opcode.JOIN): _O,
        (_O, Opcode.RESUME): _O,
        (_O, Opcode.LEAVE): _O,
        (_O, Opcode.ACK): _O,
        (_O, Opcode.EVENT): _O,
        (_O, Opcode.TICK): _O,
        (_O, Opcode.STATE): _O,
        (_O, Opcode.DIRECT): _O,
        (_O, Opcode.BATCH): _O,
        (_O, Opcode.PONG): _O,
        (_O, Opcode.ERROR): _O,
        (_O, Opcode.GOAWAY): _C,
    },
}
"""``TRANSITIONS[side][state of that side, opcode it sends]`` is its next state; a missing key is refused."""

ANSWERS: dict[Opcode, frozenset[LinkState]] = {
    Opcode.HELLO: frozenset({_G, _O, _C}),
    Opcode.AUTH: frozenset({_O, _C}),
}
"""States the client must be in before the server may send this opcode (others: any).

CLOSED is among them because an answer may be under way when the client says GOAWAY."""
