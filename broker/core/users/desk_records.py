"""Conversations and agents of a service desk: what is kept of each, and the rules that need no other one.

Pure. Times are Unix milliseconds. A record is the whole state of its conversation: a desk that is given the last record
of each conversation is the desk that wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntFlag
from typing import NamedTuple

from protocol.activities.desk import AgentState, DeskState

__all__ = [
    "AGEING_MS", "AgentState", "DeskAgent", "DeskContext", "DeskConversation", "DeskState", "QueuedItem", "SlaAlarm",
    "choose_agent", "queue_level",
]  # fmt: skip

AGEING_MS = 60_000
"""A conversation that waits rises by one priority in this time, so that none waits for ever behind urgent ones."""


class SlaAlarm(IntFlag):
    """Times that a conversation has exceeded; each is reported once."""

    NONE = 0
    FIRST_RESPONSE = 1
    RESOLUTION = 2


class DeskContext(NamedTuple):
    """What a conversation is about: ids of the platform, None = not given. ``verified``: by the platform, and not only
    by the customer."""

    order: str | None = None
    product: str | None = None
    live_room: str | None = None
    verified: bool = False


class DeskConversation(NamedTuple):
    """One conversation.

    ``agent``: the bot or human who holds it, "" = none; ``epoch``: rises with each change of the holder, and an answer
    with another one is refused; ``seq``: its place, given when it first comes into the queue, at ``queued_at_ms``;
    ``held_at_ms``: since when it is in this state. ``asked_at_ms``: the oldest message of the customer without an
    answer, 0 = the customer is awaited; ``waited_ms``: office hours that the customer has waited before that one;
    ``first_asked_at_ms``, ``human_at_ms``: the customer's first message, and the first one of a human, since it was
    started or opened again. ``assigned_seq``: the number of its last assignment; ``last_agent``: the human who held it
    last; ``sticky``: the one who is preferred for it, until ``sticky_until_ms``; ``rating``: 1 to 5, 0 = none.
    ``name``: what the customer is called; ``revision``: rises with each record.
    """

    id: str
    customer: str
    state: DeskState
    seq: int
    skills: tuple[str, ...] = ()
    priority: int = 0
    agent: str = ""
    epoch: int = 1
    started_at_ms: int = 0
    queued_at_ms: int = 0
    held_at_ms: int = 0
    asked_at_ms: int = 0
    waited_ms: int = 0
    first_asked_at_ms: int = 0
    human_at_ms: int = 0
    resolved_at_ms: int = 0
    last_agent: str = ""
    sticky: str = ""
    sticky_until_ms: int = 0
    assigned_seq: int = 0
    transfers: int = 0
    alarms: SlaAlarm = SlaAlarm.NONE
    rating: int = 0
    tags: tuple[str, ...] = ()
    topic: str = ""
    name: str = ""
    context: DeskContext = DeskContext()
    revision: int = 0

    def without_agent(self, user: str) -> DeskConversation:
        """Return it without a user among those who held it before, or are preferred."""
        last_agent, sticky = ("" if each == user else each for each in (self.last_agent, self.sticky))
        return self._replace(last_agent=last_agent, sticky=sticky)


class DeskAgent:
    """A human of the desk. ``held``: ids of the conversations assigned; ``lost_at_ms``: since when it has no link, None
    = it has one."""

    __slots__ = ("assigned_seq", "capacity", "held", "id", "lost_at_ms", "skills", "state")

    def __init__(self, id: str, now_ms: int) -> None:
        self.id = id
        self.skills: frozenset[str] = frozenset()
        self.capacity = 0
        self.assigned_seq = 0
        self.state = AgentState.OFFLINE
        self.lost_at_ms: int | None = now_ms
        self.held: dict[str, None] = {}

    @property
    def load(self) -> int:
        """How many conversations are assigned to it."""
        return len(self.held)

    @property
    def is_available(self) -> bool:
        """It gets conversations where it has room: it wants them, and has a link."""
        return self.state is AgentState.ONLINE and self.lost_at_ms is None


class QueuedItem(NamedTuple):
    """What decides the order of the queue."""

    priority: int
    queued_at_ms: int
    seq: int


def queue_level(item: QueuedItem, now_ms: int) -> tuple[int, int]:
    """Return the sort key of what waits: the smallest is the next one."""
    return -(item.priority + max(0, now_ms - item.queued_at_ms) // AGEING_MS), item.seq


def choose_agent(agents: Iterable[DeskAgent], skills: Iterable[str], sticky: str = "") -> DeskAgent | None:
    """Return the agent for a conversation that needs these skills; None = it stays in the queue.

    Of those who are available, have room and all the skills: ``sticky`` if it is among them, else the one with the
    smallest share of its capacity in use, then the one whose last assignment is the longest ago, then the smallest id.
    """
    needed, best, best_load = frozenset(skills), None, 0
    # One pass without calls: it runs once for each agent of a desk with every assignment.
    for agent in agents:
        load, capacity = len(agent.held), agent.capacity
        if load >= capacity or agent.lost_at_ms is not None or agent.state is not AgentState.ONLINE:
            continue
        if not needed <= agent.skills:
            continue
        if agent.id == sticky:
            return agent
        if best is not None:
            # Shares are compared by cross multiplication: no division, no float. Texts order as their UTF-8 bytes do.
            share, best_share = load * best.capacity, best_load * capacity
            if share > best_share:
                continue
            if share == best_share and (agent.assigned_seq, agent.id) > (best.assigned_seq, best.id):
                continue
        best, best_load = agent, load
    return best
