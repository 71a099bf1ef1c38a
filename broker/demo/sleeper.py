"""The viewer who stalls: stops reading, falls behind, is cut with a code that says "resume", and comes back whole.

It is a client like all the others, on a socket that nobody reads for a while. What the broker does about it is watched
from the broker's side, to be shown; what it got in the end is counted on this side.
"""

from __future__ import annotations

from random import Random
from typing import Any

import trio

from broker.demo.picture import Stalled
from broker.demo.users import Member, Valve
from broker.server import Broker
from protocol.clients import Event, Rejoined, RoomEvent
from protocol.codes import Tier

__all__ = ["Sleeper"]

WATCH_S = 0.02


class Sleeper:
    """One viewer that can be told to stall. ``state`` is what the picture shows."""

    def __init__(self, url: str, broker: Broker, rng: Random) -> None:
        self.state = Stalled()
        self._valve = Valve()
        self.member = Member(url, "口袋里的手机", Tier.FULL, self._hear, rng, self._valve)
        self._broker = broker
        self._target: int | None = None

    async def stall(self, absent_s: float) -> None:
        """Stop reading until the broker has cut the link, and ``absent_s`` longer; `wake` ends it before."""
        self._valve.close()
        self.state = Stalled("has stopped reading")
        port = self._valve.local_port
        while (link := self._link_from(port)) is not None:
            if self._valve.is_open:
                self.state = Stalled("reads on, before it was cut", keyframe=self.state.keyframe)
                return
            queue = link.queue
            if queue is not None:
                word = "keyframe mode: chat is dropped" if queue.keyframe else "behind: frames are queued"
                self.state = Stalled(word, queue.frames, queue.nbytes, self.state.keyframe or queue.keyframe)
            await trio.sleep(WATCH_S)
        self.state = Stalled("cut: too slow (4001), may resume", keyframe=self.state.keyframe, was_cut=True)
        await trio.sleep(absent_s)
        self._valve.open()

    def wake(self) -> None:
        """Let it read on."""
        self._valve.open()

    def is_home(self, last_offset: int) -> bool:
        """Whether it has heard everything up to ``last_offset``, after a cut by way of a resume."""
        return (self.state.is_back or not self.state.was_cut) and self.member.offset >= last_offset

    def _link_from(self, port: int) -> Any:
        """The broker's transport of the link that comes from ``port`` on this machine, None if there is none.

        Any: looked at for the picture only.
        """
        for session in self._broker.context.sessions:
            transport = session.transport
            try:
                if not transport.state and transport.sock.getpeername()[1] == port:
                    return transport
            except OSError:
                continue
        return None

    def _hear(self, event: RoomEvent) -> None:
        match event:
            case Rejoined(snapshot, recovered):
                self._target = snapshot.offset
                self.state = self.state._replace(state="is back", is_back=True, recovered=recovered)
            case Event(offset=offset) if self._target is not None and offset <= self._target:
                events = self.state.events + 1
                self.state = self.state._replace(state="is back, has caught up", events=events)
            case _:
                pass
