"""Backend of a run: calls the control API at a given rate, from connections that stay open, while viewers watch.

The calls are of the platform's busiest operation, ``messages.publish``, judged and not done (``dry_run``), so that the
totals of the run stay those of its streams. A call above the broker's rate is answered by 429, and counted.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter

from bench.load.child import emit, read_spec, set_alarm

__all__ = ["main"]

BODY = json.dumps({"room": "bench-0", "type": 4, "payload": ["storm"]})
HEADERS = {"Content-Type": "application/json"}


class _Caller(threading.Thread):
    """One connection, which sends its share of the calls on schedule and never more than one at a time."""

    def __init__(self, host: str, port: int, per_s: float, seconds: float) -> None:
        super().__init__(daemon=True)
        self.answers = Counter[int]()
        self._connection = http.client.HTTPConnection(host, port, timeout=30)
        self._interval_s = 1 / per_s
        self._seconds = seconds

    def run(self) -> None:
        begun = due = time.monotonic()
        while due < begun + self._seconds:
            wait_s = due - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            due = max(due + self._interval_s, time.monotonic() - 1.0)  # a late one does not catch up for ever
            self._connection.request("POST", "/v1/messages/publish?dry_run=1", BODY, HEADERS)
            answer = self._connection.getresponse()
            answer.read()
            self.answers[answer.status] += 1
        self._connection.close()


def main() -> None:
    """Wait for the spec, call until the time is over, report the answers by status."""
    spec = read_spec()
    if spec is None:
        return
    set_alarm(spec["lifetime_s"])
    count = spec["connections"]
    callers = [_Caller(spec["host"], spec["port"], spec["per_s"] / count, spec["seconds"]) for _ in range(count)]
    emit("ready")
    if read_spec() is None:  # the command to start
        return
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    answers = sum((caller.answers for caller in callers), Counter[int]())
    emit("done", answers={str(status): number for status, number in answers.items()})


if __name__ == "__main__":
    main()
