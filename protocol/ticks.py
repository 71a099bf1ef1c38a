"""The short form of a tick on the binary wire, and the way back: what has its default, or follows, is left out.

An entry of three is a danmaku: user, name and text. A user id that is a decimal number is that number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .codes import MessageType, Role
from .messages import Account, Tick, TickEntry

__all__ = ["MAX_ID_NUMBER", "account_of", "short_tick", "whole_entry"]

MAX_ID_NUMBER = 2**53 - 1
"""Largest user id that is written as a number: as a JavaScript number it is exact."""

_VIEWER, _DANMAKU = int(Role.VIEWER), int(MessageType.DANMAKU)
_MAX_DIGITS = len(str(MAX_ID_NUMBER))


def account_of(entries: Sequence[TickEntry]) -> Account:
    """Return the account of a tick in which every message was shown, or merged into one that was."""
    shown = len(entries)
    admitted = sum([entry[4] for entry in entries])
    return Account(admitted, shown, admitted - shown)


def short_tick(tick: Tick) -> tuple[Any, ...]:
    """Return the short form of a tick: entries and account without the last fields that have their defaults, and no
    account where it follows from the entries."""
    entries = tick.entries
    body = (*tick[:3], [_short_entry(entry) for entry in entries])
    account = tick.account
    if account == account_of(entries):
        return body
    used = max((place for place, count in enumerate(account, 1) if count), default=0)
    return (*body, account[:used])


def _short_entry(entry: TickEntry) -> tuple[Any, ...]:
    kind, user, name, payload, count, senders, role = entry
    if user.isdecimal():
        user = _number(user)
    if role == _VIEWER and not senders and count == 1:
        if kind == _DANMAKU and isinstance(payload, tuple) and len(payload) == 1:
            return user, name, payload[0]
        return kind, user, name, payload
    senders = tuple([_number(each) if each.isdecimal() else each for each in senders])
    if role != _VIEWER:
        return kind, user, name, payload, count, senders, role
    return (kind, user, name, payload, count, senders) if senders else (kind, user, name, payload, count)


def _number(id: str) -> Any:
    """Return the number that an id of digits is, or the id: where it has other digits, zeros before, or too many."""
    if len(id) > _MAX_DIGITS or id[0] == "0" or not id.isascii():
        return id
    number = int(id)
    return number if number <= MAX_ID_NUMBER else id


def whole_entry(value: Any) -> Any:
    """Return what was received as an entry (any value) in the form of the record `TickEntry`, if it is a short one."""
    if type(value) is not tuple:
        return value
    if len(value) == 3:
        user, name, text = value
        value = _DANMAKU, user, name, (text,)
    if len(value) > 1 and type(value[1]) is int:
        value = value[0], _id(value[1]), *value[2:]
    if len(value) > 5 and type(value[5]) is tuple and value[5]:
        value = *value[:5], tuple([_id(each) for each in value[5]]), *value[6:]
    return value


def _id(value: Any) -> Any:
    return str(value) if type(value) is int and 0 < value <= MAX_ID_NUMBER else value
