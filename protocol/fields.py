"""Rules for the fields of a message body: what a value may be, said once and checked once.

A rule is a callable that takes one decoded msgpack value and returns the value to keep (nested arrays
become NamedTuples) or raises `FieldError` with the rule in words. Rules never see more than the
decoding caps of `frames.unpack_body` let through, so each is linear in the size of its value.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from math import isfinite
from typing import Any, TypeVar

__all__ = [
    "MAX_DEPTH",
    "FieldError",
    "Rule",
    "any_value",
    "array_of",
    "boolean",
    "integer",
    "member_of",
    "optional",
    "record",
    "text",
]

# A body is data from a stranger: `Any` below is "not yet checked".
Rule = Callable[[Any], Any]
R = TypeVar("R", bound=tuple[Any, ...])

MAX_DEPTH = 16
"""Nesting of a free payload (reliability practice: a parser that recurses needs a floor; 16 is far above use)."""

MAX_INT = 2**53
"""Integers stay within what a JavaScript number holds exactly."""


class FieldError(Exception):
    """A field breaks its rule. ``field`` is the dotted path, ``rule`` the rule in words; both are ours, not the peer's."""

    def __init__(self, rule: str, field: str = "") -> None:
        super().__init__(f"{field}: {rule}" if field else rule)
        self.rule = rule
        self.field = field


def integer(low: int, high: int = MAX_INT) -> Rule:
    """An integer (not a boolean) in ``low``..``high``, both included."""
    rule = f"must be an integer from {low} to {high}"

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise FieldError(rule)
        return value

    return check


def boolean(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise FieldError("must be true or false")
    return value


def text(low: int, high: int, *, printable: bool = True) -> Rule:
    """A string of ``low``..``high`` code points; ``printable`` refuses control characters (C0, DEL, C1)."""
    rule = f"must be a string of {low} to {high} characters"

    def check(value: Any) -> str:
        if type(value) is not str or not low <= len(value) <= high:
            raise FieldError(rule)
        if printable and not value.isprintable() and _has_control(value):
            raise FieldError(f"{rule} without control characters")
        return value

    return check


def _has_control(value: str) -> bool:
    """`str.isprintable` is the quick answer; format characters and odd spaces are allowed, controls are not."""
    return any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in value)


def member_of(kind: type[IntEnum]) -> Rule:
    """The number of a member of ``kind``; returns the member."""
    members = {int(member): member for member in kind}
    rule = "must be one of " + ", ".join(f"{m.value} ({m.name})" for m in kind)

    def check(value: Any) -> IntEnum:
        member = members.get(value) if type(value) is int or isinstance(value, IntEnum) else None
        if member is None:
            raise FieldError(rule)
        return member

    return check


def optional(rule: Rule) -> Rule:
    """Nil, or what ``rule`` takes."""

    def check(value: Any) -> Any:
        return None if value is None else rule(value)

    return check


def array_of(rule: Rule, high: int) -> Rule:
    """An array of at most ``high`` elements, each by ``rule``; returns a tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (tuple, list)) or len(value) > high:
            raise FieldError(f"must be an array of at most {high} elements")
        kept = []
        for index, element in enumerate(value):
            try:
                kept.append(rule(element))
            except FieldError as error:
                raise FieldError(error.rule, _join(f"[{index}]", error.field)) from None
        return tuple(kept)

    return check


def record(kind: type[R], rules: tuple[Rule, ...]) -> Callable[[Any], R]:
    """An array with one element per field of the NamedTuple ``kind``; extra trailing elements are ignored.

    Also takes an object with the fields' names (JSON mode). Absent trailing fields with a default take it.
    """
    names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    defaults: dict[str, Any] = kind._field_defaults  # type: ignore[attr-defined]
    required = len(names) - len(defaults)
    assert len(rules) == len(names), kind

    def check(value: Any) -> R:
        if isinstance(value, dict):
            missing = [name for name in names[:required] if name not in value]
            if missing:
                raise FieldError("is required", missing[0])
            unknown = [name for name in value if name not in names]
            if unknown:
                raise FieldError("must have no fields but " + ", ".join(names))
            value = [value[name] if name in value else defaults[name] for name in names]
        elif not isinstance(value, (tuple, list)):
            raise FieldError(f"must be an array of {len(names)} fields")
        if len(value) < required:
            raise FieldError("is required", names[len(value)])
        kept = []
        for name, rule, element in zip(names, rules, value, strict=False):
            try:
                kept.append(rule(element))
            except FieldError as error:
                raise FieldError(error.rule, _join(name, error.field)) from None
        kept.extend(defaults[name] for name in names[len(kept) :])
        return tuple.__new__(kind, kept)

    return check


def _join(outer: str, inner: str) -> str:
    if not inner:
        return outer
    return outer + inner if inner.startswith("[") else f"{outer}.{inner}"


def any_value(value: Any) -> Any:
    """A free payload: nil, booleans, integers, finite floats, strings, arrays, maps with string keys; MAX_DEPTH deep."""
    _check_free(value, MAX_DEPTH)
    return value


def _check_free(value: Any, depth: int) -> None:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return
    if kind is int:
        if not -(2**63) <= value < 2**64:
            raise FieldError("must hold integers of 64 bits")
        return
    if kind is float:
        if not isfinite(value):
            raise FieldError("must hold finite numbers")
        return
    if depth == 0:
        raise FieldError(f"must be nested at most {MAX_DEPTH} deep")
    if kind is tuple or kind is list:
        for element in value:
            _check_free(element, depth - 1)
        return
    if kind is dict:
        for key, element in value.items():
            if type(key) is not str:
                raise FieldError("must have strings as keys")
            _check_free(element, depth - 1)
        return
    raise FieldError("must hold only nil, booleans, numbers, strings, arrays and maps")
