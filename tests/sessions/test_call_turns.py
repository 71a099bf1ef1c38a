"""CALLs share the loop: slices are short, links take turns, the frames of a link stay in order, and chat goes first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.net.poller import Pollable, Poller
from broker.sessions import call_turns
from broker.sessions.call_turns import QUEUE_SLICE_S, READ_SLICE_S, SHARE, CallTurns
from protocol.codes import MessageType, Opcode
from protocol.messages import Call, Ping, Post
from protocol.operations import BY_NAME
from protocol.payloads import DanmakuPayload
from tests.support.broker import RawLink, joined_link, running_broker, sessions_of
from tests.support.poller import Clock
from tests.support.until import until

GET = Call(BY_NAME["rooms.get"].number, "", (None,))


class ScriptedLink:
    """Link whose CALLs cost given times; it behaves as a session does. ``queue``: the links held, as they should be."""

    def __init__(self, costs: list[float], turns: CallTurns, clock: Clock, queue: deque[ScriptedLink]) -> None:
        self.costs = deque(enumerate(costs))
        self.is_open = True
        self.done: list[int] = []
        self._held: tuple[int, float] | None = None
        self._turns = turns
        self._clock = clock
        self._queue = queue

    @property
    def transport(self) -> Pollable:
        raise AssertionError("no CALL of this test fails")

    def read(self) -> None:
        """Handle what has arrived, until the link is held."""
        while self.costs and self._held is None:
            call = self.costs.popleft()
            if self._turns.admits(self):
                self._run(call)
            else:
                self._held = call

    def hold(self, until: float) -> None:
        assert until == inf
        self._queue.append(self)

    def go_on(self) -> None:
        while not self._queue[0].is_open:
            self._queue.popleft()
        assert self._queue.popleft() is self, "links take turns"
        assert self._held is not None
        held, self._held = self._held, None
        before = len(self.done)
        self._run(held)
        self.read()
        assert len(self.done) - before <= SHARE

    def _run(self, call: tuple[int, float]) -> None:
        number, cost = call
        self.done.append(number)
        self._clock.now += cost


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def poller(clock: Clock) -> Iterator[Poller]:
    made = Poller(write_timeout_s=10.0, clock=clock)
    yield made
    made.close()


costs = st.lists(st.sampled_from([0.00001, 0.0001, 0.0007, 0.003]), min_size=1, max_size=60)


@given(scripts=st.lists(costs, min_size=1, max_size=12), ended=st.sets(st.integers(0, 11)))
def test_every_call_is_handled_once_and_in_order_in_short_slices_and_links_take_turns(
    poller: Poller, clock: Clock, scripts: list[list[float]], ended: set[int]
) -> None:
    turns = CallTurns(poller, clock)
    queue: deque[ScriptedLink] = deque()
    links = [ScriptedLink(script, turns, clock, queue) for script in scripts]
    longest = max(max(script) for script in scripts) + 1e-9
    begun = clock.now
    for link in links:
        link.read()
    assert clock.now - begun <= READ_SLICE_S + longest
    cut = [link for number, link in enumerate(links) if number in ended and link in queue]
    for link in cut:
        link.is_open = False
    before = {id(link): list(link.done) for link in cut}
    while turns.held:
        begun = clock.now
        turns.serve()
        assert clock.now - begun <= QUEUE_SLICE_S + longest
    for link, script in zip(links, scripts, strict=True):
        assert link.done == before.get(id(link), list(range(len(script))))


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a turn of the loop have time for one CALL."""
    monkeypatch.setattr(call_turns, "READ_SLICE_S", -inf)
    monkeypatch.setattr(call_turns, "QUEUE_SLICE_S", -inf)


async def answers_of(link: RawLink) -> list[int]:
    """Return the sequences of the answers to CALLs and to PING, up to that of a PING or the end of the link."""
    answered = []
    while (frame := await link.next_frame()) is not None:
        if frame.opcode in (Opcode.RESULT, Opcode.ERROR, Opcode.PONG):
            answered.append(frame.sequence)
        if frame.opcode is Opcode.PONG:
            break
    return answered


@pytest.mark.integration
async def test_the_frames_of_a_held_link_stay_in_order_and_chat_of_others_goes_first(
    one_at_a_time: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts_seen: list[int] = []
    serve = CallTurns.serve

    def recorded(turns: CallTurns) -> None:
        posts_seen.append(broker.context.posts)
        serve(turns)

    monkeypatch.setattr(CallTurns, "serve", recorded)
    async with (
        running_broker(link={"errors_per_minute": 1000}) as broker,
        joined_link(broker, "dev:ann") as (ann, ann_room),
        joined_link(broker, "dev:bob") as (bob, bob_room),
    ):
        await ann.send(*((GET, ann_room, number) for number in range(100, 300)), (Ping(1), 0, 300))
        await bob.send((Post(MessageType.DANMAKU, "m", DanmakuPayload("hi")), bob_room, 1))
        assert await answers_of(ann) == list(range(100, 301))
        assert len(posts_seen) == 199
        assert posts_seen[-1] == 1, "the danmaku was handled before the last call"
        assert broker.context.call_turns.held == 0


@pytest.mark.integration
async def test_a_held_link_may_end_and_a_stopping_broker_answers_the_others(one_at_a_time: None) -> None:
    async with running_broker(link={"drain_s": 0}) as broker, joined_link(broker, "dev:ann") as (ann, ann_room):
        turns = broker.context.call_turns
        async with joined_link(broker, "dev:bob") as (bob, bob_room):
            await bob.send(*((GET, bob_room, number) for number in range(30)))
            await until(lambda: turns.held == 1)
        await ann.send(*((GET, ann_room, number) for number in range(30)))
        await until(lambda: turns.held > 0)
        await broker.drain()
        assert await answers_of(ann) == list(range(30))


@pytest.mark.integration
async def test_a_held_link_that_is_not_read_is_not_silent(one_at_a_time: None, monkeypatch: pytest.MonkeyPatch) -> None:
    serve = CallTurns.serve
    monkeypatch.setattr(CallTurns, "serve", lambda turns: None)
    async with running_broker() as broker, joined_link(broker, "dev:ann") as (ann, ann_room):
        (session,) = sessions_of(broker)
        cut_s = broker.config.link.heartbeat_cut_s
        await ann.send((GET, ann_room, 1), (GET, ann_room, 2), (Ping(1), 0, 3))
        await until(lambda: session.is_held)
        heard_at = session.heard_at
        session.on_deadline(heard_at + 2 * cut_s)
        assert session.is_open, "held, so that nothing it sends is read"
        monkeypatch.setattr(broker.context.poller, "refresh_clock", lambda: broker.context.poller.now)
        broker.context.poller.now = heard_at + 2 * cut_s
        while session.is_held:
            serve(broker.context.call_turns)
        session.on_deadline(heard_at + 2.5 * cut_s)
        assert session.is_open, "it had no time to be read since"
        session.on_deadline(heard_at + 3 * cut_s)
        assert not session.is_open
        assert await answers_of(ann) == [1, 2, 3]
