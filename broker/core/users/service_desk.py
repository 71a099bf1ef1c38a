"""The service desk of one tenant: which bot or human holds a conversation of a customer, and what waits in the queue.

Pure. A decision returns the record of the conversation as it would be, and changes nothing; `ServiceDesk.apply` takes
over a record that is durable. There is one decision under way at a time: the caller applies its record, or drops it,
before it asks for the next one. Conversations, queue and loads are made from the records.

Whoever holds a conversation holds it under an epoch. Each change of the holder raises it, and an answer with an older
epoch is `Stale`: of two who believe that they hold it one answers. What is taken from an agent keeps its place.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from broker.core.users.conversations import TooMany
from broker.core.users.desk_hours import OfficeHours
from broker.core.users.desk_records import (
    AgentState,
    DeskAgent,
    DeskContext,
    DeskConversation,
    DeskState,
    QueuedItem,
    SlaAlarm,
    choose_agent,
    queue_level,
)

__all__ = ["DeskTimes", "ServiceDesk", "Stale"]

MAX_KEPT = 20_000
"""Conversations of one desk that are not closed; some 1 KB each."""
MAX_OPEN_OF_CUSTOMER = 3
MAX_KEPT_OF_CUSTOMER = 20
"""With those that are resolved."""
MAX_AGENTS = 1000
MAX_TAGS = 16
MAX_RATING = 5


class Stale(Exception):
    """The caller does not hold the conversation, or not under this epoch, or it is in another state."""


class DeskTimes(NamedTuple):
    """Times of a desk, in milliseconds. ``bot_ms``: without an answer of the bot, a conversation goes to the queue;
    ``agent_ms``: without one of the agent; ``lost_ms``: an agent without any link gives back what it holds;
    ``reopen_ms``: what is resolved is opened again by the customer, or closes; ``sticky_ms``: how long its last agent
    is preferred; ``first_response_ms``, ``resolution_ms``: office hours, above which there is an alarm, 0 = none."""

    bot_ms: int = 3_000
    agent_ms: int = 60_000
    lost_ms: int = 30_000
    reopen_ms: int = 86_400_000
    sticky_ms: int = 86_400_000
    first_response_ms: int = 60_000
    resolution_ms: int = 3_600_000


class _Queue:
    """What waits, apart by priority and skills: only the first of each can be the next one.

    Places and times of queueing rise together, so that the first one of a part has its highest level.
    """

    def __init__(self) -> None:
        self._parts: dict[tuple[int, tuple[str, ...]], list[tuple[int, int, str]]] = {}

    def add(self, row: DeskConversation) -> None:
        insort(self._parts.setdefault((row.priority, row.skills), []), (row.seq, row.queued_at_ms, row.id))

    def remove(self, row: DeskConversation) -> None:
        part = self._parts[row.priority, row.skills]
        del part[bisect_left(part, (row.seq, row.queued_at_ms, row.id))]
        if not part:
            del self._parts[row.priority, row.skills]

    def firsts(self, now_ms: int) -> list[str]:
        """Return the first conversation of each part, the next one first."""
        found: list[tuple[tuple[int, int], str]] = []
        for (priority, _), part in self._parts.items():
            seq, queued_at_ms, id = part[0]
            found.append((queue_level(QueuedItem(priority, queued_at_ms, seq), now_ms), id))
        return [id for _, id in sorted(found)]


class ServiceDesk:
    """Conversations and agents of one desk. Users have the ids that the caller gives them, all of one tenant."""

    def __init__(
        self,
        times: DeskTimes | None = None,
        hours: OfficeHours | None = None,
        *,
        max_kept: int = MAX_KEPT,
        max_agents: int = MAX_AGENTS,
    ) -> None:
        self.times = times or DeskTimes()
        self.hours = hours or OfficeHours()
        self.agents: dict[str, DeskAgent] = {}
        self._max_kept = max_kept
        self._max_agents = max_agents
        self._rows: dict[str, DeskConversation] = {}
        self._of_customer: dict[str, dict[str, None]] = {}
        self._queue = _Queue()
        self._next_seq = 1
        self._next_assigned_seq = 1
        self._last_queued_at_ms = 0
        self._of_state: dict[DeskState, set[str]] = {state: set() for state in DeskState}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[DeskConversation]:
        return iter(self._rows.values())

    def find(self, id: str) -> DeskConversation | None:
        """Return a conversation that is not closed."""
        return self._rows.get(id)

    def count(self, state: DeskState) -> int:
        """Return how many kept conversations are in a state."""
        return len(self._of_state[state])

    def queued(self) -> list[DeskConversation]:
        """Return the conversations that wait."""
        return [self._rows[id] for id in self._of_state[DeskState.QUEUED]]

    def of_customer(self, customer: str) -> list[DeskConversation]:
        """Return the conversations of a customer that are not closed."""
        return [self._rows[id] for id in self._of_customer.get(customer, ())]

    def waiting_ms(self, row: DeskConversation, now_ms: int) -> int:
        """Return the office hours that a customer has waited in all: the time of resolution."""
        return row.waited_ms + (self.hours.between(row.asked_at_ms, now_ms) if row.asked_at_ms else 0)

    def first_response_ms(self, row: DeskConversation) -> int | None:
        """Return the office hours from the customer's first message to a human's; None = no human has answered."""
        return self.hours.between(row.first_asked_at_ms, row.human_at_ms) if row.human_at_ms else None

    # ---- records

    def apply(self, row: DeskConversation) -> None:
        """Take over the record of a conversation that is durable. A closed one is forgotten."""
        before = self._rows.pop(row.id, None)
        if before is not None:
            self._leave(before)
        self._next_seq = max(self._next_seq, row.seq + 1)
        self._next_assigned_seq = max(self._next_assigned_seq, row.assigned_seq + 1)
        self._last_queued_at_ms = max(self._last_queued_at_ms, row.queued_at_ms)
        if row.state is DeskState.CLOSED:
            return
        self._rows[row.id] = row
        self._of_state[row.state].add(row.id)
        self._of_customer.setdefault(row.customer, {})[row.id] = None
        if row.state is DeskState.QUEUED:
            self._queue.add(row)
        agent = self.agents.get(row.last_agent)
        if agent is not None:
            agent.assigned_seq = max(agent.assigned_seq, row.assigned_seq)
            if row.state is DeskState.ASSIGNED:
                agent.held[row.id] = None

    def _leave(self, row: DeskConversation) -> None:
        self._of_state[row.state].remove(row.id)
        own = self._of_customer[row.customer]
        del own[row.id]
        if not own:
            del self._of_customer[row.customer]
        if row.state is DeskState.QUEUED:
            self._queue.remove(row)
        if row.state is DeskState.ASSIGNED and row.agent in self.agents:
            self.agents[row.agent].held.pop(row.id, None)

    # ---- agents

    def set_agent(self, id: str, skills: Iterable[str], capacity: int, now_ms: int) -> DeskAgent:
        """Add an agent, who is offline and has no link yet, or change one. What it holds stays. TooMany."""
        agent = self.agents.get(id)
        if agent is None:
            if len(self.agents) >= self._max_agents:
                raise TooMany("agents")
            agent = self.agents[id] = DeskAgent(id, now_ms)
            for row in self:
                if row.last_agent == id:
                    agent.assigned_seq = max(agent.assigned_seq, row.assigned_seq)
                    if row.state is DeskState.ASSIGNED:
                        agent.held[row.id] = None
        agent.skills, agent.capacity = frozenset(skills), capacity
        return agent

    def remove_agent(self, id: str) -> None:
        """Remove an agent. What it holds is due at once, see `due`."""
        self.agents.pop(id, None)

    def set_state(self, id: str, state: AgentState) -> None:
        """Take over what an agent wants; what it holds stays. KeyError: no agent."""
        self.agents[id].state = state

    def set_linked(self, id: str, now_ms: int, *, is_linked: bool) -> None:
        """Take over that an agent has a link, or has none any more. Nothing happens for others."""
        agent = self.agents.get(id)
        if agent is not None and (agent.lost_at_ms is None) is not is_linked:
            agent.lost_at_ms = None if is_linked else now_ms

    # ---- customers

    def start(
        self,
        id: str,
        customer: str,
        now_ms: int,
        *,
        skills: Iterable[str] = (),
        priority: int = 0,
        bot: str = "",
        topic: str = "",
        name: str = "",
        context: DeskContext | None = None,
    ) -> DeskConversation:
        """Start a conversation with a customer's first message; ``bot`` holds it first, where there is one. TooMany."""
        if len(self._rows) >= self._max_kept:
            raise TooMany("conversations of the desk")
        own = self._check_open(customer)
        if len(own) >= MAX_KEPT_OF_CUSTOMER:
            raise TooMany("conversations of the customer")
        last = max(own, key=lambda each: each.resolved_at_ms, default=None)
        sticky, sticky_until_ms = self._wish(last) if last is not None and last.resolved_at_ms else ("", 0)
        row = DeskConversation(
            id, customer, DeskState.BOT, self._next_seq, tuple(sorted(set(skills))), priority, bot,
            started_at_ms=now_ms, held_at_ms=now_ms, asked_at_ms=now_ms, first_asked_at_ms=now_ms,
            sticky=sticky, sticky_until_ms=sticky_until_ms, topic=topic, name=name, context=context or DeskContext(),
        )  # fmt: skip
        return row if bot else self._queued(row, now_ms)

    def ask(self, id: str, now_ms: int, bot: str = "") -> DeskConversation:
        """Record a further message of the customer. TooMany; Stale: a new conversation is to be started.

        What was resolved less than `DeskTimes.reopen_ms` ago is opened again, as it was started: with ``bot``, or in
        the queue, where its last agent is preferred.
        """
        row = self._row(id)
        if row.state is not DeskState.RESOLVED:
            return row if row.asked_at_ms else row._replace(asked_at_ms=now_ms)
        if now_ms - row.resolved_at_ms >= self.times.reopen_ms:
            raise Stale
        self._check_open(row.customer)
        sticky, sticky_until_ms = self._wish(row)
        row = row._replace(
            state=DeskState.BOT, agent=bot, epoch=row.epoch + 1, held_at_ms=now_ms, queued_at_ms=0,
            sticky=sticky, sticky_until_ms=sticky_until_ms,
            asked_at_ms=now_ms, waited_ms=0, first_asked_at_ms=now_ms, human_at_ms=0, alarms=SlaAlarm.NONE, rating=0,
        )  # fmt: skip
        return row if bot else self._queued(row, now_ms)

    def rate(self, id: str, customer: str, rating: int) -> DeskConversation:
        """Record how content the customer is, 1 to 5, once it is resolved. Stale."""
        row = self._row(id)
        if row.state is not DeskState.RESOLVED or row.customer != customer:
            raise Stale
        if not 1 <= rating <= MAX_RATING:
            raise ValueError(f"a rating must be 1 to {MAX_RATING}")
        return row._replace(rating=rating)

    # ---- bots and agents

    def answer(self, id: str, by: str, epoch: int, now_ms: int) -> DeskConversation:
        """Record an answer of the bot or human who holds a conversation. Stale: it must not be sent."""
        row = self._answered(self._held(id, by, epoch), now_ms)
        is_first = row.state is DeskState.ASSIGNED and not row.human_at_ms
        return row._replace(human_at_ms=max(now_ms, row.first_asked_at_ms)) if is_first else row

    def hand_over(
        self, id: str, by: str, epoch: int, now_ms: int, skills: Iterable[str] | None = None, topic: str | None = None
    ) -> DeskConversation:
        """Let the bot or human who holds a conversation give it to the queue, at its place. Stale.

        ``skills``, ``topic``: what it needs, and is about, from now on, None = as before.
        """
        row = self._held(id, by, epoch)
        if skills is not None:
            row = row._replace(skills=tuple(sorted(set(skills))))
        if topic is not None:
            row = row._replace(topic=topic)
        return self._queued(row._replace(transfers=row.transfers + (row.state is DeskState.ASSIGNED)), now_ms)

    def transfer(self, id: str, by: str, epoch: int, to: str, now_ms: int) -> DeskConversation:
        """Let the bot or human who holds a conversation give it to an agent. Stale: also where that has no room."""
        row, agent = self._held(id, by, epoch), self.agents.get(to)
        if agent is None or to == by or not agent.is_available or agent.load >= agent.capacity:
            raise Stale
        return self._assigned(row._replace(transfers=row.transfers + 1), agent, now_ms)

    def take_over(self, id: str, supervisor: str, now_ms: int) -> DeskConversation:
        """Let a supervisor, an agent as well, take a conversation from the queue or its holder. Stale.

        Its capacity does not bound that. Whether a user may is the caller's to check: agents do not pick.
        """
        row, agent = self._row(id), self.agents.get(supervisor)
        if agent is None or not agent.is_available or row.state is DeskState.RESOLVED or row.agent == supervisor:
            raise Stale
        return self._assigned(row._replace(transfers=row.transfers + bool(row.agent)), agent, now_ms)

    def resolve(self, id: str, by: str, epoch: int, now_ms: int) -> DeskConversation:
        """Let the bot or human who holds a conversation end it. Stale."""
        row = self._answered(self._held(id, by, epoch), now_ms)
        return row._replace(state=DeskState.RESOLVED, agent="", epoch=row.epoch + 1, resolved_at_ms=now_ms)

    def tag(self, id: str, tags: Iterable[str]) -> DeskConversation:
        """Set the tags of a conversation. TooMany."""
        found = tuple(sorted(set(tags)))
        if len(found) > MAX_TAGS:
            raise TooMany("tags")
        return self._row(id)._replace(tags=found)

    # ---- assignment, timeouts

    def assign(self, now_ms: int) -> DeskConversation | None:
        """Return the next conversation of the queue with the agent it goes to; None = none can go to any.

        To be called again after each record, as each may have queued one, or made room: also when an agent comes.
        """
        for id in self._queue.firsts(now_ms):
            row = self._rows[id]
            sticky = row.sticky if now_ms < row.sticky_until_ms else ""
            agent = choose_agent(self.agents.values(), row.skills, sticky)
            if agent is not None:
                return self._assigned(row, agent, now_ms)
        return None

    def due(self, now_ms: int, rows: Iterable[DeskConversation] | None = None) -> list[str]:
        """Return the conversations that a time has changed, see `on_time`. ``rows``: of these alone, None = of all.

        O(conversations), for about once a second: those that have not changed are not copied.
        """
        return [row.id for row in (self if rows is None else rows) if self._on_time(row, now_ms) is not row]

    def on_time(self, id: str, now_ms: int) -> DeskConversation | None:
        """Return a conversation as the time has changed it, None = not at all.

        It is given back to the queue, by a bot or an agent without an answer or an agent without a link; closed; or has
        a new alarm.
        """
        row = self._rows.get(id)
        after = None if row is None else self._on_time(row, now_ms)
        return None if after is row else after

    def _on_time(self, row: DeskConversation, now_ms: int) -> DeskConversation:
        row = self._after_timeout(row, now_ms)
        exceeded = self._exceeded(row, now_ms)
        if exceeded is SlaAlarm.NONE or exceeded in row.alarms:
            return row
        return row._replace(alarms=row.alarms | exceeded)

    def _after_timeout(self, row: DeskConversation, now_ms: int) -> DeskConversation:
        times = self.times
        waits_since_ms = max(row.asked_at_ms, row.held_at_ms) if row.asked_at_ms else now_ms
        if row.state is DeskState.BOT:
            return self._queued(row, now_ms) if now_ms - waits_since_ms >= times.bot_ms else row
        if row.state is DeskState.ASSIGNED:
            agent = self.agents.get(row.agent)
            is_lost = agent is None or (
                agent.lost_at_ms is not None and now_ms - max(agent.lost_at_ms, row.held_at_ms) >= times.lost_ms
            )
            return self._queued(row, now_ms) if is_lost or now_ms - waits_since_ms >= times.agent_ms else row
        if row.state is DeskState.RESOLVED and now_ms - row.resolved_at_ms >= times.reopen_ms:
            return row._replace(state=DeskState.CLOSED)
        return row

    def _exceeded(self, row: DeskConversation, now_ms: int) -> SlaAlarm:
        """Return the times that a conversation of the queue or of an agent has exceeded."""
        if row.state not in (DeskState.QUEUED, DeskState.ASSIGNED):
            return SlaAlarm.NONE
        first_ms, resolution_ms = self.times.first_response_ms, self.times.resolution_ms
        found = SlaAlarm.NONE
        if first_ms and not row.human_at_ms:
            since_ms = max(row.first_asked_at_ms, row.queued_at_ms)  # what a bot has answered before is not late
            if self.hours.between(since_ms, now_ms) >= first_ms:
                found |= SlaAlarm.FIRST_RESPONSE
        if resolution_ms and self.waiting_ms(row, now_ms) >= resolution_ms:
            found |= SlaAlarm.RESOLUTION
        return found

    # ---- erasure

    def erase(self, user: str) -> list[DeskConversation]:
        """Forget an agent who is being erased, and return what closes the conversations of a customer who is."""
        self.remove_agent(user)
        for row in [each for each in self if user in (each.last_agent, each.sticky)]:
            self.apply(row.without_agent(user))
        return [row._replace(state=DeskState.CLOSED, agent="") for row in self.of_customer(user)]

    # ---- parts of decisions

    def _check_open(self, customer: str) -> list[DeskConversation]:
        """Return what is kept of a customer. TooMany: it may open no further conversation."""
        own = self.of_customer(customer)
        if sum(each.state is not DeskState.RESOLVED for each in own) >= MAX_OPEN_OF_CUSTOMER:
            raise TooMany("open conversations of the customer")
        return own

    def _wish(self, row: DeskConversation) -> tuple[str, int]:
        """Return the agent who is preferred for what follows on a resolved conversation, and until when."""
        return row.last_agent, row.resolved_at_ms + self.times.sticky_ms

    def _row(self, id: str) -> DeskConversation:
        row = self._rows.get(id)
        if row is None:
            raise Stale
        return row

    def _held(self, id: str, by: str, epoch: int) -> DeskConversation:
        row = self._row(id)
        if not by or row.agent != by or row.epoch != epoch:
            raise Stale
        return row

    def _queued(self, row: DeskConversation, now_ms: int) -> DeskConversation:
        """Return a conversation in the queue: at its old place, where it had one."""
        if not row.queued_at_ms:
            row = row._replace(queued_at_ms=max(now_ms, self._last_queued_at_ms), seq=self._next_seq)
        if row.state is DeskState.ASSIGNED:
            row = row._replace(sticky="")  # who has not answered, or gave it away, is not preferred
        return row._replace(state=DeskState.QUEUED, agent="", epoch=row.epoch + bool(row.agent), held_at_ms=now_ms)

    def _assigned(self, row: DeskConversation, agent: DeskAgent, now_ms: int) -> DeskConversation:
        if not row.queued_at_ms:
            row = row._replace(queued_at_ms=max(now_ms, self._last_queued_at_ms), seq=self._next_seq)
        return row._replace(
            state=DeskState.ASSIGNED, agent=agent.id, epoch=row.epoch + 1, held_at_ms=now_ms, last_agent=agent.id,
            assigned_seq=self._next_assigned_seq,
        )  # fmt: skip

    def _answered(self, row: DeskConversation, now_ms: int) -> DeskConversation:
        return row._replace(waited_ms=self.waiting_ms(row, now_ms), asked_at_ms=0) if row.asked_at_ms else row
