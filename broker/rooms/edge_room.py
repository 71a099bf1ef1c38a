"""A room that another node owns, with the viewers of this one.

The owner decides, numbers and publishes; here its contents are encoded once for every wire variant and written to the
members of this node. Posts and calls go to the owner over relayed links (`broker.sessions.relays`). Events come in
order and once: those that the channel has lost are asked for, and what comes meanwhile waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from broker.core.commerce.audiences import STAFF_BIT
from broker.core.rooms.event_ids import EventIds
from broker.core.rooms.masking import NameMask
from broker.core.rooms.traces import RoomTraces
from broker.ledger import ResultBatch
from broker.rooms.encoding import MASKED, TIERS, Content
from broker.rooms.fanout import FanOut
from broker.rooms.measures import RoomMeasures
from broker.rooms.members import Member, Members
from broker.rooms.mirror import LAST_OF_STREAM
from broker.rooms.node_messages import EventsFound, RoomOutput, read_message
from broker.rooms.publishing import RoomPublisher
from protocol.codes import Lane, LeaveReason, Opcode, Role, RoomPhase
from protocol.messages import Event, Post, RoomPulse, State
from protocol.operations import STAFF

__all__ = ["EdgeRoom"]

log = structlog.get_logger("roomcast.edge_room")

MAX_WAITING = 1000
"""Messages of the owner that wait for missing events; beyond, the members have to resume."""

MAX_RECENT = 32
"""Events that are kept for members whose admission comes after them."""


def _is_of_stream(content: Content) -> bool:
    """Return whether a content is an event of the room's stream."""
    return content.lane <= LAST_OF_STREAM and type(content.message) is Event


class EdgeCounters:
    """Counters of the room as its owner has published them last."""

    def __init__(self) -> None:
        self.last: State | None = None
        self.number = 0

    def pulse(self, number: int) -> RoomPulse:
        """Return what a PONG says of the room with this number."""
        return (
            RoomPulse(number, 0, 0) if self.last is None else RoomPulse(number, self.last.online, self.last.interval_ms)
        )

    def state_for_one(self, at_ms: int) -> tuple[State, int]:
        """Return the state for a viewer that has missed some."""
        last = self.last or State(at_ms, RoomPhase.LIVE, 0, 0, 0, 0, 0, 0, 0)
        return last, self.number


class EdgeState:
    """What is known here of the state of the room."""

    def __init__(self) -> None:
        self.epoch = 0
        self.counters = EdgeCounters()


