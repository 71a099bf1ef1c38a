"""Send queue of a viewer that is behind, and the account of what it drops.

A queue exists only while a socket is full, and holds references to bytes that all viewers share. Urgent
frames overtake others: a sale goes before the chat that waits, but never enters a frame already begun. Lanes 0 to 2
keep their order among themselves: they carry the offsets of one stream per room, which must reach the viewer in order.

    when it is full            what happens
    bound of frames or bytes   the oldest of lane 4, then of lane 3, is dropped; keyframe mode begins
    keyframe mode              lane 3 is refused, lane 4 keeps the newest of each key and goes before the
                               chat that still waits; ends when everything is written
    bound of lanes 0 to 2      OVERFLOW: the caller closes the link with a resumable code

So lanes 0 to 2 are never dropped, and there is never a hole in them: a frame is queued or the link ends.
Every frame of lanes 3 and 4 that is dropped or refused is counted, so that it can be reported to the viewer.

It writes nothing itself and knows neither sockets nor frames: it is given whole frames, and hands out buffers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import NamedTuple

from protocol.codes import Lane

__all__ = ["QueueLimits", "QueueMissed", "QueueResult", "SendQueue"]

MAX_OVERTAKEN = 8
"""Chat buffers that may overtake a waiting counter: 0.8 s of ticks. On a link of 2 KiB/s with 4 KiB/s of chat and a new
total every second, the total shown is at most 2 s old; in strict order of lanes it was up to 12 s old."""
MAX_BUFFERS = 256
"""Buffers of one write (a kernel takes 1,024 in one ``sendmsg``)."""


class QueueResult(Enum):
    """Result of an offer."""

    QUEUED = "queued"
    SHED = "shed"
    """Dropped and counted (lanes 3 and 4 only)."""
    OVERFLOW = "overflow"
    """Not queued (lanes 0 to 2 only); the link must end with a resumable code, or it would have a hole."""


class QueueMissed(NamedTuple):
    """Account of what this viewer alone did not get. A counter that a newer one replaced is not missed."""

    chat_frames: int = 0
    chat_weight: int = 0
    ambient_frames: int = 0
    """Above 0 the viewer may have old totals: send it a new one."""
    ambient_weight: int = 0
    superseded: int = 0


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of one viewer's queue, in buffers as offered and in bytes."""

    frames: int = 32
    """3 s of ticks: what has waited longer is not worth showing."""
    queue_bytes: int = 256 * 1024
    """nats allows 64 MiB and centrifuge 1 MiB; here a process has 100,000."""
    critical_bytes: int = 1024 * 1024
    critical_frames: int = 4096
    """Bounds the memory of tiny frames, whose Python objects weigh more than their bytes."""


