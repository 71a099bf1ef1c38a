"""Time of one assignment of the service desk: the decision, and its record taken over. No sockets, no ledger.

A queue of conversations with different skills waits for agents who all have room. The floor is one pass over the same
agents for the smallest load.
"""

from __future__ import annotations

import time

from bench.micro.result import Result, median
from broker.core.users.desk_records import AgentState, DeskAgent
from broker.core.users.service_desk import ServiceDesk

__all__ = ["desk"]

GOAL_US = 50.0
NOW_MS = 1_790_000_000_000
SKILLS = ("order", "refund", "size", "delivery")
QUEUED = 5_000


def desk(smoke: bool) -> list[Result]:
    """Measure desks of few and of many agents."""
    queued, rounds = (100, 1) if smoke else (QUEUED, 5)
    return [_one(agents, queued, rounds) for agents in (8, 100)]


def _one(agents: int, queued: int, rounds: int) -> Result:
    assigned_us, floor_us = [], []
    for _ in range(rounds):
        made = _waiting(agents, queued)
        begun = time.process_time()
        while (row := made.assign(NOW_MS)) is not None:
            made.apply(row)
        assigned_us.append((time.process_time() - begun) / queued * 1e6)
        if any(agent.load != queued // agents + (index < queued % agents) for index, agent in enumerate(_sorted(made))):
            raise RuntimeError("the load is not spread")
        begun = time.process_time()
        for _ in range(queued):
            min(made.agents.values(), key=_load)
        floor_us.append((time.process_time() - begun) / queued * 1e6)
    return Result(
        "desk", f"assignment of one of {queued:,} conversations to one of {agents} agents", median(assigned_us), "us",
        GOAL_US, floor=median(floor_us), floor_name="the smallest load of the agents",
    )  # fmt: skip


def _waiting(agents: int, queued: int) -> ServiceDesk:
    made = ServiceDesk()
    for number in range(agents):
        id = f"agent-{number:04d}"
        made.set_agent(id, SKILLS, queued, NOW_MS)
        made.set_state(id, AgentState.ONLINE)
        made.set_linked(id, NOW_MS, is_linked=True)
    for number in range(queued):
        made.apply(made.start(f"c{number}", f"u{number}", NOW_MS, skills=[SKILLS[number % 4]], priority=number % 3))
    return made


def _sorted(made: ServiceDesk) -> list[DeskAgent]:
    return sorted(made.agents.values(), key=lambda agent: (-agent.load, agent.id))


def _load(agent: DeskAgent) -> int:
    return agent.load
