"""What a room sends to its members: events of its stream, ticks, and counters of activities.

Each is encoded once for every wire variant and given to the fan-out; events of one slice of ledger results leave in one
content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from broker.core.commerce.activity import RoomEvent
from broker.core.commerce.room_activities import ActivityKey
from broker.core.rooms.audience import selector
from broker.core.rooms.effects import TickOut
from broker.core.rooms.masking import NameMask
from broker.core.rooms.traces import Publication, RoomTraces
from broker.ledger import ResultBatch
from broker.rooms.encoding import TIERS, Content, packed_once, prepare, prepare_addressed, prepare_for_viewers
from broker.rooms.fanout import FanOut, Outbox
from broker.rooms.members import Member, Members, PostRef
from protocol.activities import BY_EVENT_NAME, Via, activity_payload
from protocol.activities.audiences import Audience
from protocol.codes import Lane, MessageType
from protocol.messages import Event, Tick
from protocol.payloads import ActivityPayload

__all__ = ["RoomPublisher"]

MAX_STAFF = 100
"""Members of staff who get what is for staff alone."""
MAX_JOINED_EVENTS = 32
"""Events of one commit in one content."""


class RoomPublisher:
    """Publishes to the members of one room.

    ``tag_bits``: bits of tags of the room; ``event_id``: id of an offset for streams of events; ``on_crash``: called
    while an exception of a deferred publication is being handled; ``traces``: posts that are followed; ``mask``: of the
    room, None = it masks no name.
    """

    def __init__(
        self,
        number: int,
        members: Members,
        fanout: FanOut,
        results: ResultBatch,
        *,
        tag_bits: Callable[[Sequence[str]], int],
        event_id: Callable[[int], str],
        unix_ms: Callable[[], int],
        on_crash: Callable[[], None],
        traces: RoomTraces[PostRef],
        clock: Callable[[], float],
        mask: NameMask | None = None,
    ) -> None:
        self.staff: dict[Member, None] = {}
        """Members whose role is that of staff."""
        self._number = number
        self._members = members
        self._fanout = fanout
        self._dictionaries = fanout.dictionaries.data
        self._results = results
        self._tag_bits = tag_bits
        self._event_id = event_id
        self._unix_ms = unix_ms
        self._on_crash = on_crash
        self._mask = (lambda message: message) if mask is None else mask.message
        self._outbox = Outbox(members)
        self._traces = traces
        self._clock = clock
        self._traced: list[Publication] = []
        """Of the events below, those with traced posts."""
        self._events: list[Content] = []
        """Events of one slice of ledger results, until the slice is delivered."""
        self._counters_sent = 0
        self._counter_keys: dict[ActivityKey, int] = {}
        """Numbers of activities with counters, from 1: in a queue the newest counters of each replace older ones."""

    def __len__(self) -> int:
        """Return how many contents the fan-out has still to write."""
        return len(self._outbox)

    def publish(self, content: Content, audience: Audience | None = None) -> None:
        """Send an event to every member, or to those of ``audience`` (now): with the others of a slice of results."""
        if audience is not None:
            self.flush()
            variants = self._members.variants()
            part = selector(audience, self._tag_bits)
            if variants:
                prepared = prepare_addressed(
                    variants, content, part, self._number, self._event_id, self._mask, self._dictionaries
                )
                self._fanout.submit(self._outbox, prepared, None, self._trace(content.sequence))
            return
        self._events.append(content)
        self._traced += self._trace(content.sequence)
        is_deferred = len(self._events) > 1 or self._results.defer(self._flush_deferred)
        if not is_deferred or len(self._events) == MAX_JOINED_EVENTS:
            self.flush()

    def _trace(self, offset: int) -> Sequence[Publication]:
        return self._traces.published_event(offset, self._clock(), len(self._members))

    def _flush_deferred(self) -> None:
        """Publish at the end of a slice of results; a failure ends this room, not the ledger or another room."""
        try:
            self.flush()
        except Exception:
            self._on_crash()

    def flush(self) -> None:
        """Send the events that wait for the end of a slice of results."""
        events, self._events = self._events, []
        traced, self._traced = self._traced, []
        if events:
            self._broadcast([events] * len(TIERS), None, traced)

    def push_counter(self, key: ActivityKey, counter: RoomEvent) -> None:
        """Send the counters of an activity to every member, or to staff; the newest replaces older ones."""
        row = BY_EVENT_NAME.get(counter.name)
        content = self._counter(key, counter)
        if row is not None and row.via is Via.HOST_COUNTER:
            self._send_to_staff(content)
        else:
            self._broadcast([[content]] * len(TIERS))

    def send_tick(self, out: TickOut, on_done: Callable[[float], None] | None) -> bool:
        """Send what a tick says; return whether ``on_done`` will be called with its cost in seconds."""
        extra = [] if out.state is None else [Content(out.state, Lane.AMBIENT, out.state_number)]
        extra += [self._counter(*counter) for counter in out.counters]
        by_tier: list[list[Content]] = []
        for tick in out.ticks:
            same = next((made for made in by_tier if made[0].message is tick), None)
            by_tier.append(same or [Content(tick, Lane.CHAT, out.number, len(tick.entries)), *extra])
        if not out.ticks:
            by_tier = [list(extra)] * len(TIERS)
        traced: Sequence[Publication] = ()
        if out.ticks:
            traced = self._traces.published_tick(out.number, out.ticks[0].entries, self._clock(), len(self._members))
        return self._broadcast(by_tier, on_done, traced, to_staff=not out.is_delayed) and on_done is not None

    def show_to_staff(self, tick: Tick, number: int) -> None:
        """Send a tick to every member of staff, before the others."""
        self._send_to(list(self.staff), Content(tick, Lane.CHAT, number, len(tick.entries)))

    def repeat(self, by_tier: Sequence[Sequence[Content]], to_staff: bool) -> None:
        """Send what the owner of the room, another node, has published to all of its members."""
        self._broadcast(by_tier, to_staff=to_staff)

    def _counter(self, key: ActivityKey, counter: RoomEvent) -> Content:
        payload = ActivityPayload(*activity_payload(counter.name, key[1], counter.data))
        event = Event(MessageType.ACTIVITY_COUNTER, self._unix_ms(), "", "", payload)
        self._counters_sent += 1
        number = self._counter_keys.setdefault(key, len(self._counter_keys) + 1)
        return Content(event, Lane.AMBIENT, self._counters_sent, part_key=number)

    def show(self, tick: Tick, number: int, members: Iterable[Member]) -> None:
        """Send a tick to these members alone."""
        self._send_to(list(members), Content(tick, Lane.CHAT, number, len(tick.entries)))

    def push_own_counter(self, key: ActivityKey, counter: RoomEvent, members: Iterable[Member]) -> None:
        """Send counters to these members alone; the newest replaces older ones."""
        self._send_to(list(members), self._counter(key, counter))

    def _send_to_staff(self, content: Content) -> None:
        """Send something to `MAX_STAFF` members of staff."""
        self._send_to(list(islice(self.staff, MAX_STAFF)), content)

    def _send_to(self, members: Sequence[Member], content: Content) -> None:
        """Send something to a few members, one by one."""
        variants = {member.variant for member in members}
        by_tier = [[content]] * len(TIERS)
        prepared = prepare(
            variants, by_tier, self._number, mask=self._mask, dictionaries=self._dictionaries, receivers=len(members)
        )
        for member in members:
            bundle = prepared.bundles.get(member.variant)
            if bundle is not None and member.index >= 0:
                member.session.transport.write_parts(bundle.parts)

    def _broadcast(
        self,
        by_tier: Sequence[Sequence[Content]],
        on_done: Callable[[float], None] | None = None,
        traced: Sequence[Publication] = (),
        *,
        to_staff: bool = True,
    ) -> bool:
        mirror = self._members.mirror
        if mirror is not None:
            by_tier = packed_once(by_tier)
            mirror.publish(by_tier, to_staff)
        variants = self._members.variants()
        if not variants:
            return False
        number, mask, dictionaries, receivers = self._number, self._mask, self._dictionaries, len(self._members)
        if to_staff:
            prepared = prepare(variants, by_tier, number, self._event_id, mask, dictionaries, receivers)
        else:
            prepared = prepare_for_viewers(variants, by_tier, number, mask, dictionaries, receivers)
        self._fanout.submit(self._outbox, prepared, on_done, traced)
        return True