class SendQueue:
    """The queue of one link. All methods are O(1) except `chunks`, which is linear in what it returns.

    ``nbytes``: all bytes waiting, with the rest of the frame begun; ``frames``: buffers waiting, without it.
    With lanes 3 and 4 both are within ``limits``, plus one begun frame; beyond that only lanes 0 to 2 are held.
    ``keyframe``: whether the mode above is on.
    """

    __slots__ = (
        "_ambient", "_ambient_frames", "_ambient_weight", "_begun", "_chat", "_chat_frames", "_chat_weight",
        "_critical", "_is_planned", "_limits", "_overtaken", "_superseded", "critical_frames", "critical_nbytes",
        "frames", "keyframe", "nbytes", "progress_at",
    )  # fmt: skip

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._begun: bytes | memoryview = b""
        # One deque weighs 0.6 KB, so each is made with its first frame.
        self._critical: deque[bytes] | None = None
        self._chat: deque[tuple[bytes, int]] | None = None
        self._ambient: dict[int, tuple[bytes, int]] = {}
        self._overtaken = 0
        self._is_planned = False
        self.critical_frames = 0
        self.critical_nbytes = 0
        self.frames = 0
        self.nbytes = 0
        self.keyframe = False
        self.progress_at = 0.0
        """When the peer took bytes last, monotonic seconds; the link writes it."""
        self._forget_missed()

    def _forget_missed(self) -> None:
        self._chat_frames = self._chat_weight = 0
        self._ambient_frames = self._ambient_weight = self._superseded = 0

    @property
    def empty(self) -> bool:
        return not self.nbytes

    # ---- in

    def push_rest(self, rest: bytes | memoryview) -> None:
        """Begin with the rest of a frame of which the peer has (or may have) a part; nothing gets before it.

        ValueError if one is begun already: a bug in the caller.
        """
        if self._begun:
            raise ValueError("a frame is begun already")
        self._is_planned = False
        self._begun = rest
        self.nbytes += len(rest)
        self._trim()

    def offer(self, data: bytes, lane: Lane, weight: int = 0, key: int = 0) -> QueueResult:
        """Queue ``data``, one or more whole frames of one lane.

        ``weight``: danmaku inside, for the account of what was missed. ``key``: of what a lane 4 frame is the newest
        total, usually the room number; a newer one takes the place of the one that waits.
        """
        size = len(data)
        if not size:
            raise ValueError("no data")
        self._is_planned = False
        if lane <= Lane.PAID:
            limits = self._limits
            if self.critical_frames >= limits.critical_frames or self.critical_nbytes + size > limits.critical_bytes:
                return QueueResult.OVERFLOW
            if self._critical is None:
                self._critical = deque()
            self._critical.append(data)
            self.critical_frames += 1
            self.critical_nbytes += size
            self.frames += 1
            self.nbytes += size
            self._trim()
            return QueueResult.QUEUED
        if lane is Lane.CHAT:
            if self.keyframe:
                self._chat_frames += 1
                self._chat_weight += weight
                return QueueResult.SHED
            if self._chat is None:
                self._chat = deque()
            self._chat.append((data, weight))
            self.frames += 1
            self.nbytes += size
            self._trim()
            return QueueResult.QUEUED if self._chat else QueueResult.SHED  # the newest goes last
        older = self._ambient.get(key)
        if older is None:
            if not self._ambient:
                self._overtaken = 0
            self.frames += 1
        else:
            self._superseded += 1
            self.nbytes -= len(older[0])
        self._ambient[key] = (data, weight)  # in the place of the older one, so that updates cannot starve it
        self.nbytes += size
        self._trim()
        return QueueResult.QUEUED if key in self._ambient else QueueResult.SHED

    def _trim(self) -> None:
        """Keep within the bound of frames and bytes; the first time, keyframe mode begins."""
        limits = self._limits
        if self.frames <= limits.frames and self.nbytes <= limits.queue_bytes:
            return
        chat_goes_first = self.keyframe
        self.keyframe = True
        while self.frames > limits.frames or self.nbytes > limits.queue_bytes:
            if self._chat and (chat_goes_first or not self._ambient):
                data, weight = self._chat.popleft()
                self._chat_frames += 1
                self._chat_weight += weight
            elif self._ambient:
                data, weight = self._ambient.pop(next(iter(self._ambient)))
                self._ambient_frames += 1
                self._ambient_weight += weight
            else:
                break
            self.frames -= 1
            self.nbytes -= len(data)
        if not self.nbytes:
            self.keyframe = False  # one buffer alone was beyond the bound: there is no backlog

    # ---- out

    def chunks(self, max_bytes: int = 65_536) -> list[bytes | memoryview]:
        """Return the next buffers to write, whole ones in the order of going out, at least one if there is any.

        More than ``max_bytes`` only if the first one alone is. Follow with `advance`, before anything else is
        offered; without it nothing has changed.
        """
        self._is_planned = True
        out: list[bytes | memoryview] = []
        size = 0
        for data in self._in_order():
            size += len(data)
            if out and (size > max_bytes or len(out) == MAX_BUFFERS):
                break
            out.append(data)
        return out

    def advance(self, written: int) -> None:
        """Take away the first ``written`` bytes of what `chunks` returned; a frame cut in two is begun.

        ``written`` within the frame begun is always right, whatever was offered in between. Otherwise RuntimeError
        if something was, and ValueError if there are not so many bytes: bugs of the caller.
        """
        if not self._is_planned and written > len(self._begun):
            raise RuntimeError("advance without chunks")
        if not 0 <= written <= self.nbytes:
            raise ValueError(f"{written} of {self.nbytes} bytes written")
        self._is_planned = False
        self.nbytes -= written
        while written:
            data = self._begun or self._pop()
            size = len(data)
            if written < size:
                self._begun = memoryview(data)[written:]
                return
            self._begun = b""
            written -= size
        if not self.nbytes:
            self.keyframe = False

    def begin(self, max_bytes: int = 16_384) -> bytes | memoryview:
        """Join the next buffers and begin them all, so that they stay first, whatever is offered.

        For a writer that must repeat a refused write with the same bytes (TLS), and for one that wants a single
        buffer. ``max_bytes`` as in `chunks`. Follow with `advance`. Empty if there is nothing to write.
        """
        if not self._begun:
            buffers = self.chunks(max_bytes)
            for _ in buffers:
                self._pop()
            self._begun = b"".join(buffers)
        return self._begun

    def take_missed(self) -> QueueMissed:
        """Return what was dropped, refused or superseded since the last call."""
        missed = QueueMissed(
            self._chat_frames, self._chat_weight, self._ambient_frames, self._ambient_weight, self._superseded
        )
        self._forget_missed()
        return missed

    def _in_order(self) -> Iterator[bytes | memoryview]:
        if self._begun:
            yield self._begun
        if self._critical:
            yield from self._critical
        chat = self._chat or ()
        before = len(chat) if not self._ambient else 0 if self.keyframe else MAX_OVERTAKEN - self._overtaken
        for data, _ in islice(chat, before):
            yield data
        for data, _ in self._ambient.values():
            yield data
        for data, _ in islice(chat, before, None):
            yield data

    def _pop(self) -> bytes:
        """Take the first buffer in the order of `_in_order` that is not begun; its bytes stay counted."""
        self.frames -= 1
        if self._critical:
            data = self._critical.popleft()
            self.critical_frames -= 1
            self.critical_nbytes -= len(data)
            return data
        ambient = self._ambient
        if self._chat and (not ambient or (not self.keyframe and self._overtaken < MAX_OVERTAKEN)):
            if ambient:
                self._overtaken += 1
            return self._chat.popleft()[0]
        return ambient.pop(next(iter(ambient)))[0]
