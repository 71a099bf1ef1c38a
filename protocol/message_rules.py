"""Rules of every message body: what a reader accepts of each field, by side and opcode.

The order of the rules is that of the record's fields. A body that does not fit is refused with the field and the rule.
"""

from __future__ import annotations

from typing import Any

from .codes import CUSTOM_TYPE_MAX, CUSTOM_TYPE_MIN, Lane, LeaveReason, Opcode, Outcome, Role, RoomPhase, Tier
from .dictionaries import MAX_DICTIONARY_BYTES
from .fields import (
    FieldError,
    Rule,
    any_value,
    array_of,
    boolean,
    described,
    hex_digest,
    integer,
    member_of,
    optional,
    read_received,
    record,
    room_name,
    schema_of,
    text,
    type_name,
)
from .messages import (
    MAGIC,
    MAX_ACK_RESULTS,
    MAX_ACTIVITIES,
    MAX_CUSTOM_TYPES,
    MAX_DICTIONARIES,
    MAX_ENTRIES,
    MAX_FIRSTS,
    MAX_KEY_CHARS,
    MAX_KEYS,
    MAX_LISTED,
    MAX_PINS,
    MAX_PULSES,
    MAX_REASONS,
    Account,
    Ack,
    AckReason,
    AckResult,
    ActivityView,
    Auth,
    Authenticated,
    Call,
    ClientHello,
    CustomType,
    Direct,
    DirectAck,
    ErrorReply,
    Event,
    FirstResult,
    GoAway,
    Join,
    Joined,
    Leave,
    Left,
    Message,
    OfferedDictionary,
    Ping,
    Pong,
    Post,
    Result,
    Resume,
    Resumed,
    RoomPulse,
    RoomRole,
    ServerHello,
    Side,
    State,
    Tick,
    TickEntry,
)
from .operations import BY_NAME, BY_NUMBER
from .shared_rules import pinned_message, room_key
from .ticks import account_of, whole_entry

__all__ = ["DEFAULT_LANES", "MESSAGE_KINDS", "OPCODE_LANES", "opcode_of", "reader_of"]

UINT32 = 0xFFFF_FFFF
MAX_OPERATION = 0xFFFF


_u32 = integer(0, UINT32)
_count = integer(0)
_ms = integer(0)
_name = text(0, 64)
_id = text(1, 64)
_reason = text(0, 256)


def _literal(expected: str) -> Rule:
    def check(value: Any) -> str:
        if value != expected or type(value) is not str:
            raise FieldError(f"must be {expected!r}")
        return expected

    check.__doc__ = f'"{expected}"'
    return check


def _pair(first: Rule, second: Rule) -> Rule:
    def check(value: Any) -> tuple[Any, Any]:
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise FieldError("must be an array of 2 fields")
        return first(value[0]), second(value[1])

    check.__doc__ = f"pair of {type_name(first)} and {type_name(second)}"
    return check


_operation_name = text(1, 64)


def _operation(value: Any) -> int | str:
    """operation: its number, or its name. A known name becomes the number."""
    if type(value) is int and 0 < value <= MAX_OPERATION:
        return value
    if type(value) is not str:
        raise FieldError(f"must be a number from 1 to {MAX_OPERATION}, or a name")
    row = BY_NAME.get(value)
    return _operation_name(value) if row is None else row.number


def _arguments(value: Any) -> Any:
    """arguments: an array or a map; the operation checks its fields."""
    if isinstance(value, (tuple, list, dict)):
        return value
    raise FieldError("must be an array or a map of fields")


_account = record(Account, (_count,) * 6)
_entry_record = record(
    TickEntry, (integer(1, 255), _id, _name, any_value, integer(1), array_of(_id, 3), member_of(Role))
)


def _read_entry(value: Any) -> TickEntry:
    return _entry_record(whole_entry(value))


