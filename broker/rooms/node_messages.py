"""Messages between nodes: what the owner of a room publishes for the viewers of other nodes, and links that one node
relays to another.

A message on the channel of a room is a `RoomOutput`. A message to a node is a `NodeBatch` of records, numbered for each
receiver: a number that is missing says that records were lost, and both sides begin anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from broker.auth.grants import Grant, RoomGrant
from broker.rooms.encoding import Content, with_packed
from protocol.codes import Lane, Opcode, Role
from protocol.frames import pack_body, unpack_body
from protocol.message_rules import opcode_of, reader_of
from protocol.messages import Message, Side

__all__ = [
    "MAX_RECORDS",
    "Attach",
    "Attached",
    "CallAsked",
    "CallReturned",
    "EventsAsked",
    "EventsFound",
    "JoinMoved",
    "LinkAnswers",
    "LinkBytes",
    "LinkClosed",
    "LinkDisplaced",
    "LinkEnded",
    "LinkGranted",
    "LinkOpened",
    "LogFollowed",
    "Moved",
    "NodeBatch",
    "NodeMessage",
    "RoomOutput",
    "Submitted",
    "TenantsUsed",
    "UsersAsked",
    "UsersReported",
    "UsersShown",
    "Wanted",
    "pack_batch",
    "pack_grant",
    "pack_output",
    "read_batch",
    "read_grant",
    "read_message",
    "read_output",
]

MAX_RECORDS = 500
"""Records of one batch: an array of the codec holds a little more."""


# ---- the channel of a room


class RoomOutput(NamedTuple):
    """Contents that the owner has published to all members. ``by_tier``: equal tiers are one object."""

    fence: int
    number: int
    """Counts the messages under one fence."""
    offset: int
    """Of the last event that was published, those in this message included."""
    to_staff: bool
    """Whether members of staff get it; else they have had it before."""
    by_tier: tuple[tuple[Content, ...], ...]
    chat: tuple[int, ...]
    """Danmaku in the messages under this fence, this one included, by tier."""


def pack_output(
    fence: int, number: int, offset: int, to_staff: bool, by_tier: Sequence[Sequence[Content]], chat: Sequence[int]
) -> bytes:
    """Return a `RoomOutput` as bytes."""
    groups: list[Sequence[Content]] = []
    places = []
    for contents in by_tier:
        place = next((index for index, each in enumerate(groups) if each is contents), len(groups))
        if place == len(groups):
            groups.append(contents)
        places.append(place)
    packed = tuple(tuple(_pack_content(each) for each in contents) for contents in groups)
    return pack_body((fence, number, offset, to_staff, tuple(places), packed, tuple(chat)))


def read_output(body: bytes) -> RoomOutput:
    """Return what `pack_output` has packed."""
    fence, number, offset, to_staff, places, packed, chat = unpack_body(body)
    groups = tuple(tuple(map(_read_content, contents)) for contents in packed)
    return RoomOutput(fence, number, offset, to_staff, tuple(groups[place] for place in places), tuple(chat))


def _pack_content(content: Content) -> tuple[Any, ...]:
    message, lane, sequence, weight, part_key, packed = content
    return int(opcode_of(message)), int(lane), sequence, weight, part_key, packed or pack_body(message)


def _read_content(packed: tuple[Any, ...]) -> Content:
    opcode, lane, sequence, weight, part_key, body = packed
    content = Content(read_message(Opcode(opcode), body), Lane(lane), sequence, weight, part_key)
    return with_packed(content, body)


def read_message(opcode: Opcode, body: bytes) -> Message:
    """Return a message of a server from its packed body."""
    message: Message = reader_of(Side.SERVER, opcode)(unpack_body(body))
    return message


# ---- messages to a node


class LinkOpened(NamedTuple):
    """A viewer's link is relayed from now on. ``grant``: see `pack_grant`."""

    link: int
    grant: tuple[Any, ...]
    address: str
    is_app: bool


class LinkBytes(NamedTuple):
    """Frames of the client of a relayed link."""

    link: int
    data: bytes


class LinkAnswers(NamedTuple):
    """Frames of the owner for the client of a relayed link."""

    link: int
    data: bytes


class LinkGranted(NamedTuple):
    """The client of a relayed link has a newer token."""

    link: int
    grant: tuple[Any, ...]


class LinkClosed(NamedTuple):
    """A relayed link has ended at the client's side."""

    link: int


class LinkEnded(NamedTuple):
    """The owner has ended a relayed link. ``code`` 0: the client stays connected, and goes on at another owner."""

    link: int
    code: int
    reason: str


class JoinMoved(NamedTuple):
    """The JOIN or RESUME of a relayed link for a room is not answered: the sender does not own the room (any more)."""

    link: int
    room: str


class Attach(NamedTuple):
    """A relayed link goes on in a room that it has joined before: its owner is another one now."""

    link: int
    room: str
    tier: int
    joined_at_ms: int


