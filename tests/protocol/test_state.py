"""Every (side, state, opcode) is tried against the tables: what is not in them is refused, and stays refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from protocol.codes import CloseCode, Lane, Opcode, Outcome
from protocol.connection import Encoding, Frame, encode
from protocol.errors import LocalProtocolError
from protocol.message_rules import MESSAGE_KINDS, OPCODE_LANES
from protocol.messages import (
    MAGIC,
    Ack,
    AckResult,
    Auth,
    Authenticated,
    Call,
    ClientHello,
    Direct,
    DirectAck,
    ErrorReply,
    Event,
    GoAway,
    Join,
    Joined,
    Leave,
    Left,
    Message,
    Ping,
    Pong,
    Post,
    Result,
    Resume,
    Resumed,
    ServerHello,
    Side,
    State,
    Tick,
)
from protocol.operations.users import DisconnectedUser
from protocol.payloads import DanmakuPayload
from protocol.state import ANSWERS, TRANSITIONS, LinkState
from tests.support.links import drain, end, other

_JOINED = Joined("a", 1, 0, 1, 1, 20, 100, 1, 1, 1, 1, 0)  # type: ignore[arg-type]
ONE_OF_EACH: dict[tuple[Side, Opcode], Any] = {
    (Side.CLIENT, Opcode.HELLO): ClientHello(MAGIC, 1, 1),
    (Side.CLIENT, Opcode.AUTH): Auth(None),
    (Side.CLIENT, Opcode.JOIN): Join("a"),
    (Side.CLIENT, Opcode.LEAVE): Leave(),
    (Side.CLIENT, Opcode.POST): Post(1, "", DanmakuPayload("hi")),
    (Side.CLIENT, Opcode.ACK): DirectAck(1),
    (Side.CLIENT, Opcode.PING): Ping(1),
    (Side.CLIENT, Opcode.RESUME): Resume("a", 20, 1, 0),  # type: ignore[arg-type]
    (Side.CLIENT, Opcode.GOAWAY): GoAway(4411),
    (Side.CLIENT, Opcode.CALL): Call(2, "", ("a",)),
    (Side.SERVER, Opcode.HELLO): ServerHello(1, 0, 0, 1, 1, 1),
    (Side.SERVER, Opcode.AUTH): Authenticated("u", ""),
    (Side.SERVER, Opcode.JOIN): _JOINED,
    (Side.SERVER, Opcode.LEAVE): Left(0),  # type: ignore[arg-type]
    (Side.SERVER, Opcode.ACK): Ack((AckResult(1, Outcome.ACCEPTED),)),
    (Side.SERVER, Opcode.EVENT): Event(128, 0, "", "", None),
    (Side.SERVER, Opcode.TICK): Tick(0, 0, 0, ()),
    (Side.SERVER, Opcode.STATE): State(0, 1, 0, 0, 0, 0, 0, 0, 0),  # type: ignore[arg-type]
    (Side.SERVER, Opcode.DIRECT): Direct(0, 128, 0, None),
    (Side.SERVER, Opcode.PONG): Pong(0, 0),
    (Side.SERVER, Opcode.ERROR): ErrorReply(101, ""),
    (Side.SERVER, Opcode.GOAWAY): GoAway(4000),
    (Side.SERVER, Opcode.RESUME): Resumed(True, 1, _JOINED),
    (Side.SERVER, Opcode.RESULT): Result(41, DisconnectedUser(1)),
}
EVERY = list(product(Side, LinkState, Opcode))


def lane_of(side: Side, opcode: Opcode) -> Lane:
    return Lane.CONTROL if side is Side.CLIENT else min(OPCODE_LANES[opcode])


def sample(side: Side, opcode: Opcode) -> Any:
    """A body of ``opcode``; where ``side`` has none, the other side's."""
    return ONE_OF_EACH[side if (side, opcode) in ONE_OF_EACH else other(side), opcode]