_entry = described(_read_entry, type_name(_entry_record), schema_of(_entry_record))
_custom_type = record(CustomType, (integer(CUSTOM_TYPE_MIN, CUSTOM_TYPE_MAX), _id, member_of(Lane)))
_result = record(AckResult, (_u32, member_of(Outcome), _count))
_offered = record(OfferedDictionary, (integer(1, 15), hex_digest, integer(1, MAX_DICTIONARY_BYTES)))
_first = record(FirstResult, (_u32, room_name, _count, _count))
_ack_reason = record(AckReason, (_u32, text(0, 256), integer(0)))
_room_role = record(RoomRole, (_u32, member_of(Role)))
_pulse = record(RoomPulse, (_u32, _count, _ms))
_activity_view = record(ActivityView, (text(1, 32), text(0, 64), any_value))
_EVENT_RULES: tuple[Rule, ...] = (integer(1, 255), _ms, text(0, 64), _name, any_value)
_event = record(Event, _EVENT_RULES)
_JOINED_RULES: tuple[Rule, ...] = (
    room_name, _count, _count, member_of(Role), member_of(RoomPhase), member_of(Tier), _ms,
    _count, _count, _count, _count, _count, array_of(_entry, MAX_LISTED), boolean, optional(_event),
    array_of(room_key, MAX_KEYS), _count, array_of(pinned_message, MAX_PINS),
    array_of(_activity_view, MAX_ACTIVITIES), array_of(_activity_view, MAX_ACTIVITIES), _count,
)  # fmt: skip
_GOAWAY_RULES: tuple[Rule, ...] = (integer(1000, 4999), _reason, _ms, _ms, array_of(text(1, 255), MAX_LISTED))

_RULES: dict[tuple[Side, Opcode], tuple[type[Any], tuple[Rule, ...]]] = {
    (Side.CLIENT, Opcode.HELLO): (
        ClientHello,
        (_literal(MAGIC), integer(1, 255), integer(1, 255), _u32, text(0, 128), array_of(hex_digest, MAX_DICTIONARIES)),
    ),
    (Side.CLIENT, Opcode.AUTH): (Auth, (optional(text(1, 4000)),)),
    (Side.CLIENT, Opcode.JOIN): (Join, (room_name, member_of(Tier))),
    (Side.CLIENT, Opcode.LEAVE): (Leave, ()),
    (Side.CLIENT, Opcode.POST): (Post, (integer(1, 255), text(0, 64), any_value, optional(room_name))),
    (Side.CLIENT, Opcode.ACK): (DirectAck, (_count,)),
    (Side.CLIENT, Opcode.PING): (Ping, (_ms, boolean, optional(text(1, 4000)))),
    (Side.CLIENT, Opcode.RESUME): (Resume, (room_name, member_of(Tier), _count, _count)),
    (Side.CLIENT, Opcode.GOAWAY): (GoAway, _GOAWAY_RULES),
    (Side.CLIENT, Opcode.CALL): (Call, (_operation, text(0, MAX_KEY_CHARS), _arguments)),
    (Side.SERVER, Opcode.HELLO): (
        ServerHello,
        (
            integer(1, 255), _u32, _ms, _ms, _ms, integer(1), array_of(_custom_type, MAX_CUSTOM_TYPES), _name,
            array_of(_offered, MAX_DICTIONARIES),
        ),
    ),
    (Side.SERVER, Opcode.AUTH): (
        Authenticated,
        (_id, _name, _ms, text(0, 4000), _ms, array_of(_room_role, MAX_PULSES)),
    ),
    (Side.SERVER, Opcode.JOIN): (Joined, _JOINED_RULES),
    (Side.SERVER, Opcode.LEAVE): (Left, (member_of(LeaveReason), _reason)),
    (Side.SERVER, Opcode.ACK): (
        Ack, (array_of(_result, MAX_ACK_RESULTS), array_of(_first, MAX_FIRSTS), array_of(_ack_reason, MAX_REASONS))
    ),
    (Side.SERVER, Opcode.EVENT): (Event, _EVENT_RULES),
    (Side.SERVER, Opcode.TICK): (Tick, (_ms, _ms, integer(0, 4), array_of(_entry, MAX_ENTRIES), _account)),
    (Side.SERVER, Opcode.STATE): (
        State,
        (
            _ms, member_of(RoomPhase), integer(0, 4), _ms, _count, _count, _count, _count, _count,
            array_of(_pair(_id, _count), MAX_LISTED), array_of(_pair(_id, _name), MAX_LISTED), _count,
            array_of(_account, len(Lane)),
        ),
    ),
    (Side.SERVER, Opcode.DIRECT): (Direct, (_count, integer(1, 255), _ms, any_value)),
    (Side.SERVER, Opcode.PONG): (Pong, (_ms, _ms, array_of(_pulse, MAX_PULSES), _count, text(0, 4000), _ms)),
    (Side.SERVER, Opcode.ERROR): (ErrorReply, (integer(100, 999), _reason, _name, _ms)),
    (Side.SERVER, Opcode.GOAWAY): (GoAway, _GOAWAY_RULES),
    (Side.SERVER, Opcode.RESUME): (Resumed, (boolean, _count, record(Joined, _JOINED_RULES))),
    (Side.SERVER, Opcode.RESULT): (Result, (_operation, any_value)),
}  # fmt: skip