class EdgeRoom:
    """One room of another node. ``ask``: asks the owner for the events after the room's `offset`;
    ``forward``: takes a post of a member, ``left`` that it has left, ``missed`` how many danmaku did not come to it."""

    def __init__(
        self,
        name: str,
        number: int,
        fanout: FanOut,
        results: ResultBatch,
        *,
        clock: Callable[[], float],
        unix_ms: Callable[[], int],
        event_ids: EventIds,
        measures: RoomMeasures,
        ask: Callable[[EdgeRoom], None],
        forward: Callable[[EdgeRoom, Any, int, Post], None],
        left: Callable[[EdgeRoom, Any], None],
        missed: Callable[[Any, int], None] = lambda member, chat: None,
        mask: NameMask | None = None,
    ) -> None:
        self.name = name
        """Qualified by its tenant."""
        self.number = number
        """In frames of this node."""
        self.owner = ""
        """Node that owns it."""
        self.owner_number = 0
        """Its number in frames of the owner."""
        self.state = EdgeState()
        self.members = Members(lambda member: STAFF_BIT if member.role in STAFF else 0)
        self.offset = -1
        """Of the last event that was written to the members; -1 = not known yet."""
        self.is_subscribed = False
        """Whether the owner's messages come."""
        self.when_subscribed: list[Callable[[], None]] = []
        """Called once they do."""
        self._mask = mask
        self._event_ids = event_ids
        self._ask = ask
        self._forward = forward
        self._left = left
        self._missed = missed
        self._unix_ms = unix_ms
        self._fence = 0
        self._number = 0
        self._chat: tuple[int, ...] = ()
        """Danmaku of the owner up to its last message that came, by tier."""
        self._heard_at_ms = 0
        """When that came."""
        self._recent: deque[Content] = deque(maxlen=MAX_RECENT)
        """The last events that were written to the members."""
        self._waiting: list[RoomOutput] | None = None
        """Messages that came while events are missing; None: none are."""
        self._publisher = RoomPublisher(
            number, self.members, fanout, results, tag_bits=lambda tags: 0, event_id=self.event_id, unix_ms=unix_ms,
            on_crash=lambda: log.exception("a room of another node cannot be written", room=name),
            traces=RoomTraces(measures.traces), clock=clock, mask=mask,
        )  # fmt: skip

    # ---- members

    def enter(self, member: Member, joined_at_ms: int) -> None:
        """Add a member that the owner has admitted."""
        is_masked = self._mask is not None and member.role is Role.GUEST
        plain = member.variant % MASKED
        member.variant = plain + MASKED if is_masked else plain
        self.members.add(member)
        member.joined_at_ms = joined_at_ms

    def since(self, member: Member, offset: int) -> Sequence[Content] | None:
        """Return the events after an offset that were written here, as a member gets them; None: not all are known."""
        found = [content for content in self._recent if content.sequence > offset]
        if self.offset - offset > len(found):
            return None
        if self._mask is None or member.variant < MASKED:
            return found
        return [content._replace(message=self._mask.message(content.message)) for content in found]

    def leave(self, member: Member, now: float) -> None:
        """Remove a member that leaves."""
        self.members.remove(member)
        self._left(self, member)

    def remove(self, member: Member, reason: LeaveReason, message: str) -> None:
        """Remove a member against its will; its session is informed."""
        self.members.remove(member)
        member.session.on_left(self, reason, message)

    def post(self, member: Member, sequence: int, post: Post, now: float) -> None:
        """Give a post to the owner."""
        self._forward(self, member, sequence, post)

    def change_rights(
        self, member: Member, name: str, role: Role, may_post: frozenset[int], tags: tuple[str, ...], now: float
    ) -> None:
        """Give a member the name and the rights of a new token."""
        member.name, member.role, member.may_post, member.tags = name, role, may_post, tags

    def event_id(self, offset: int) -> str:
        """Return the id of an event for streams of events."""
        return self._event_ids.of(self.name, self.state.epoch, offset)

    # ---- what the owner publishes

    def follow(self, owner: str, owner_number: int, epoch: int, offset: int) -> None:
        """Take where the room's stream stands at its owner now, once the channel is subscribed to."""
        self.owner, self.owner_number = owner, owner_number
        if self.offset < 0 or epoch != self.state.epoch:
            self.offset, self._waiting = offset, None
            self._recent.clear()
        self.state.epoch = epoch
        if self.offset < offset and self._waiting is None:
            self._waiting = []
            self._ask(self)

    def take(self, output: RoomOutput) -> None:
        """Take what the owner has published."""
        if output.fence < self._fence or self.offset < 0:
            return
        if output.fence > self._fence:
            self._fence, self._number = output.fence, output.number - 1
        if output.number <= self._number:
            return
        if output.number > self._number + 1:
            self._count_missed(output)
        self._number, self._chat, self._heard_at_ms = output.number, output.chat, self._unix_ms()
        if self._waiting is None:
            if not self._apply(output):
                self._miss([output])
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(output)
        else:
            self.give_up("too many events were missing")

    def _count_missed(self, output: RoomOutput) -> None:
        """Notify the members of the danmaku that were in messages of the owner that did not come."""
        missed = [
            now - before - sum(content.weight for content in contents)
            for now, before, contents in zip(output.chat, self._chat, output.by_tier, strict=True)
        ]
        for member in self.members.local():
            chat = missed[member.variant % MASKED % len(TIERS)]
            if chat > 0 and member.joined_at_ms <= self._heard_at_ms:
                self._missed(member, chat)

    def _apply(self, output: RoomOutput) -> bool:
        """Write contents to the members, without events that were written before; False: others before are missing."""
        offset = self.offset
        known: dict[int, tuple[Content, ...]] = {}
        for contents in output.by_tier:
            if id(contents) in known:
                continue
            kept: list[Content] = []
            at = offset
            for content in contents:
                if _is_of_stream(content):
                    if content.sequence <= at:
                        continue
                    if content.sequence != at + 1:
                        return False
                    at += 1
                elif type(content.message) is State:
                    self.state.counters.last, self.state.counters.number = content.message, content.sequence
                kept.append(content)
            known[id(contents)] = tuple(kept)
            self.offset = max(self.offset, at)
        if output.offset > self.offset:
            self.offset = offset
            return False
        by_tier = [known[id(contents)] for contents in output.by_tier]
        if any(by_tier):
            self._recent.extend(each for each in by_tier[0] if _is_of_stream(each))
            self._publisher.repeat(by_tier, output.to_staff)
        return True

    def _miss(self, outputs: list[RoomOutput]) -> None:
        self._waiting = outputs
        self._ask(self)

    def found(self, answer: EventsFound) -> None:
        """Take the missing events, and what has come meanwhile."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        if answer.events is None or answer.epoch != self.state.epoch:
            self.give_up("events that the owner has no longer were missing")
            return
        events = [
            Content(read_message(Opcode.EVENT, body), Lane(lane), offset)
            for lane, offset, body in answer.events
            if offset > self.offset
        ]
        if events:
            self.offset = events[-1].sequence
            self._recent.extend(events)
            self._publisher.repeat([events] * len(TIERS), True)
        for index, output in enumerate(waiting):
            if not self._apply(output):  # events are missing again
                self._miss(waiting[index:])
                break

    def ask_again(self) -> None:
        """Ask once more for the events that are missing, if some are: the answer may be lost."""
        if self._waiting is not None:
            self._ask(self)

    def give_up(self, why: str) -> None:
        """Remove all members: they resume by themselves, and learn what they have missed."""
        self.offset, self._waiting = -1, None
        for member in self.members.local():
            self.remove(member, LeaveReason.ROOM_CRASHED, why)

    def members_here(self) -> Sequence[Member]:
        """Return the members of this moment."""
        return self.members.local()
