"""Ends of a link in a chosen state, and the events that they return."""

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
    """Return the end of ``side`` of a link whose ends are in the states ``peer`` and ``ours``."""
    connection = Connection(side, encoding)
    connection.peer_state = peer
    connection.local_state = ours
    return connection


def drain(connection: Connection, quickly: bool = False) -> Outcome:
    """Return all events of `next_event`; an error must be raised again unchanged by each later call.

    ``quickly``: with `Connection.take_danmaku` before each, as a session reads.
    """
    found: Outcome = []
    failure: RemoteProtocolError | None = None
    while failure is None:
        while quickly and (danmaku := connection.take_danmaku()):
            found += [Frame(Opcode.POST, Lane.CONTROL, room, sequence, post) for room, sequence, post in danmaku]
        try:
            event = connection.next_event()
        except RemoteProtocolError as error:
            failure = error
            continue
        if event is NEED_DATA:
            return found
        assert isinstance(event, (Frame, Refused))
        found.append(event)
    assert not quickly or not connection.take_danmaku()
    with pytest.raises(RemoteProtocolError) as again:
        connection.next_event()
    assert (again.value.code, again.value.reason) == (failure.code, failure.reason)
    assert again.value is not failure, "an exception that is raised twice accumulates tracebacks"
    found.append((int(failure.code), failure.reason))
    return found


def feed(connection: Connection, pieces: Iterable[bytes], quickly: bool = False) -> Outcome:
    """Feed the pieces one by one and return the events of each. ``quickly``: as in `drain`."""
    found: Outcome = []
    for piece in pieces:
        connection.receive_data(piece)
        found += drain(connection, quickly)
        if found and is_close(found[-1]):
            break
    return found


def is_close(event: object) -> bool:
    """Return whether an element of an `Outcome` is the end of the link."""
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
    """Return what the other side reads when ``sender``, in state ``peer``, has sent one message."""
    connection = end(other(sender), peer=peer, encoding=encoding)
    data = encode(message, room, sequence, lane, encoding)
    if encoding is Encoding.JSON:
        connection.receive_text(data.decode())
    else:
        connection.receive_data(data)
    return drain(connection)


def state_before(opcode: Opcode) -> LinkState:
    """Return a state in which a side may send ``opcode``."""
    return {Opcode.HELLO: LinkState.SILENT, Opcode.AUTH: LinkState.GREETED}.get(opcode, LinkState.OPEN)
