"""Coming into a room when the ledger has to speak first: RESUME, and whoever comes before a room's epoch is durable.

A link that waits has no seat: what is published meanwhile would come before what was missed. Once the ledger has
answered, the seat is taken in the same breath in which the newest events are fetched from the room, so that nothing
comes twice and nothing is skipped. Must never block: every wait is a callback, and the link may be gone when it comes.

Functions over a session rather than an object beside it: there are a hundred thousand sessions, and few of them wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from broker.auth.grants import RoomGrant
from broker.core.rooms.stream import StoredEvent
from broker.rooms.room import Room
from protocol.codes import ErrorCode, Opcode
from protocol.connection import Frame
from protocol.messages import Resume, Resumed
from protocol.resume import StreamPosition, gap_from

if TYPE_CHECKING:
    from broker.sessions.session import Session

__all__ = ["on_resume", "wait_founded"]

READ_AGAIN_MS = 1000
"""When to come back if the ledger could not be asked, or did not answer."""


def wait_founded(session: Session, room: Room, frame: Frame) -> bool:
    """Whether a JOIN or RESUME has to wait: a position in an epoch that a crash would forget is none."""
    if not room.when_founded(partial(_on_founded, session, room.name, frame)):
        return False
    session.returning = (*session.returning, room.name)
    return True


def _on_founded(session: Session, name: str, frame: Frame) -> None:
    _has_waited(session, name)
    if not session.transport.state:
        session.services.poller.refresh_clock()
        with session.answering():
            if frame.opcode is Opcode.JOIN:
                session.on_join(frame, again=True)
            else:
                on_resume(session, frame, again=True)


def on_resume(session: Session, frame: Frame, again: bool = False) -> None:
    """Answer a RESUME, now or when the ledger has told what the room has forgotten."""
    resume = frame.message
    assert isinstance(resume, Resume)
    admitted = session.admit(resume.room_name, frame.sequence, resuming=True, again=again)
    if admitted is None:
        return
    room, entry = admitted
    if wait_founded(session, room, frame):
        return
    past = room.missing(resume.epoch, resume.offset, session.services.poller.now)
    if past is not None or not _ask_history(session, resume, frame.sequence, room, ()):
        _welcome_back(session, resume, frame.sequence, room, entry, past)


def _ask_history(session: Session, resume: Resume, sequence: int, room: Room, found: Sequence[StoredEvent]) -> bool:
    """Ask the ledger for what the room has forgotten; False where that cannot help. Else it will be answered."""
    stored = session.services.history
    after, last = resume.offset + len(found), room.state.first_offset - 1
    if stored is None or resume.epoch != room.state.epoch or after >= last or len(found) >= stored.max_events:
        return False
    on_done = partial(_on_history, session, resume, sequence, found)
    if not stored.read(room.name, resume.epoch, after, last, on_done):
        _not_now(session, sequence)
        return True
    session.returning = (*session.returning, resume.room_name)
    return True


def _on_history(
    session: Session, resume: Resume, sequence: int, found: Sequence[StoredEvent], more: Sequence[StoredEvent] | None
) -> None:
    """The ledger has answered. The room has gone on meanwhile: what is newer comes from it."""
    _has_waited(session, resume.room_name)
    if not session.transport.state:
        session.services.poller.refresh_clock()
        with session.answering():
            _come_back(session, resume, sequence, found, more)


def _come_back(
    session: Session, resume: Resume, sequence: int, found: Sequence[StoredEvent], more: Sequence[StoredEvent] | None
) -> None:
    admitted = session.admit(resume.room_name, sequence, resuming=True, again=True)
    if admitted is None:
        return
    room, entry = admitted
    past: Sequence[StoredEvent] | None = None
    stored = session.services.history
    if more is None and stored is not None and stored.may_recover:
        _not_now(session, sequence)
        return
    if more:
        found = (*found, *more)
        newer = room.missing(resume.epoch, resume.offset + len(found), session.services.poller.now)
        if newer is not None:
            past = (*found, *newer)
        elif _ask_history(session, resume, sequence, room, found):
            return
    _welcome_back(session, resume, sequence, room, entry, past)


def _welcome_back(
    session: Session, resume: Resume, sequence: int, room: Room, entry: RoomGrant, past: Sequence[StoredEvent] | None
) -> None:
    member = session.seat(room, entry, resume.tier)
    snapshot = room.snapshot(member)
    first = gap_from(StreamPosition(resume.epoch, resume.offset), snapshot.epoch)
    session.send(Resumed(past is not None, first, snapshot), room.number, sequence)
    for each in past or ():
        session.send(each.event, room.number, each.offset, each.lane)


def _not_now(session: Session, sequence: int) -> None:
    """What is missing is there, but cannot be had now: a gap would be a lie."""
    session.refuse(ErrorCode.OVERLOADED, "the ledger cannot be read now", sequence, wait_ms=READ_AGAIN_MS)


def _has_waited(session: Session, name: str) -> None:
    session.returning = tuple(each for each in session.returning if each != name)
