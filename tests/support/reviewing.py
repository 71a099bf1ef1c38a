"""Rooms that hold what is posted, and users who post and report in them."""

from __future__ import annotations

import itertools
from typing import Any

from protocol.messages import Ack, AckResult, Call, ErrorReply, Post, Result
from protocol.operations.reviews import ReportMessage
from tests.support.broker import RawLink

__all__ = ["NOTE", "REVIEWED", "report", "result_of", "say"]

NOTE = {"id": 140, "name": "note", "lane": "commerce", "roles": ["viewer"], "rate_per_s": 1000.0, "burst": 1000}
"""A type of the deployment's own whose messages are events."""
REVIEWED: dict[str, Any] = {
    "types": [NOTE],
    "room": {"user_chat_per_s": 1000.0, "user_chat_burst": 1000, "duplicate_window_s": 0, "pre_review": True},
}
"""Settings of a broker whose rooms hold everything."""
_CALLS = itertools.count(1000)


async def say(link: RawLink, room: int, number: int, text: str, kind: int = 1, key: str = "") -> AckResult:
    """Post a danmaku or a note and return its first result."""
    payload = (text, None) if kind == 1 else text
    await link.send((Post(kind, key, payload), room, number))
    return await result_of(link, number)


async def result_of(link: RawLink, number: int) -> AckResult:
    """Return the next result of a post."""
    while True:
        _, ack = await link.expect(Ack)
        for result in ack.results:
            if result.sequence == number:
                return result


async def report(link: RawLink, room: int, name: str, **fields: Any) -> Any:
    """Report a message of the room ``name`` and return the result, or the error."""
    number = next(_CALLS)
    await link.send((Call(533, "", tuple(ReportMessage(name)._replace(**fields))), room, number))
    while True:
        frame = await link.next_frame()
        assert frame is not None
        if frame.sequence == number and isinstance(frame.message, Result):
            return tuple(frame.message.result)
        if frame.sequence == number and isinstance(frame.message, ErrorReply):
            return frame.message
