"""Rules for the fields of a message body: one description of each type, used by both ends.

A rule is a callable that takes one decoded value (msgpack or JSON) and returns the value to keep (nested arrays
become NamedTuples) or raises `FieldError` with the rule in words. Values are within the decoding caps of
`frames.unpack_body`, so each rule is linear in the size of its value.

Valid values are the hot path: a rule tests for them first and returns. Only a value that fails is checked again,
slowly, to find the field. The same rules check local messages before they are sent (`connection.Connection.check`),
so they also accept the IntEnums and NamedTuples of a caller.

The docstring of a rule starts with its type as SPEC.md writes it (`type_name`), so that a test can compare the tables
of the specification with the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from enum import IntEnum
from math import isfinite
from operator import call
from typing import Any, TypeVar

from .codes import ErrorCode
from .text import count_graphemes, is_blank, is_display_name, is_room_name, is_room_pattern, is_user_id

__all__ = [
    "MAX_DEPTH",
    "MAX_INT",
    "RECORDS",
    "RECORD_SCHEMAS",
    "SCHEMA_PREFIX",
    "FieldError",
    "Rule",
    "any_value",
    "array_of",
    "boolean",
    "characters",
    "described",
    "display_name",
    "free_value",
    "hex_digest",
    "https_url",
    "integer",
    "map_of",
    "member_id",
    "member_of",
    "name_of",
    "optional",
    "read_received",
    "record",
    "renamed",
    "room_name",
    "room_pattern",
    "schema_of",
    "scoped",
    "text",
    "type_name",
    "user_id",
    "user_id_or_empty",
]

# The body of a message is untrusted: `Any` below means "not yet checked".
Rule = Callable[[Any], Any]
R = TypeVar("R", bound=tuple[Any, ...])
AnyRule = TypeVar("AnyRule", bound=Callable[[Any], Any])

MAX_DEPTH = 16
"""Nesting of a free value: a recursive parser needs a bound, and 16 is far above what payloads use."""

MAX_INT = 2**53 - 1
"""Integers stay within what a JavaScript number holds safely (`Number.MAX_SAFE_INTEGER`)."""

RECORDS: dict[type[Any], tuple[str, ...]] = {}
"""Types of the fields of every record made by `record`: a few dozen, filled when modules are imported."""
RECORD_SCHEMAS: dict[str, dict[str, Any]] = {}
"""JSON schemas of the same records, by name."""
SCHEMA_PREFIX = "#/components/schemas/"
_SCHEMAS: dict[Rule, dict[str, Any]] = {}
"""JSON schemas of rules, by rule."""
_RENAMES: dict[Rule, Callable[[Any, Callable[[str], str]], Any]] = {}
"""How the names within a value of a rule are replaced; a rule whose values hold none is not in it."""

_MIN_FREE_INT, _MAX_FREE_INT = -(2**63), 2**64 - 1
_new = tuple.__new__


class FieldError(Exception):
    """Error of a field that breaks its rule.

    ``field`` is the dotted path and ``rule`` the rule in words; neither contains bytes of the peer. ``code`` is the
    code of an ERROR about it.
    """

    def __init__(self, rule: str, field: str = "", code: ErrorCode = ErrorCode.BAD_FIELD) -> None:
        super().__init__(f"{field}: {rule}" if field else rule)
        self.rule = rule
        self.field = field
        self.code = code


def described(rule: AnyRule, doc: str, schema: dict[str, Any]) -> AnyRule:
    """Give a rule its type as SPEC.md writes it and its JSON schema; return it."""
    rule.__doc__ = doc
    _SCHEMAS[rule] = schema
    return rule


def schema_of(rule: Rule) -> dict[str, Any]:
    """Return the JSON schema of the values that a rule takes as JSON; of a record, a reference to `RECORD_SCHEMAS`."""
    return dict(_SCHEMAS.get(rule, {}))


def type_name(rule: Rule) -> str:
    """Return the type of ``rule`` as SPEC.md writes it: ``integer 0..255``, ``array of 0..64 text 1..255``."""
    return (rule.__doc__ or "").partition(":")[0]


def scoped(rule: AnyRule) -> AnyRule:
    """Mark the texts of ``rule`` as names that belong to a tenant (rooms, users, batches); return the rule."""
    _RENAMES[rule] = lambda value, rename: rename(value)
    return rule


def renamed(rule: Rule, value: Any, rename: Callable[[str], str]) -> Any:
    """Return ``value``, which ``rule`` has accepted, with ``rename`` applied to every name in it (`scoped`)."""
    replace = _RENAMES.get(rule)
    return value if replace is None else replace(value, rename)


def integer(low: int, high: int = MAX_INT) -> Rule:
    """Return the rule of an integer (not a boolean) in ``low``..``high``, both included."""
    rule = f"must be an integer from {low} to {high}"

    def check(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        if isinstance(value, IntEnum) and low <= value <= high:
            return int(value)
        raise FieldError(rule)

    return described(
        check,
        f"integer {low}..{'' if high == MAX_INT else high}",
        {"type": "integer", "minimum": low, "maximum": high},
    )


def boolean(value: Any) -> bool:
    """boolean: true or false."""
    if type(value) is not bool:
        raise FieldError("must be true or false")
    return value


_SCHEMAS[boolean] = {"type": "boolean"}


_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FORBIDDEN_IN_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def text(low: int, high: int, *, lines: bool = False) -> Rule:
    """Return the rule of a string of ``low``..``high`` code points without control characters.

    Refused: C0, DEL, C1, the line and paragraph separators (U+2028, U+2029) and lone surrogates, because all of
    these break logs, lines of JSON or terminals. ``lines`` allows line feed and tab, and turns CR LF and CR into
    line feed. Format characters (joiners of emoji) and unusual spaces are allowed.
    """
    rule = f"must be a string of {low} to {high} characters"
    forbidden = (_FORBIDDEN_IN_LINES if lines else _FORBIDDEN).search

    def check(value: Any) -> str:
        if lines and type(value) is str and "\r" in value:
            value = _with_line_feeds(value)
        if type(value) is str and low <= len(value) <= high:
            if value.isprintable() or forbidden(value) is None:
                return value
            raise FieldError(f"{rule} without control characters")
        raise FieldError(rule)

    name = "lines" if lines else "text"
    return described(check, f"{name} {low}..{high}", {"type": "string", "minLength": low, "maxLength": high})


def _with_line_feeds(value: str) -> str:
    return value.replace("\r\n", "\n").replace("\r", "\n")


def characters(high: int, max_bytes: int, *, lines: bool = False) -> Rule:
    """Return the rule of a visible text: 1..``high`` grapheme clusters, at most ``max_bytes`` of UTF-8, not blank.

    The characters that `text` refuses are refused here too.
    """
    rule = f"must be a string of 1 to {high} characters"
    check_text = text(1, max_bytes, lines=lines)

    def check(value: Any) -> str:
        if type(value) is not str or not value:
            raise FieldError(rule)
        if lines and "\r" in value:
            value = _with_line_feeds(value)
        if len(value) > high:
            if value.isascii() or count_graphemes(value[: max_bytes + 1]) > high:
                raise FieldError(rule)
            if len(value.encode(errors="replace")) > max_bytes:
                raise FieldError(f"{rule} and at most {max_bytes} bytes")
        try:
            shown: str = check_text(value)
        except FieldError:
            raise FieldError(f"{rule} without control characters") from None
        if is_blank(shown):
            raise FieldError("must have a character that can be seen")
        return shown

    name = "character lines" if lines else "characters"
    return described(check, f"{name} 1..{high}", {"type": "string", "minLength": 1, "maxLength": max_bytes})


def room_name(value: Any) -> str:
    """room name: `text.is_room_name`."""
    if type(value) is str and is_room_name(value):
        return value
    raise FieldError("must be 1 to 64 letters, digits or - _ . : @")


def user_id(value: Any) -> str:
    """user id: `text.is_user_id`."""
    if type(value) is str and is_user_id(value):
        return value
    raise FieldError("must be a user id: 1 to 64 printable characters, no white space at either end")


def member_id(value: Any) -> str:
    """user id: `text.is_user_id`, of who is or was in a room, as the other members know it.

    It is no address: nothing is looked up by it outside of that room, so it is not `scoped`.
    """
    return user_id(value)


def room_pattern(value: Any) -> str:
    """room pattern: `text.is_room_pattern`."""
    if type(value) is str and is_room_pattern(value):
        return value
    raise FieldError("must be a room name, the beginning of one and *, or *")


def user_id_or_empty(value: Any) -> str:
    """user id or empty: `text.is_user_id`, or the empty string."""
    return "" if type(value) is str and not value else user_id(value)


def display_name(value: Any) -> str:
    """display name: `text.is_display_name`."""
    if type(value) is str and is_display_name(value):
        return value
    raise FieldError("must be a name: up to 64 characters without controls, also of the direction of writing")


_NAME_SCHEMA = {"type": "string", "minLength": 1, "maxLength": 64}
_SCHEMAS[room_name] = _SCHEMAS[user_id] = _SCHEMAS[member_id] = _NAME_SCHEMA
_SCHEMAS[room_pattern] = {"type": "string", "minLength": 1, "maxLength": 65}
for _rule in (room_name, room_pattern, user_id):
    scoped(_rule)
_SCHEMAS[user_id_or_empty] = _SCHEMAS[display_name] = {"type": "string", "maxLength": 64}


_takes_unknown: ContextVar[bool] = ContextVar("takes_unknown", default=False)


def read_received(rule: Rule, value: Any) -> Any:
    """Return what ``rule`` makes of a value that a broker of another edition may have sent: a member of an enumeration
    that is not known here stays the text or number that it is. FieldError for anything else."""
    token = _takes_unknown.set(True)
    try:
        return rule(value)
    finally:
        _takes_unknown.reset(token)


def member_of(kind: type[IntEnum]) -> Rule:
    """Return the rule of the number of a member of ``kind``; its result is the member."""
    members = {int(member): member for member in kind}
    find = members.get
    rule = "must be one of " + ", ".join(f"{m.value} ({m.name})" for m in kind)

    def check(value: Any) -> int:
        if type(value) is int or isinstance(value, IntEnum):
            member = find(value)
            if member is not None:
                return member
            if value >= 0 and _takes_unknown.get():
                return value
        raise FieldError(rule)

    return described(check, kind.__name__, {"type": "integer", "enum": list(members)})


def name_of(kind: type[IntEnum]) -> Rule:
    """Return the rule of a member of ``kind`` by its name in lower case, or its number; its result is the member."""
    names = {member.name.lower(): member for member in kind}
    by_number = member_of(kind)
    rule = f"must be one of {', '.join(names)}"

    def check(value: Any) -> int | str:
        member = names.get(value) if type(value) is str else None
        if member is not None:
            return member
        if type(value) is str and _takes_unknown.get():
            return value
        try:
            found: int = by_number(value)
        except FieldError:
            raise FieldError(rule) from None
        return found

    return described(check, f"name of {kind.__name__}", {"type": "string", "enum": list(names)})


def optional(rule: Rule) -> Rule:
    """Return the rule of nil or a value of ``rule``."""

    def check(value: Any) -> Any:
        return None if value is None else rule(value)

    inner = schema_of(rule)
    schema = {"anyOf": [inner, {"type": "null"}]}
    if rule in _RENAMES:
        _RENAMES[check] = lambda value, rename: None if value is None else renamed(rule, value, rename)
    return described(check, f"nil or {type_name(rule)}", schema)


def array_of(rule: Rule, high: int) -> Rule:
    """Return the rule of an array of at most ``high`` elements of ``rule``; its result is a tuple."""
    description = f"must be an array of at most {high} elements"

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (tuple, list)) or len(value) > high:
            raise FieldError(description)
        if not value:
            return ()
        try:
            return tuple(map(rule, value))
        except FieldError:
            return tuple(_located(rule, element, f"[{index}]") for index, element in enumerate(value))

    if rule in _RENAMES:
        _RENAMES[check] = lambda value, rename: tuple(renamed(rule, each, rename) for each in value)
    return described(
        check,
        f"array of 0..{high} {type_name(rule)}",
        {"type": "array", "items": schema_of(rule), "maxItems": high},
    )


def map_of(key_rule: Rule, value_rule: Rule, high: int) -> Rule:
    """Return the rule of a map of at most ``high`` entries; its result is a dict in the given order.

    Errors name an entry by its index.
    """
    description = f"must be a map of at most {high} entries"

    def check(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict) or len(value) > high:
            raise FieldError(description)
        return {
            _located(key_rule, key, f"[{index}]"): _located(value_rule, each, f"[{index}]")
            for index, (key, each) in enumerate(value.items())
        }

    if key_rule in _RENAMES or value_rule in _RENAMES:
        _RENAMES[check] = lambda value, rename: {
            renamed(key_rule, key, rename): renamed(value_rule, each, rename) for key, each in value.items()
        }
    return described(
        check,
        f"map of 0..{high} {type_name(key_rule)} to {type_name(value_rule)}",
        {
            "type": "object",
            "propertyNames": schema_of(key_rule),
            "additionalProperties": schema_of(value_rule),
            "maxProperties": high,
        },
    )


def record(kind: type[R], rules: tuple[Rule, ...]) -> Callable[[Any], R]:
    """Return the rule of an array with one element per field of the NamedTuple ``kind``.

    Additional elements at the end are ignored. An object with the names of the fields is accepted too, and unknown
    names are ignored. Absent fields at the end get their default.
    """
    names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    defaults: dict[str, Any] = kind._field_defaults  # type: ignore[attr-defined]
    width, required = len(names), len(names) - len(defaults)
    absent = tuple(defaults.values())
    description = f"must be an array of {width} fields"
    assert len(rules) == width, kind

    def check(value: Any) -> R:
        if type(value) is tuple and (given := len(value)) >= required:
            try:
                if given >= width:
                    return _new(kind, map(call, rules, value))
                return _new(kind, (*map(call, rules, value), *absent[given - required :]))
            except FieldError:
                pass
        return read_slowly(value)

    def read_slowly(value: Any) -> R:
        """Read what is not an array of valid fields; errors have the path of the field."""
        if isinstance(value, (tuple, list)):
            given = dict(zip(names, value, strict=False))
        elif isinstance(value, dict):
            given = value
        else:
            raise FieldError(description)
        for name in names[:required]:
            if name not in given:
                raise FieldError("is required", name)
        return _new(
            kind,
            [
                _located(rule, given[name], name) if name in given else defaults[name]
                for name, rule in zip(names, rules, strict=True)
            ],
        )

    if any(rule in _RENAMES for rule in rules):
        _RENAMES[check] = lambda value, rename: _new(
            kind, [renamed(rule, each, rename) for rule, each in zip(rules, value, strict=True)]
        )
    RECORDS[kind] = tuple(map(type_name, rules))
    RECORD_SCHEMAS[kind.__name__] = {
        "type": "object",
        "properties": {
            name: schema_of(rule) | ({"default": defaults[name]} if _is_plain(defaults.get(name, rule)) else {})
            for name, rule in zip(names, rules, strict=True)
        },
        "required": list(names[:required]),
        "additionalProperties": False,
    }
    return described(check, kind.__name__, {"$ref": SCHEMA_PREFIX + kind.__name__})


def _is_plain(value: Any) -> bool:
    """Whether a default can stand in a schema as it is."""
    return value is None or type(value) in (bool, int, str)


def _located(rule: Rule, value: Any, name: str) -> Any:
    """Apply ``rule`` to the part of a value called ``name``, which becomes the first part of an error's path."""
    try:
        return rule(value)
    except FieldError as error:
        inner = error.field
        path = name + inner if inner.startswith("[") else f"{name}.{inner}" if inner else name
        raise FieldError(error.rule, path, error.code) from None