class Attached(NamedTuple):
    """A link is in a room again, as before. ``number``: of the room at its owner."""

    link: int
    room: str
    number: int
    epoch: int
    offset: int
    """Of the last event that was published."""


class EventsAsked(NamedTuple):
    """The events of a room after an offset are missing."""

    room: str
    epoch: int
    offset: int


class EventsFound(NamedTuple):
    """Events after an offset, as lane, offset and packed body; None: they are not all there any more."""

    room: str
    epoch: int
    after: int
    events: tuple[tuple[int, int, bytes], ...] | None


class CallAsked(NamedTuple):
    """A call of an operation. ``caller``, ``arguments``: see `broker.operations.forwarding`."""

    id: int
    room: str
    operation: int
    caller: tuple[Any, ...]
    arguments: Any
    max_bytes: int


class CallReturned(NamedTuple):
    """The answer to a call: the packed result, or a refusal (code, rule, field, wait)."""

    id: int
    result: bytes
    is_replayed: bool = False
    refusal: tuple[Any, ...] | None = None


class Moved(NamedTuple):
    """The sender does not own a room (any more)."""

    room: str


class Wanted(NamedTuple):
    """A node needs a room that is placed on the receiver, which should claim it."""

    room: str


class Submitted(NamedTuple):
    """A submission for the broker's log, which the receiver owns."""

    body: bytes


class LinkDisplaced(NamedTuple):
    """A newer link of its user has come at another node. ``name``: under which the engine has the older one."""

    name: str


class LogFollowed(NamedTuple):
    """The sender has taken over a fact of the receiver in the broker's log. ``links``: it concerned so many there."""

    fact: int
    links: int


class UsersReported(NamedTuple):
    """Which users have links at the sender, for the node that decides about conversations. ``number``: counts these
    records; ``begins``: what was reported before holds no more. ``watches``: users and whom each watches."""

    number: int
    begins: bool
    online: tuple[str, ...]
    offline: tuple[str, ...]
    watches: tuple[tuple[str, tuple[str, ...]], ...]


class UsersAsked(NamedTuple):
    """The receiver is to report all of its users: the sender decides about conversations."""


class UsersShown(NamedTuple):
    """A packed `Direct` for the links that users have at the receiver."""

    users: tuple[str, ...]
    lane: int
    body: bytes


class TenantsUsed(NamedTuple):
    """What tenants use at the sender. ``reports``: the fields of each `UseReport`."""

    reports: tuple[tuple[Any, ...], ...]


NodeMessage = (
    LinkOpened
    | LinkBytes
    | LinkAnswers
    | LinkGranted
    | LinkClosed
    | LinkEnded
    | JoinMoved
    | Attach
    | Attached
    | EventsAsked
    | EventsFound
    | CallAsked
    | CallReturned
    | Moved
    | Wanted
    | Submitted
    | LogFollowed
    | LinkDisplaced
    | UsersReported
    | UsersAsked
    | UsersShown
    | TenantsUsed
)
_KINDS: tuple[type[Any], ...] = (
    LinkOpened, LinkBytes, LinkAnswers, LinkGranted, LinkClosed, LinkEnded, JoinMoved, Attach, Attached, EventsAsked,
    EventsFound, CallAsked, CallReturned, Moved, Wanted, Submitted, LogFollowed, LinkDisplaced,
    UsersReported, UsersAsked, UsersShown,
    TenantsUsed,
)  # fmt: skip
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}


class NodeBatch(NamedTuple):
    """Records from one node to another. ``number``: of the batches of this incarnation to this receiver, from 1."""

    node: str
    incarnation: str
    number: int
    records: tuple[NodeMessage, ...]


def pack_batch(node: str, incarnation: str, number: int, records: Sequence[NodeMessage]) -> bytes:
    """Return a batch as bytes. At most `MAX_RECORDS`."""
    return pack_body((node, incarnation, number, tuple((_NUMBERS[type(each)], each) for each in records)))


def read_batch(body: bytes) -> NodeBatch:
    """Return what `pack_batch` has packed."""
    node, incarnation, number, records = unpack_body(body)
    return NodeBatch(node, incarnation, number, tuple(_KINDS[kind](*fields) for kind, fields in records))


def pack_grant(grant: Grant) -> tuple[Any, ...]:
    """Return a grant as plain values, for a node that trusts the one which has verified the token."""
    rooms = tuple(
        (each.pattern, int(each.role), None if each.allow is None else tuple(sorted(each.allow)))
        for each in grant.rooms
    )
    return (
        grant.user_id, grant.name, int(grant.role), rooms, grant.expires_at, grant.tenant, grant.lifetime_s,
        grant.account_created, grant.jti, grant.tags,
    )  # fmt: skip


def read_grant(packed: tuple[Any, ...]) -> Grant:
    """Return what `pack_grant` has packed."""
    user, name, role, rooms, *rest = packed
    grants = tuple(
        RoomGrant(pattern, Role(given), None if allow is None else frozenset(allow)) for pattern, given, allow in rooms
    )
    return Grant(user, name, Role(role), grants, *rest)
