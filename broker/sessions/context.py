"""Context that all sessions of one broker share: the parts behind it, and the counters that all of them write.

Plain references, made by the composition root. What is the same for all sessions and expensive to make (the answer to
HELLO, what a role may post) is made once here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from broker.auth.grants import Grant
from broker.auth.tokens import Authenticator
from broker.config.schema import LinkConfig
from broker.core.limits.rate_limit import UNLIMITED, Rate, SingleGcra
from broker.core.net.connection_limits import ConnectionLimits
from broker.core.rooms.types import TypeRules
from broker.ledger import ResultBatch
from broker.net.poller import Poller
from broker.net.transport import Transport
from broker.operations.calls import Operations
from broker.rooms.hub import Hub
from broker.rooms.room_history import RoomHistory
from broker.sessions.call_turns import CallTurns
from broker.sessions.calls import CallTasks
from broker.sessions.connections import SharedConnections
from broker.users.inbox import Inboxes
from broker.users.registry import UserRegistry
from broker.webhooks.questions import Questions
from protocol.codes import Codec, Feature, MessageType
from protocol.dictionaries import Dictionary
from protocol.messages import VERSION, CustomType, ServerHello

__all__ = ["OpenSession", "SessionContext"]

SERVER_NAME = "roomcast"
RENEW_EVERY_S = 30.0
"""A ticket costs a signature; clients ask for one when half of its time has passed."""


class UserLinksOfNode(Protocol):
    """Links of users over all nodes."""

    def added(self, user: str, link: Any, *, is_app: bool) -> None:
        """Take that a user has logged in on a link of this node."""

    def removed(self, user: str, link: Any) -> None:
        """Take that a link of this node has ended."""


class NodeLinks(Protocol):
    """What sessions need of this node among others. (Any: links and requests are above and beside this module.)"""

    @property
    def user_links(self) -> UserLinksOfNode:
        """Links of users over all nodes."""

    @property
    def is_stale(self) -> bool:
        """Whether this node does not know who is banned or whose token is revoked, and admits no user."""

    def join(self, link: Any, request: Any, sequence: int, plain: Any) -> None:
        """Answer a JOIN or RESUME. ``plain``: as the client has sent it."""

    def join_elsewhere(self, link: Any, request: Any, sequence: int) -> bool:
        """Have a JOIN or RESUME answered by the node that owns its room now; False: that is this node."""

    def post_to(self, link: Any, name: str, sequence: int, post: Any) -> bool:
        """Give a post to the owner of a room that is not joined; False: that is this node."""


class OpenSession(Protocol):
    """What the shutdown and a reload need of an open session."""

    transport: Transport

    def close(self, code: int, reason: str, retry_after_ms: int = 0, jitter_ms: int = 0) -> None:
        """Send GOAWAY and end the connection."""

    def use_types(self) -> None:
        """Take what the token permits of the types of messages that there are now."""

    def leave_codec(self, codec: Codec) -> None:
        """Compress without the dictionary of a codec from now on, if this link has that codec."""


@dataclass(slots=True)
class SessionContext:
    """What every session of a broker shares, and the counters they write."""

    config: LinkConfig
    hub: Hub
    users: UserRegistry
    auth: Authenticator
    connection_limits: ConnectionLimits
    poller: Poller
    unix_ms: Callable[[], int]
    types: TypeRules
    max_viewers: int
    compress: bool
    operations: Operations
    results: ResultBatch
    """Collects the acks to one session while the ledger delivers results."""
    history: RoomHistory | None = None
    """History on the disk; None: no ledger."""
    resume_bytes: int = 512 * 1024
    """Most bytes of events that one RESUME brings back; a client that missed more gets the gap."""
    inboxes: Inboxes | None = None
    """Must-deliver messages; None: no ledger."""
    questions: Questions | None = None
    """Questions to the platform; None: there are none."""
    nodes: NodeLinks | None = None
    """Other nodes; None: there are none."""
    connections: SharedConnections = field(default_factory=SharedConnections)
    """States of the protocol that open links share between their frames."""
    call_tasks: CallTasks = field(default_factory=CallTasks)
    """Calls of operations that wait, of all links."""
    call_turns: CallTurns = field(init=False)
    """Turns of the links whose CALLs wait."""
    frame_limit: SingleGcra = field(init=False)
    """Frames of one link, in bursts of two seconds."""
    app_frame_limit: SingleGcra = field(init=False)
    """The same for links of the role APP."""
    error_limit: SingleGcra = field(init=False)
    """ERROR replies to one link."""
    features: int = field(init=False)
    """Bits of `Feature` this broker has."""
    durable_types: frozenset[int] = field(init=False)
    """Types of messages whose answer waits for the ledger; none without one."""
    reviewed_types: frozenset[int] = frozenset()
    """Types of messages that the platform is asked about, or has been in this run: what waits keeps its order."""
    renew_every_s: float = field(init=False)
    """Least time between two renewed tickets of one link, in seconds."""
    draining: bool = False
    sessions: dict[OpenSession, None] = field(default_factory=dict)
    """All open sessions: a set in order of their start. (As in the timer wheel, a set would weigh twice as much.)"""
    closed: Counter[int] = field(default_factory=Counter)
    """Links ended, by close code."""
    errors: Counter[int] = field(default_factory=Counter)
    """ERROR replies, by error code."""
    posts: int = 0
    missed_chat: int = 0
    _hello: ServerHello | None = None

    def __post_init__(self) -> None:
        self.call_turns = CallTurns(self.poller)
        self.use_types()
        self.use_limits(self.config)
        self.renew_every_s = min(RENEW_EVERY_S, self.auth.ticket_s / 10)
        self.use_compression(self.compress)

    def with_screened_name(self, grant: Grant) -> Grant:
        """Return a grant whose name is masked by what holds in all rooms of its tenant."""
        screen = self.hub.screens.of_names(grant.tenant)
        name = grant.name if screen is None else screen.masked_name(grant.name)
        return grant if name == grant.name else replace(grant, name=name)

    def name_in(self, room: str, name: str) -> str:
        """Return the name of a user as a room (qualified name) shows it."""
        screen = self.hub.screens.of(room)
        return name if screen is None else screen.masked_name(name)

    def use_compression(self, compress: bool) -> None:
        """Offer links that come from now on compressed ticks, or do not."""
        self.compress = compress
        self.features = int(
            Feature.CALL
            | (Feature.TICKET if self.auth.gives_tickets else Feature(0))
            | (Feature.LZ4 | Feature.LZ4_DICT_1 if compress else Feature(0))
        )

    def use_types(self) -> None:
        """Take the types of messages as they are now, for open sessions too. O(sessions)."""
        self.durable_types = frozenset() if self.history is None else self.types.critical
        self.use_questions()
        self._hello = None
        for session in self.sessions:
            session.use_types()

    def use_questions(self) -> None:
        """Ask about messages from now on, if the platform is asked about them now."""
        if self.questions is not None and self.questions.message is not None:
            self.reviewed_types = frozenset({int(MessageType.DANMAKU), *self.types.custom})

    def use_limits(self, config: LinkConfig) -> None:
        """Apply the limits of a configuration to all sessions, open ones included."""
        self.config = config
        self.users.max_per_user = config.connections_per_user
        frames_per_s, errors = config.frames_per_s, config.errors_per_minute
        self.users.max_per_app = config.app_connections_per_user
        self.frame_limit = _frame_limit(frames_per_s)
        self.app_frame_limit = _frame_limit(config.app_frames_per_s)
        self.error_limit = SingleGcra(Rate(errors / 60.0, errors))

    def use_dictionary(self, dictionary: Dictionary | None) -> bool:
        """Put the deployment's dictionary in force for links that come from now on, None = the built-in one;
        returns whether it is another than before.

        The links of one that loses its place return to the codec that they have without it: O(sessions) then.
        ValueError, and nothing is changed, for a dictionary that is too large to be sent.
        """
        table = self.hub.dictionaries
        before = table.in_force
        left = table.use(dictionary, self.poller.now)
        if left is not None:
            for session in self.sessions:
                session.leave_codec(left)
        return table.in_force is not before

    def hello(self, features: int, held: Sequence[str] = ()) -> ServerHello:
        """Return the answer to HELLO now, of a link whose client holds the dictionaries ``held``."""
        if self._hello is None:
            config = self.config
            self._hello = ServerHello(
                VERSION, 0, 0, round(config.heartbeat_s * 1000), round(config.heartbeat_cut_s * 1000),
                config.rooms_per_connection,
                tuple(CustomType(rule.type, rule.name, rule.lane) for rule in self.types.custom.values()), SERVER_NAME,
            )  # fmt: skip
        offered = self.hub.dictionaries.offered(features, held)
        return tuple.__new__(ServerHello, (VERSION, features, self.unix_ms(), *self._hello[3:8], offered))


def _frame_limit(frames_per_s: int) -> SingleGcra:
    return SingleGcra(Rate(frames_per_s, 2 * frames_per_s) if frames_per_s else UNLIMITED)