def any_value(value: Any) -> Any:
    """any: a free value of nil, booleans, 64-bit integers, finite floats, strings, arrays, maps with string keys.

    Arrays and maps are nested at most MAX_DEPTH deep. Linear in the number of elements. Strings have no half of a
    surrogate pair, which JSON can write and no encoder takes.
    """
    if value is None:
        return value
    _check_free((value,), MAX_DEPTH)
    return value


def free_value(depth: int) -> Rule:
    """Return the rule of a free value, as `any_value`, whose arrays and maps are nested at most ``depth`` deep."""

    def check(value: Any) -> Any:
        _check_free((value,), depth)
        return value

    return described(check, "any", {})


def _check_free(values: Iterable[Any], depth: int) -> None:
    """Check the elements of one array or map, which may contain ``depth`` further levels."""
    for value in values:
        kind = type(value)
        if value is None or kind is bool:
            continue
        if kind is str:
            _check_text(value)
        elif kind is int:
            if not _MIN_FREE_INT <= value <= _MAX_FREE_INT:
                raise FieldError("must hold integers of 64 bits")
        elif kind is float:
            if not isfinite(value):
                raise FieldError("must hold finite numbers")
        elif kind is tuple or kind is dict or isinstance(value, (tuple, list)):
            if not depth:
                raise FieldError(f"must be nested at most {MAX_DEPTH} deep")
            if not value:
                continue
            if kind is dict:
                for key in value:
                    if type(key) is not str:
                        raise FieldError("must have strings as keys")
                    _check_text(key)
                _check_free(value.values(), depth - 1)
            else:
                _check_free(value, depth - 1)
        elif not isinstance(value, IntEnum):
            raise FieldError("must hold only nil, booleans, numbers, strings, arrays and maps")


_has_surrogate = re.compile("[\ud800-\udfff]").search


def _check_text(value: str) -> None:
    if not value.isascii() and _has_surrogate(value):
        raise FieldError("must not have half of a surrogate pair")


_URL = re.compile(r"https://[A-Za-z0-9.\-\[\]:]+(?:[/?#][!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]*)?")
MAX_URL_CHARS = 1024


def _https_url(value: Any) -> str:
    if type(value) is str and len(value) <= MAX_URL_CHARS and _URL.fullmatch(value):
        return value
    raise FieldError(f"must be an https URL of at most {MAX_URL_CHARS} ASCII characters, without a user")


https_url = described(
    _https_url, "https URL", {"type": "string", "format": "uri", "pattern": "^https://", "maxLength": MAX_URL_CHARS}
)
"""Rule of an address on the web: other schemes (``javascript:``, ``data:``, ``http:``) are refused."""


def _hex_digest(value: Any) -> str:
    if type(value) is str and re.fullmatch("[0-9a-f]{64}", value):
        return value
    raise FieldError("must be 64 digits 0-9a-f")


hex_digest = described(_hex_digest, "SHA-256", {"type": "string", "pattern": "^[0-9a-f]{64}$"})
"""Rule of a SHA-256 in hexadecimal."""
