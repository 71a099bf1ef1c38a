"""Ends of a link in a chosen state, and what comes out of them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from protocol.codes import Lane, Opcode
from protocol.connection import NEED_DATA, Connection, Encoding, Frame, Refused, encode
from protocol.errors import RemoteProtocolError
from protocol.messages import Message, Side
from protocol.state import LinkState

Outcome = list[Frame | Refused | tuple[int, str]]
"""Events in order; a broken link ends with (close code, reason)."""


def other(side: Side) -> Side:
    return Side.SERVER if side is Side.CLIENT else Side.CLIENT


def end(
    side: Side,
    peer: LinkState = LinkState.OPEN,
    ours: LinkState = LinkState.OPEN,
    encoding: Encoding = Encoding.BINARY,
) -> Connection:
    """The end of ``side`` of a link that has come so far."""
    connection = Connection(side, encoding)
    connection.peer_state = peer
    connection.local_state = ours
    return connection


def drain(connection: Connection) -> Outcome:
    """All that `next_event` has to say; the error must be latched and must not change."""
    found: Outcome = []
    failure: RemoteProtocolError | None = None
    while failure is None:
        try:
            event = connection.next_event()
        except RemoteProtocolError as error:
            failure = error
            continue
        if event is NEED_DATA:
            return found
        assert isinstance(event, (Frame, Refused))
        found.append(event)
    with pytest.raises(RemoteProtocolError) as again:
        connection.next_event()
    assert (again.value.code, again.value.reason) == (failure.code, failure.reason)
    assert again.value is not failure, "one exception raised twice would gather tracebacks"
    found.append((int(failure.code), failure.reason))
    return found


def feed(connection: Connection, pieces: Iterable[bytes]) -> Outcome:
    """Give the pieces one by one, reading everything in between."""
    found: Outcome = []
    for piece in pieces:
        connection.receive_data(piece)
        found += drain(connection)
        if found and is_close(found[-1]):
            break
    return found


def is_close(event: object) -> bool:
    """Whether an element of an `Outcome` is the end of the link."""
    return not isinstance(event, (Frame, Refused))


def roundtrip(
    sender: Side,
    message: Message,
    lane: Lane,
    room: int = 0,
    sequence: int = 0,
    encoding: Encoding = Encoding.BINARY,
    peer: LinkState = LinkState.OPEN,
) -> Outcome:
    """What the other side reads when ``sender``, being in state ``peer``, has sent one message."""
    connection = end(other(sender), peer=peer, encoding=encoding)
    data = encode(message, room, sequence, lane, encoding)
    if encoding is Encoding.JSON:
        connection.receive_text(data.decode())
    else:
        connection.receive_data(data)
    return drain(connection)


def state_before(opcode: Opcode) -> LinkState:
    """A state in which a side may send ``opcode``."""
    return {Opcode.HELLO: LinkState.SILENT, Opcode.AUTH: LinkState.GREETED}.get(opcode, LinkState.OPEN)
