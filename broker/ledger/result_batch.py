"""What one slice of results causes, flushed together at its end.

A commit settles many submissions at once. Whoever reacts to a result does not write immediately: it collects what it
has to send and calls `ResultBatch.defer` with a function that sends it. The ledger enters the batch around each slice
of results; leaving it calls every function once. Outside a batch nothing is deferred, and the caller sends at once.

Bounded by the receivers of one slice of results. No checkpoint may come inside a batch.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["ResultBatch"]


Flush = Callable[[], None]


class ResultBatch:
    """Flush functions of the results that are being delivered. Reusable, not reentrant: ``with batch: ...``."""

    __slots__ = ("_answers", "_events")

    def __init__(self) -> None:
        # Dictionaries serve as ordered sets; None while nothing is deferred.
        self._events: dict[Flush, None] | None = None
        self._answers: dict[Flush, None] | None = None

    def defer(self, flush: Flush, *, answers: bool = False) -> bool:
        """Call ``flush`` once when the batch ends and return True; return False where there is no batch.

        Events are flushed first, in the order of the calls; then the functions given with ``answers``. While events
        are flushed, answers are still deferred and events are not. ``flush`` handles its own errors.
        """
        waiting = self._answers if answers else self._events
        if waiting is None:
            return False
        waiting[flush] = None
        return True

    def __enter__(self) -> None:
        self._events, self._answers = {}, {}

    def __exit__(self, *_: object) -> None:
        events, self._events = self._events or {}, None
        try:
            for flush in events:
                flush()
        finally:
            answers, self._answers = self._answers or {}, None
            for flush in answers:
                flush()
