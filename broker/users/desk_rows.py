"""The service desk in the ledger: its settings, agents and conversations, and what users are shown of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from broker.core.tenants.names import qualify, tenant_of
from broker.core.users.desk_records import AgentState, DeskContext, DeskConversation, DeskState, SlaAlarm
from broker.core.users.service_desk import ServiceDesk
from broker.ledger import Item, Reader, RecordPut, RecordRemoved, StoredRecord
from broker.ledger.records import read_records
from protocol.activities.desk import DeskView, SlaTimer
from protocol.errors import RemoteProtocolError
from protocol.fields import FieldError
from protocol.frames import pack_body, unpack_body
from protocol.operations import BY_NAME
from protocol.operations.desk import DeskSettings

__all__ = [
    "AGENT", "CONVERSATION", "SETTINGS", "StoredAgent", "StoredDesk", "agent_item", "agent_removal",
    "conversation_item",
    "conversation_removal", "desk_view", "erased_items", "load_desks", "settings_item",
]  # fmt: skip

SETTINGS = "desk.settings"
"""Kind of the records of settings; subject: "desk", qualified by the tenant."""
AGENT = "user.desk_agent"
"""Of agents, subject: the user; erased with all records of a user."""
CONVERSATION = "desk.conversation"
"""Of conversations; subject: their qualified ids."""


class StoredAgent(NamedTuple):
    """An agent as it is kept. ``user``: qualified id."""

    user: str
    name: str
    skills: tuple[str, ...]
    capacity: int
    is_supervisor: bool
    state: AgentState


class StoredDesk(NamedTuple):
    """All that is kept of desks: settings by tenant, agents, and conversations with the tenants that they are of."""

    settings: dict[str, DeskSettings]
    agents: list[StoredAgent]
    conversations: list[tuple[str, DeskConversation]]


def settings_item(tenant: str, settings: DeskSettings, at_ms: int) -> RecordPut:
    """Return the record of the settings of a desk."""
    return RecordPut(SETTINGS, qualify(tenant, "desk"), "", at_ms, pack_body(tuple(settings)))


def agent_item(agent: StoredAgent, at_ms: int) -> RecordPut:
    """Return the record of an agent."""
    return RecordPut(AGENT, agent.user, "", at_ms, pack_body(tuple(agent[1:])))


def agent_removal(user: str) -> RecordRemoved:
    """Return the removal of an agent (qualified id)."""
    return RecordRemoved(AGENT, user, "")


def conversation_item(tenant: str, row: DeskConversation, at_ms: int) -> RecordPut:
    """Return the record of a conversation."""
    return RecordPut(CONVERSATION, qualify(tenant, row.id), "", at_ms, pack_body(tuple(row)))


def conversation_removal(tenant: str, id: str) -> RecordRemoved:
    """Return the removal of a conversation."""
    return RecordRemoved(CONVERSATION, qualify(tenant, id), "")


def load_desks(reader: Reader) -> StoredDesk:
    """Return all that is kept. Runs in the ledger's reading thread, at the start."""
    return StoredDesk(
        dict(read_records(reader, SETTINGS, _settings)),
        list(read_records(reader, AGENT, _agent)),
        list(read_records(reader, CONVERSATION, lambda each, body: (tenant_of(each.subject), _conversation(body)))),
    )


def _settings(record: StoredRecord, body: Sequence[Any]) -> tuple[str, DeskSettings]:
    try:
        settings: DeskSettings = BY_NAME["desk.settings"].read_result(tuple(body))
    except FieldError as error:
        raise ValueError(str(error)) from None
    return tenant_of(record.subject), settings


def _agent(record: StoredRecord, body: Sequence[Any]) -> StoredAgent:
    name, skills, capacity, is_supervisor, state = body[:5]
    return StoredAgent(record.subject, name, skills, capacity, is_supervisor, AgentState(state))


def _conversation(body: Sequence[Any]) -> DeskConversation:
    row = DeskConversation(*body[: len(DeskConversation._fields)])
    return row._replace(
        state=DeskState(row.state), alarms=SlaAlarm(row.alarms), context=DeskContext(*row.context)
    )  # fmt: skip


def erased_items(record: StoredRecord, tenant: str, user: str) -> Iterator[Item]:
    """Yield what takes an erased user (plain id) out of the record of a conversation."""
    kind, subject, name, at_ms, body = record
    if tenant_of(subject) != tenant:
        return
    try:
        row = _conversation(unpack_body(body))
    except (RemoteProtocolError, TypeError, ValueError):
        return
    if row.customer == user:
        yield RecordRemoved(kind, subject, name)
        return
    after = row.without_agent(user)._replace(agent="" if row.agent == user else row.agent)
    if after != row:
        yield conversation_item(tenant, after, at_ms)


def desk_view(desk: ServiceDesk, row: DeskConversation, *, for_customer: bool = False) -> DeskView:
    """Return a conversation as agents see it, or its customer."""
    alarms = tuple(timer for timer in SlaTimer if SlaAlarm(timer) in row.alarms)
    return DeskView(
        row.id, row.topic, row.customer, row.name, row.state, row.agent, row.epoch, row.revision, *row.context,
        row.started_at_ms, row.asked_at_ms, desk.first_response_ms(row), row.resolved_at_ms, row.transfers, row.rating,
        () if for_customer else row.tags, () if for_customer else alarms,
    )  # fmt: skip
