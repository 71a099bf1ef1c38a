"""Process that publishes to a ledger until it is killed, and prints what was acknowledged.

It submits events FIRST, FIRST + 1, ... with one key each, room by room in turn, WINDOW at a time. Lines: ``opening``,
``ready``, then ``NUMBER OFFSET`` for each one that is durable, committed by this run or an earlier one. With ``--lie``
it does not wait for the disk, to show that the tests detect that.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import trio

from broker.ledger import Committed, Entry, Ledger, LedgerError, LedgerResult, Repeated, SubmitResult, make_key
from broker.ledger.store import Store


def unix_ms() -> int:
    """The time of the events and of the ledger: it removes what is older than it keeps."""
    return time.time_ns() // 1_000_000


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


class LyingStore(Store):
    """Commits that do not wait for the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.connection.execute("PRAGMA synchronous=OFF")


class Publisher:
    """Keeps a window of submissions pending; sets ``stop`` when ``count`` are acknowledged."""

    def __init__(self, ledger: Ledger, options: argparse.Namespace, stop: trio.Event) -> None:
        self._ledger = ledger
        self._next = options.first
        self._rooms = options.rooms
        self._left = options.count
        self._stop = stop

    def submit(self) -> None:
        number = self._next
        self._next += 1
        entry = Entry(f"room-{number % self._rooms}", 7, 2, 5, unix_ms(), b"%d" % number)
        submitted = self._ledger.record(
            (entry,), lambda ledger_result: self.on_result(number, ledger_result), (make_key("publisher", str(number)),)
        )
        assert submitted is SubmitResult.QUEUED, submitted

    def on_result(self, number: int, ledger_result: LedgerResult) -> None:
        match ledger_result:
            case Committed(offsets):
                say(f"{number} {offsets[0]}")
            case Repeated(first):
                (result,) = first.values()
                say(f"{number} {result.offset}")
            case LedgerError():
                say(f"failed {number} {ledger_result}")
                return
        self._left -= 1
        if self._left:
            self.submit()
        else:
            self._stop.set()


async def main(options: argparse.Namespace) -> None:
    say("opening")
    ledger = Ledger(
        options.directory,
        unix_ms=unix_ms,
        open_store=LyingStore if options.lie else Store,
    )
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        say("ready")
        publisher = Publisher(ledger, options, stop)
        for _ in range(options.window):
            publisher.submit()
        await stop.wait()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rooms", type=int, default=5)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--count", type=int, default=-1)
    parser.add_argument("--lie", action="store_true")
    trio.run(main, parser.parse_args())
