"""States of the protocol that open links share.

A link that is logged in and between two frames has no state of its own: every such link of an encoding is in the same
one. So it keeps no `Connection` then (96 bytes), and takes one when bytes come. It gives it back when they were whole
frames; what is left of an unfinished one stays with its link alone.
"""

from __future__ import annotations

from protocol.connection import Connection, Encoding
from protocol.messages import Side

__all__ = ["SharedConnections"]


class SharedConnections:
    """Connections for the links of one broker: of each encoding one to send with, and one for the bytes of a link."""

    __slots__ = ("_senders", "_unused")

    def __init__(self) -> None:
        self._senders = {encoding: Connection.opened(Side.SERVER, encoding) for encoding in Encoding}
        self._unused: dict[Encoding, Connection] = {}

    def sender(self, encoding: Encoding) -> Connection:
        """Return the connection that frames what an open link sends, all but GOAWAY, after which a link is not open."""
        return self._senders[encoding]

    def take(self, encoding: Encoding) -> Connection:
        """Return a connection between two frames, for one link alone."""
        return self._unused.pop(encoding, None) or Connection.opened(Side.SERVER, encoding)

    def give_back(self, connection: Connection) -> bool:
        """Keep a connection for the next link, if it is between two frames; else another link would get the rest.

        Returns whether it was kept: then its link must not use it any more.
        """
        if not connection.is_between_frames:
            return False
        self._unused[connection.encoding] = connection
        return True
