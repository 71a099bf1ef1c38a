"""The service desk of one tenant: its settings and agents, and what is under way."""

from __future__ import annotations

import trio

from broker.core.users.conversations import Conversation
from broker.core.users.desk_hours import OfficeHours
from broker.core.users.desk_questions import CommonQuestions
from broker.core.users.desk_records import DeskConversation
from broker.core.users.desk_streams import AnswerStream
from broker.core.users.service_desk import DeskTimes, ServiceDesk
from broker.users.desk_rows import StoredAgent
from broker.users.turns import Turns
from protocol.operations.desk import AgentView, DeskSettings, DeskTopic

__all__ = ["Desk"]


class Desk:
    """The desk of one tenant. Users and conversations have their plain ids."""

    def __init__(self, tenant: str, settings: DeskSettings) -> None:
        self.tenant = tenant
        self.core = ServiceDesk()
        self.agents: dict[str, StoredAgent] = {}
        self.adding = trio.Lock()
        self.scope = trio.CancelScope()
        """Of the tasks of this desk."""
        self.questions = CommonQuestions()
        self.turns = Turns()
        self.wake = trio.Event()
        """Set where a conversation may have got an agent."""
        self.streams: dict[str, AnswerStream] = {}
        """Answers that come in parts, by conversation."""
        self.orphans: list[Conversation] = []
        """Conversations whose desk keeps them no more: to be removed."""
        self.use(settings)

    def use(self, settings: DeskSettings) -> None:
        """Take over settings."""
        self.settings = settings
        self.topics: dict[str, DeskTopic] = {topic.name: topic for topic in settings.topics}
        self.core.hours = OfficeHours(tuple(map(tuple, settings.hours)), settings.utc_offset_minutes)  # type: ignore[arg-type]
        self.core.times = DeskTimes(
            settings.bot_ms, settings.agent_ms, settings.lost_ms, settings.reopen_ms, settings.sticky_ms,
            settings.first_response_ms, settings.resolution_ms,
        )  # fmt: skip
        self.wake.set()

    def touch(self, id: str, now_ms: int) -> None:
        """Give who holds a conversation its time to answer anew; nothing writes it."""
        row = self.core.find(id)
        if row is not None:
            self.core.apply(row._replace(held_at_ms=now_ms))

    def bot_of(self, topic: str) -> str:
        """Return the bot of a topic, "" = none."""
        found = self.topics.get(topic)
        return "" if found is None else found.bot

    def is_supervisor(self, user: str) -> bool:
        """Return whether a user is an agent who may take conversations over."""
        return user in self.agents and self.agents[user].is_supervisor

    def agent_view(self, user: str) -> AgentView:
        """Return an agent as others see it. KeyError."""
        agent, state = self.agents[user], self.core.agents[user]
        return AgentView(
            user, agent.name, state.state, state.lost_at_ms is None, state.load, state.capacity,
            tuple(sorted(state.skills)), agent.is_supervisor,
        )  # fmt: skip

    def held_by(self, user: str) -> list[DeskConversation]:
        """Return the conversations that an agent or a bot holds."""
        agent = self.core.agents.get(user)
        if agent is not None:
            return [row for id in agent.held if (row := self.core.find(id)) is not None]
        if any(topic.bot == user for topic in self.settings.topics):
            return [row for row in self.core if row.agent == user]
        return []