def test_the_samples_are_complete() -> None:
    assert {key: type(message) for key, message in ONE_OF_EACH.items()} == MESSAGE_KINDS


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize(("side", "state", "opcode"), EVERY, ids=lambda each: each.name)
def test_a_frame_passes_where_the_table_has_it_and_nowhere_else(
    side: Side, state: LinkState, opcode: Opcode, encoding: Encoding
) -> None:
    receiver = end(other(side), peer=state, encoding=encoding)
    message = sample(side, opcode)
    data = encode(message, 0, 0, lane_of(side, opcode), encoding)
    if encoding is Encoding.JSON:
        receiver.receive_text(data.decode())
    else:
        receiver.receive_data(data)
    (found,) = drain(receiver)
    moved = TRANSITIONS[side].get((state, opcode))
    if moved is None:
        assert found == (CloseCode.OUT_OF_STATE, f"{opcode.name} may not be sent when {state.value}")
        assert receiver.peer_state is state
    else:
        assert isinstance(found, Frame)
        assert found.message == message
        assert receiver.peer_state is moved
    assert receiver.local_state is LinkState.OPEN, "receiving moves only the other side's state"


@pytest.mark.parametrize(("side", "state", "opcode"), EVERY, ids=lambda each: each.name)
def test_we_cannot_send_what_the_peer_would_refuse(side: Side, state: LinkState, opcode: Opcode) -> None:
    sender = end(side, ours=state)
    lane = lane_of(side, opcode)
    moved = TRANSITIONS[side].get((state, opcode))
    message = sample(side, opcode)
    if moved is None:
        with pytest.raises(LocalProtocolError):
            sender.send(message, lane=lane)
        assert sender.local_state is state
    else:
        sender.send(message, lane=lane)
        assert sender.local_state is moved


@pytest.mark.parametrize("opcode", ANSWERS)
@pytest.mark.parametrize("client", LinkState)
def test_an_answer_needs_its_question(opcode: Opcode, client: LinkState) -> None:
    before = {Opcode.HELLO: LinkState.SILENT, Opcode.AUTH: LinkState.GREETED}[opcode]
    message: Message = ONE_OF_EACH[Side.SERVER, opcode]
    receiver = end(Side.CLIENT, peer=before, ours=client)
    receiver.receive_data(encode(message, 0, 0, Lane.CONTROL))
    (found,) = drain(receiver)
    sender = end(Side.SERVER, peer=client, ours=before)
    if client in ANSWERS[opcode]:
        assert isinstance(found, Frame)
        assert sender.send(message)
    else:
        assert found == (CloseCode.OUT_OF_STATE, f"{opcode.name} answers nothing")
        with pytest.raises(LocalProtocolError):
            sender.send(message)


def test_the_tables_lead_from_silence_to_the_end() -> None:
    for moves in TRANSITIONS.values():
        reached = {LinkState.SILENT}
        while more := {after for (state, _), after in moves.items() if state in reached} - reached:
            reached |= more
        assert reached == set(LinkState)
        assert not [key for key in moves if key[0] is LinkState.CLOSED], "nothing follows a GOAWAY"
        assert all((state, Opcode.GOAWAY) in moves for state in LinkState if state is not LinkState.CLOSED)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("lane", Lane)
@pytest.mark.parametrize("opcode", Opcode, ids=lambda each: each.name)
def test_a_lane_is_the_opcodes_own(side: Side, opcode: Opcode, lane: Lane) -> None:
    message = ONE_OF_EACH.get((side, opcode))
    if message is None or opcode in (Opcode.HELLO, Opcode.AUTH):
        return
    allowed = lane in (OPCODE_LANES[opcode] if side is Side.SERVER else {Lane.CONTROL})
    receiver = end(other(side))
    receiver.receive_data(encode(message, 0, 0, lane))
    (found,) = drain(receiver)
    sender = end(side)
    if allowed:
        assert isinstance(found, Frame)
        assert sender.send(message, lane=lane) == encode(message, 0, 0, lane)
    else:
        assert found[0] == CloseCode.BAD_FRAME
        with pytest.raises(LocalProtocolError):
            sender.send(message, lane=lane)