MESSAGE_KINDS: dict[tuple[Side, Opcode], type[Any]] = {key: kind for key, (kind, _) in _RULES.items()}
"""The NamedTuple of every body, by the side that sends it and its opcode."""

_READERS: dict[tuple[Side, Opcode], Any] = {key: record(kind, rules) for key, (kind, rules) in _RULES.items()}
_read_result = _READERS[Side.SERVER, Opcode.RESULT]


def _read_typed_result(value: Any) -> Result:
    """Return a RESULT with the record of its operation; of an operation or form that is newer, the value as it came."""
    found: Result = _read_result(value)
    row = BY_NUMBER.get(found.operation)  # type: ignore[arg-type]
    if row is None:
        return found
    try:
        return Result(row.number, read_received(row.read_result, found.result))
    except FieldError:
        return found


_READERS[Side.SERVER, Opcode.RESULT] = _read_typed_result
_read_tick_fields = _READERS[Side.SERVER, Opcode.TICK]
_ACCOUNT_PLACE = Tick._fields.index("account")


def _read_tick(value: Any) -> Tick:
    """Return a TICK; an account that is left out follows from the entries."""
    tick: Tick = _read_tick_fields(value)
    given = "account" in value if isinstance(value, dict) else len(value) > _ACCOUNT_PLACE
    return tick if given else tick._replace(account=account_of(tick.entries))


_READERS[Side.SERVER, Opcode.TICK] = _read_tick
_OPCODES: dict[type[Any], Opcode] = {kind: opcode for (_, opcode), kind in MESSAGE_KINDS.items()}

_CONTROL = frozenset({Lane.CONTROL})
OPCODE_LANES: dict[Opcode, frozenset[Lane]] = {
    **dict.fromkeys(Opcode, _CONTROL),
    Opcode.EVENT: frozenset({Lane.CONTROL, Lane.COMMERCE, Lane.PAID, Lane.AMBIENT}),
    Opcode.TICK: frozenset({Lane.CHAT}),
    Opcode.STATE: frozenset({Lane.AMBIENT}),
    Opcode.DIRECT: frozenset({Lane.COMMERCE, Lane.AMBIENT}),
}
"""Lanes that a frame of a server may have, by opcode; frames of a client have lane 0."""
DEFAULT_LANES = {Opcode.DIRECT: Lane.COMMERCE}
"""The lane where none is named, of opcodes that have several."""


def opcode_of(message: Message) -> Opcode:
    """Return the opcode of ``message``."""
    return _OPCODES[type(message)]


def reader_of(side: Side, opcode: Opcode) -> Any:
    """Return the rule that turns a body sent by ``side`` into its message; None if that side never sends it."""
    return _READERS.get((side, opcode))
