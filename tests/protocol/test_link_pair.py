"""Both ends of one link, driven at random: whatever is said arrives once, in order, and both know where they are."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.codes import Codec, Opcode
from protocol.connection import NEED_DATA, Connection, Encoding, Frame, encode
from protocol.errors import LocalProtocolError
from protocol.frames import HEADER_BYTES, MAX_CLIENT_BODY_BYTES, MAX_FRAME_BYTES
from protocol.message_rules import MESSAGE_KINDS, opcode_of
from protocol.messages import Message, Side
from protocol.state import ANSWERS, TRANSITIONS, LinkState
from protocol.vectors.samples import SESSION
from tests.support.examples import examples
from tests.support.links import other
from tests.support.strategies import MESSAGES, lanes_of, u32


class LinkPair(RuleBasedStateMachine):
    """A client and a server with a pipe in each direction that delivers bytes when and as it likes."""

    @initialize(encoding=st.sampled_from(Encoding))
    def connect(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.ends = {side: Connection(side, encoding) for side in Side}
        self.pipes: dict[Side, deque[bytes]] = {side: deque() for side in Side}
        """Bytes on their way to a side: any run of them may be joined or cut; texts stay whole."""
        self.sent: dict[Side, list[Frame]] = {side: [] for side in Side}
        self.received: dict[Side, list[Frame]] = {side: [] for side in Side}

    def may_send(self, side: Side, opcode: Opcode) -> bool:
        ours = self.ends[side]
        answers = side is Side.CLIENT or ours.peer_state in ANSWERS.get(opcode, frozenset(LinkState))
        return (ours.local_state, opcode) in TRANSITIONS[side] and answers

    @rule(data=st.data(), side=st.sampled_from(Side), goodbye=st.integers(0, 5))
    def send(self, data: st.DataObject, side: Side, goodbye: int) -> None:
        legal = [
            opcode
            for sender, opcode in MESSAGE_KINDS
            if sender is side and self.may_send(side, opcode) and (opcode is not Opcode.GOAWAY or not goodbye)
        ]
        if not legal:
            return
        message: Message = data.draw(MESSAGES[side, data.draw(st.sampled_from(legal))])
        room, sequence, lane = data.draw(u32), data.draw(u32), data.draw(lanes_of(side, message))
        before = self.ends[side].local_state
        wire = self.ends[side].send(message, room, sequence, lane)
        assert self.ends[side].local_state is TRANSITIONS[side][before, opcode_of(message)]
        self.put(side, wire, Frame(opcode_of(message), lane, room, sequence, message))

    @precondition(lambda self: self.ends[Side.SERVER].local_state is LinkState.OPEN)
    @rule(data=st.data(), codec=st.sampled_from(Codec))
    def broadcast(self, data: st.DataObject, codec: Codec) -> None:
        """A frame that was encoded once for many, as a room does it, compressed or not."""
        opcode = data.draw(st.sampled_from([Opcode.TICK, Opcode.EVENT, Opcode.STATE]))
        message = data.draw(MESSAGES[Side.SERVER, opcode])
        lane = data.draw(lanes_of(Side.SERVER, message))
        wire = encode(message, 1, 2, lane, self.encoding, codec)
        self.put(Side.SERVER, wire, Frame(opcode, lane, 1, 2, message))

    def put(self, side: Side, wire: bytes, frame: Frame) -> None:
        self.pipes[other(side)].append(wire)
        self.sent[side].append(frame)

    @rule(data=st.data(), side=st.sampled_from(Side))
    def try_what_is_forbidden(self, data: st.DataObject, side: Side) -> None:
        forbidden = [o for sender, o in MESSAGE_KINDS if sender is side and not self.may_send(side, o)]
        if not forbidden:
            return
        message = data.draw(MESSAGES[side, data.draw(st.sampled_from(forbidden))])
        before = self.ends[side].local_state
        with pytest.raises(LocalProtocolError):
            self.ends[side].send(message, lane=data.draw(lanes_of(side, message)))
        assert self.ends[side].local_state is before

    @rule(data=st.data(), side=st.sampled_from(Side))
    def deliver(self, data: st.DataObject, side: Side) -> None:
        """Give a side some of what is on its way, and read all events."""
        pipe, end = self.pipes[side], self.ends[side]
        if not pipe:
            return
        if self.encoding is Encoding.JSON:
            end.receive_text(pipe.popleft().decode())
        else:
            joined = b"".join(pipe)
            pipe.clear()
            cut = data.draw(st.integers(1, len(joined)))
            if cut < len(joined):
                pipe.append(joined[cut:])
            end.receive_data(joined[:cut])
        while (event := end.next_event()) is not NEED_DATA:
            assert isinstance(event, Frame), "nothing legal is refused"
            self.received[side].append(event)

    @invariant()
    def what_arrived_is_what_was_said(self) -> None:
        for side in Side:
            arrived = self.received[side]
            assert arrived == self.sent[other(side)][: len(arrived)]

    @invariant()
    def nothing_is_lost_once_everything_is_delivered(self) -> None:
        for side in Side:
            if not self.pipes[side]:
                assert len(self.received[side]) == len(self.sent[other(side)])
                assert self.ends[side].peer_state is self.ends[other(side)].local_state
                assert not self.ends[side].mid_frame

    @invariant()
    def buffers_are_bounded(self) -> None:
        assert self.ends[Side.SERVER].buffered_bytes < HEADER_BYTES + MAX_CLIENT_BODY_BYTES
        assert self.ends[Side.CLIENT].buffered_bytes < MAX_FRAME_BYTES


LinkPair.TestCase.settings = examples(25, steps=25)
TestLinkPair: Any = LinkPair.TestCase


def test_the_handshake_goes_through_all_states() -> None:
    """The machine's rules in the order of an ordinary life, so that they surely are all of use."""
    ends = {side: Connection(side) for side in Side}
    for step in SESSION:
        wire = b"".join(ends[step.side].send(each.message, each.room, each.sequence, each.lane) for each in step.frames)
        ends[other(step.side)].receive_data(wire)
        for each in step.frames:
            event = ends[other(step.side)].next_event()
            assert event == Frame(opcode_of(each.message), each.lane, each.room, each.sequence, each.message)
        assert ends[other(step.side)].next_event() is NEED_DATA
    assert ends[Side.SERVER].peer_state is LinkState.CLOSED
