"""Operations on the service desk of a tenant: their records and rows."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..activities.conversations import (
    ConversationMessage,
    MediaReference,
    conversation_id,
    media_reference,
    message_text,
    shown_message,
)
from ..activities.desk import (
    EXAMPLE,
    MAX_RATING,
    AgentState,
    DeskView,
    desk_view,
    subject_id,
    tag_list,
    topic_name,
)
from ..codes import ErrorCode
from ..fields import (
    array_of,
    boolean,
    integer,
    member_id,
    name_of,
    optional,
    record,
    text,
    user_id,
    user_id_or_empty,
)
from .conversations import MESSAGE_RATE, SentMessage
from .rows import (
    LOGGED_IN,
    NEEDS_LEDGER,
    PLATFORM,
    KeyUse,
    OperationRow,
    RateLimit,
    Scope,
    cursor,
    page_of,
    page_size,
    row,
)

__all__ = [
    "MAX_DESK_HINTS",
    "ROWS",
    "AgentView",
    "AgentViews",
    "AnswerDesk",
    "AskDesk",
    "ConfigureDesk",
    "DeskDetails",
    "DeskHint",
    "DeskSettings",
    "DeskStatistics",
    "DeskTopic",
    "DeskViews",
    "GetDesk",
    "GetDeskSettings",
    "GetDeskStatistics",
    "ListAgents",
    "ListDesk",
    "ListedDesk",
    "OfficeWindow",
    "OpenDesk",
    "OpenedDesk",
    "RateDesk",
    "ResolveDesk",
    "SetAgent",
    "SetAgentState",
    "TagDesk",
    "TakeOverDesk",
    "TopicStatistics",
    "TransferDesk",
]

MAX_TOPICS = 50
MAX_SKILLS = 20
MAX_DESK_HINTS = 20
"""Hints that one answer holds, the last ones."""
MAX_WINDOWS = 50
MAX_TIME_MS = 30 * 86_400_000
_WEEK_MINUTES = 7 * 24 * 60


class DeskTopic(NamedTuple):
    """A queue of the desk. ``skills``: what an agent needs for it; ``priority``: higher ones come first; ``bot``: the
    user who answers first, empty = nobody."""

    name: str
    skills: tuple[str, ...] = ()
    priority: int = 0
    bot: str = ""


class OfficeWindow(NamedTuple):
    """When the desk is open: minutes since Monday 00:00, from ``begin`` to before ``end``."""

    begin: int
    end: int


class ConfigureDesk(NamedTuple):
    """Set up the desk of the tenant, or change it. What is not given has its default.

    ``hours``: in their order and apart, none = always; ``utc_offset_minutes``: of the local time; ``closed_text``: what
    a customer reads whose conversation waits outside of them, empty = nothing. Times in milliseconds: without an answer
    a bot loses a conversation after ``bot_ms``, an agent after ``agent_ms``, an agent without any link after
    ``lost_ms``; a resolved one is kept and opened again by its customer for ``reopen_ms``; its last agent is preferred
    for ``sticky_ms``; alarms come ``first_response_ms`` and ``resolution_ms`` of office hours after the question, 0 =
    none.
    """

    topics: tuple[DeskTopic, ...]
    hours: tuple[OfficeWindow, ...] = ()
    utc_offset_minutes: int = 0
    closed_text: str = ""
    bot_ms: int = 3_000
    agent_ms: int = 60_000
    lost_ms: int = 30_000
    reopen_ms: int = 86_400_000
    sticky_ms: int = 86_400_000
    first_response_ms: int = 60_000
    resolution_ms: int = 3_600_000


class DeskSettings(NamedTuple):
    """The desk as it is set up: see `ConfigureDesk`."""

    topics: tuple[DeskTopic, ...]
    hours: tuple[OfficeWindow, ...]
    utc_offset_minutes: int
    closed_text: str
    bot_ms: int
    agent_ms: int
    lost_ms: int
    reopen_ms: int
    sticky_ms: int
    first_response_ms: int
    resolution_ms: int


class GetDeskSettings(NamedTuple):
    """Ask how the desk is set up."""


class SetAgent(NamedTuple):
    """Make a user an agent of the desk, or change one. ``name``: what customers see; ``capacity``: conversations at a
    time; ``supervisor``: may take conversations over, and sees all; ``removed``: is no agent any more."""

    user: str
    name: str = ""
    skills: tuple[str, ...] = ()
    capacity: int = 5
    supervisor: bool = False
    removed: bool = False


class AgentView(NamedTuple):
    """An agent. ``state``: what it wants; ``linked``: has an open link; ``load``: conversations that it holds."""

    user: str
    name: str
    state: AgentState
    linked: bool
    load: int
    capacity: int
    skills: tuple[str, ...]
    supervisor: bool


class ListAgents(NamedTuple):
    """List the agents of the desk, ordered by id. ``limit``: most of one page; ``cursor``: the last answer's
    ``next``."""

    limit: int = 200
    cursor: str | None = None


class AgentViews(NamedTuple):
    """A page of agents. ``next``: cursor of the next one, null = that is all."""

    items: tuple[AgentView, ...]
    next: str | None


class SetAgentState(NamedTuple):
    """Say whether the caller, an agent, wants conversations: kept over links and restarts."""

    state: AgentState


class OpenDesk(NamedTuple):
    """Open a conversation with the desk, by a first message. ``order``, ``product``, ``live_room``: what it is about,
    ids of the platform; ``as_user``: the customer, given by a backend and only by one."""

    topic: str
    text: str
    order: str | None = None
    product: str | None = None
    live_room: str | None = None
    media: MediaReference | None = None
    as_user: str | None = None


class OpenedDesk(NamedTuple):
    """The conversation, whose first message is on the disk. ``repeated``: an earlier call with the same key has opened
    it."""

    desk: DeskView
    offset: int
    repeated: bool = False


class AskDesk(NamedTuple):
    """Write as the customer of a conversation of the desk. One that is resolved is opened again; STALE: it is resolved
    for too long, a new one is to be opened."""

    conversation: str
    text: str | None = None
    media: MediaReference | None = None
    reply_to: int = 0
    as_user: str | None = None


class AnswerDesk(NamedTuple):
    """Answer as the bot or agent who holds a conversation. STALE: another one holds it, or under another epoch; nothing
    was sent. ``as_user``: the bot or agent, given by a backend and only by one."""

    conversation: str
    epoch: int
    text: str | None = None
    media: MediaReference | None = None
    reply_to: int = 0
    as_user: str | None = None


class ListedDesk(IntEnum):
    """Which conversations are listed. MINE: of the caller as a customer, and those that it holds; QUEUED: those that
    wait, for agents; ALL: for supervisors and the platform."""

    MINE = 1
    QUEUED = 2
    ALL = 3


class ListDesk(NamedTuple):
    """List conversations of the desk, the oldest first. ``limit``: most of one page; ``cursor``: the last answer's
    ``next``."""

    which: ListedDesk = ListedDesk.MINE
    limit: int = 100
    cursor: str | None = None


class DeskViews(NamedTuple):
    """A page of conversations. ``next``: cursor of the next one, null = that is all."""

    items: tuple[DeskView, ...]
    next: str | None


class GetDesk(NamedTuple):
    """Ask for a conversation, with its last ``messages``: for its customer, its bot, agents, and the platform."""

    conversation: str
    messages: int = 20


class DeskHint(NamedTuple):
    """A keyword hint for an agent (``moderation.put_hint``, target ``agent``). ``offset``: of the customer's message;
    ``rule``: its id; ``text``: the hint; ``word``: what was found."""

    offset: int
    rule: str
    text: str
    word: str


class DeskDetails(NamedTuple):
    """A conversation and its last messages, the oldest first; ``hints`` that the customer's among them give, for agents
    and the platform alone."""

    desk: DeskView
    messages: tuple[ConversationMessage, ...]
    hints: tuple[DeskHint, ...] = ()


class TransferDesk(NamedTuple):
    """Give a conversation that the caller holds to an agent, or, without ``user``, back to the queue at its place.
    ``topic``: what it is about from now on, null = as before. STALE: also where the agent has no room."""

    conversation: str
    epoch: int
    user: str | None = None
    topic: str | None = None
    as_user: str | None = None


class TakeOverDesk(NamedTuple):
    """Take a conversation from the queue, or from who holds it, as a supervisor."""

    conversation: str


class ResolveDesk(NamedTuple):
    """End a conversation that the caller holds.

    ``read``: offset of the last message that the caller has read; STALE where a later one has come, which would
    have no answer.
    """

    conversation: str
    epoch: int
    read: int
    as_user: str | None = None


class RateDesk(NamedTuple):
    """Say how content the customer is with a resolved conversation, 1 to 5."""

    conversation: str
    rating: int


class TagDesk(NamedTuple):
    """Set the tags of a conversation: all of them."""

    conversation: str
    tags: tuple[str, ...]


class GetDeskStatistics(NamedTuple):
    """Ask for figures of the desk: of the conversations that it keeps, open or resolved."""


class TopicStatistics(NamedTuple):
    """Figures of a topic. ``late``: conversations that have exceeded a time; ``transfers``: changes from holder to
    holder; ``rated``: how many customers have, on average ``rating_hundredths``; ``first_response_...``: office hours
    until a human has answered first, null = none has."""

    topic: str
    conversations: int
    queued: int
    unresolved: int
    transfers: int
    late: int
    rated: int
    rating_hundredths: int | None
    first_response_p50_ms: int | None
    first_response_p95_ms: int | None


class DeskStatistics(NamedTuple):
    """Figures of the desk. ``agents_available``: agents who are online with a link."""

    queued: int
    assigned: int
    with_bot: int
    resolved: int
    agents_available: int
    topics: tuple[TopicStatistics, ...]


_count = integer(0)
_hint = record(DeskHint, (_count, text(1, 32), text(1, 512), text(1, 64)))
_time_ms = integer(0, MAX_TIME_MS)
_some_ms = integer(1, MAX_TIME_MS)
_skills = array_of(text(1, 32), MAX_SKILLS)
_minute = integer(0, _WEEK_MINUTES)
_settings = (
    array_of(record(DeskTopic, (topic_name, _skills, integer(0, 100), user_id_or_empty)), MAX_TOPICS),
    array_of(record(OfficeWindow, (_minute, _minute)), MAX_WINDOWS), integer(-840, 840),
    text(0, 500, lines=True), _some_ms, _some_ms, _some_ms, _some_ms, _time_ms, _time_ms, _time_ms,
)  # fmt: skip
_agent = record(
    AgentView,
    (member_id, text(0, 64), name_of(AgentState), boolean, _count, _count, _skills, boolean),
)  # fmt: skip
_sent = record(SentMessage, (_count, boolean))
_as_user = optional(user_id)
_message = optional(message_text), optional(media_reference)
_DESK = (ErrorCode.UNKNOWN_DESK, *NEEDS_LEDGER)
_KNOWN = (ErrorCode.UNKNOWN_CONVERSATION, *_DESK)
_HELD = (ErrorCode.STALE, *_KNOWN)
_SAYS = (
    ErrorCode.KEY_REUSED, ErrorCode.BLOCKED, ErrorCode.MUTED, ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.TOO_MANY_MEMBERS,
)  # fmt: skip
_ID = EXAMPLE.id
_SETTINGS = (
    (DeskTopic("orders", ("order",), 0, "helper"), DeskTopic("other")),
    (OfficeWindow(540, 1080),), 480, "We are back at 9:00.",
)  # fmt: skip
_TIMES = (3_000, 60_000, 30_000, 86_400_000, 86_400_000, 60_000, 3_600_000)
_AGENT = AgentView("amy", "Amy", AgentState.OFFLINE, False, 0, 5, ("order",), False)
_BACKEND_RATE = RateLimit(500, 1000)

ROWS: tuple[OperationRow, ...] = (
    row(
        660, "desk.configure", ConfigureDesk, _settings, DeskSettings, record(DeskSettings, _settings),
        "Set up the service desk.",
        scope=Scope.USERS_WRITE, roles=PLATFORM, durable=True, errors=NEEDS_LEDGER,
        example=(ConfigureDesk(*_SETTINGS), DeskSettings(*_SETTINGS, *_TIMES)),
    ),
    row(
        661, "desk.settings", GetDeskSettings, (), DeskSettings, record(DeskSettings, _settings),
        "Return how the service desk is set up.",
        scope=Scope.USERS_READ, roles=LOGGED_IN, changes=False, errors=_DESK,
        example=(GetDeskSettings(), DeskSettings(*_SETTINGS, *_TIMES)),
    ),
    row(
        662, "desk.set_agent", SetAgent,
        (user_id, text(0, 64), _skills, integer(0, 1000), boolean, boolean), AgentView, _agent,
        "Make a user an agent of the service desk, or change one.",
        scope=Scope.USERS_WRITE, roles=PLATFORM, durable=True,
        errors=(ErrorCode.TOO_MANY_MEMBERS, *_DESK),
        example=(SetAgent("amy", "Amy", ("order",)), _AGENT),
    ),
    row(
        663, "desk.agents", ListAgents, (page_size, cursor), AgentViews, record(AgentViews, page_of(_agent)),
        "List the agents of the service desk.",
        scope=Scope.USERS_READ, roles=LOGGED_IN, changes=False, errors=_DESK,
        example=(ListAgents(), AgentViews((_AGENT,), None)),
    ),
    row(
        664, "desk.set_state", SetAgentState, (name_of(AgentState),), AgentView, _agent,
        "Say whether the caller, an agent, wants conversations.",
        scope=None, roles=LOGGED_IN, durable=True, errors=_DESK,
        example=(
            SetAgentState(AgentState.ONLINE), _AGENT._replace(state=AgentState.ONLINE, linked=True)
        ),
    ),
    row(
        665, "desk.open", OpenDesk,
        (
            topic_name, message_text, optional(subject_id), optional(subject_id), optional(subject_id),
            optional(media_reference), _as_user,
        ),
        OpenedDesk, record(OpenedDesk, (desk_view, _count, boolean)), "Open a conversation with the service desk.",
        scope=Scope.DIRECTS_WRITE, roles=LOGGED_IN, key=KeyUse.REQUIRED, keeps_keys=True, durable=True,
        rate=RateLimit(1, 10), backend_rate=_BACKEND_RATE, errors=(*_SAYS, *_KNOWN),
        example=(OpenDesk("orders", "Where is my parcel?", "o-1"), OpenedDesk(EXAMPLE, 1)),
    ),
    row(
        666, "desk.ask", AskDesk, (conversation_id, *_message, _count, _as_user), SentMessage, _sent,
        "Write as the customer of a conversation of the service desk.",
        scope=Scope.DIRECTS_WRITE, roles=LOGGED_IN, key=KeyUse.REQUIRED, keeps_keys=True, durable=True,
        rate=MESSAGE_RATE, backend_rate=_BACKEND_RATE, errors=(*_SAYS, *_HELD),
        example=(AskDesk(_ID, "It was due yesterday."), SentMessage(2)),
    ),
    row(
        667, "desk.answer", AnswerDesk, (conversation_id, _count, *_message, _count, _as_user), SentMessage, _sent,
        "Answer as the bot or agent who holds a conversation of the service desk.",
        scope=Scope.DIRECTS_WRITE, roles=LOGGED_IN, key=KeyUse.REQUIRED, keeps_keys=True, durable=True,
        rate=MESSAGE_RATE, backend_rate=_BACKEND_RATE, errors=(*_SAYS, *_HELD),
        example=(AnswerDesk(_ID, 2, "It comes today."), SentMessage(3)),
    ),
    row(
        668, "desk.list", ListDesk, (name_of(ListedDesk), page_size, cursor), DeskViews,
        record(DeskViews, page_of(desk_view)), "List conversations of the service desk.",
        scope=Scope.MODERATION_READ, roles=LOGGED_IN, changes=False, errors=_DESK,
        example=(ListDesk(ListedDesk.ALL), DeskViews((EXAMPLE,), None)),
    ),
    row(
        669, "desk.get", GetDesk, (conversation_id, integer(0, 50)), DeskDetails,
        record(DeskDetails, (desk_view, array_of(shown_message, 50), array_of(_hint, MAX_DESK_HINTS))),
        "Return a conversation of the service desk with its last messages.",
        scope=Scope.MODERATION_READ, roles=LOGGED_IN, changes=False, errors=_KNOWN,
        example=(
            GetDesk(_ID),
            DeskDetails(
                EXAMPLE, (ConversationMessage(1, "ann", "Ann", EXAMPLE.started_at_ms, "Where is my parcel?"),),
                (DeskHint(1, "parcel", "Say when it was sent", "parcel"),),
            ),
        ),
    ),
    row(
        670, "desk.transfer", TransferDesk,
        (conversation_id, _count, optional(user_id), optional(topic_name), _as_user), DeskView, desk_view,
        "Give a conversation of the service desk to an agent, or to the queue.",
        scope=Scope.DIRECTS_WRITE, roles=LOGGED_IN, durable=True, errors=_HELD, backend_rate=_BACKEND_RATE,
        example=(TransferDesk(_ID, 2, "ben"), EXAMPLE._replace(agent="ben", epoch=3, revision=4, transfers=1)),
    ),
    row(
        671, "desk.take_over", TakeOverDesk, (conversation_id,), DeskView, desk_view,
        "Take a conversation of the service desk over, as a supervisor.",
        scope=None, roles=LOGGED_IN, durable=True, errors=_HELD, example=(TakeOverDesk(_ID), EXAMPLE),
    ),
    row(
        672, "desk.resolve", ResolveDesk, (conversation_id, _count, _count, _as_user), DeskView, desk_view,
        "End a conversation of the service desk.",
        scope=Scope.DIRECTS_WRITE, roles=LOGGED_IN, durable=True, errors=_HELD, backend_rate=_BACKEND_RATE,
        example=(ResolveDesk(_ID, 2, 5), EXAMPLE._replace(agent="", epoch=3, revision=4)),
    ),
    row(
        673, "desk.rate", RateDesk, (conversation_id, integer(1, MAX_RATING)), DeskView, desk_view,
        "Rate a resolved conversation of the service desk, as its customer.",
        scope=None, roles=LOGGED_IN, durable=True, errors=_HELD,
        example=(RateDesk(_ID, 5), EXAMPLE._replace(rating=5)),
    ),
    row(
        674, "desk.tag", TagDesk, (conversation_id, tag_list), DeskView, desk_view,
        "Set the tags of a conversation of the service desk.",
        scope=Scope.DIRECTS_WRITE, roles=LOGGED_IN, durable=True, errors=_HELD,
        example=(TagDesk(_ID, ("late",)), EXAMPLE._replace(tags=("late",))),
    ),
    row(
        675, "desk.statistics", GetDeskStatistics, (), DeskStatistics,
        record(
            DeskStatistics,
            (
                _count, _count, _count, _count, _count,
                array_of(
                    record(
                        TopicStatistics,
                        (
                            topic_name, _count, _count, _count, _count, _count, _count, optional(_count),
                            optional(_count), optional(_count),
                        ),
                    ),
                    1000,
                ),
            ),
        ),
        "Return figures of the service desk, by topic.",
        scope=Scope.USERS_READ, roles=LOGGED_IN, changes=False, rate=RateLimit(1, 5), errors=_DESK,
        example=(
            GetDeskStatistics(),
            DeskStatistics(
                3, 8, 1, 40, 4,
                (TopicStatistics("orders", 52, 3, 12, 2, 1, 20, 462, 21_000, 58_000),),
            ),
        ),
    ),
)  # fmt: skip
