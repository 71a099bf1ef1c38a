"""Table of the micro benches, and the command that runs each in a fresh process, with JSON on its standard output."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from inspect import iscoroutinefunction
from typing import Any, cast

from bench.micro.result import Result, machine, table
from broker.cli.main import INSTALL_BENCH

__all__ = ["BENCHES", "main", "run"]

BENCHES: dict[str, tuple[str, str, str]] = {
    "fanout-tcp": ("fanout", "fanout_tcp", "CPU of a frame delivered over TCP, against the bare send loop"),
    "fanout-ws": ("fanout", "fanout_ws", "the same over WebSocket"),
    "inbound": ("inbound", "inbound", "danmaku received by one core, one a read and pipelined"),
    "calls": ("calls", "calls", "calls of a pure read answered by one core, one a read and pipelined"),
    "claims": ("calls", "claims", "claims of a sale that has nothing left, refused from memory by one core"),
    "api": ("api", "api", "messages published over HTTP by one core, one and 1,000 a request"),
    "memory-tcp": ("memory", "memory_tcp", "memory of an idle TCP viewer"),
    "memory-ws": ("memory", "memory_ws", "memory of an idle WebSocket viewer"),
    "connect-tcp": ("connect", "connect_tcp", "connect + auth + join over TCP"),
    "connect-ws": ("connect", "connect_ws", "connect + auth + join over WebSocket"),
    "batched": ("batched", "batched", "danmaku delivered by one core when ticks join them, and their p99"),
    "stalled": ("stalled", "stalled", "latency of healthy viewers beside a stalled one"),
    "metrics": ("scrape", "metrics", "loop time of a scrape of /metrics with 5,000 rooms, and its longest step"),
    "core": ("core", "core", "codec, window, limits and queue, one by one"),
    "egress": ("egress", "egress", "bytes of a shown danmaku and of a gift by codec, beside JSON, gzip and brotli"),
    "words": ("words", "words", "a message searched for 50,000 words and by the detectors of moderation"),
    "reload": ("reload", "reload", "how long a reload of 50,000 words holds the event loop"),
    "sanctions": ("sanctions", "sanctions", "a mute and a ban in a room of 100,000 viewers, until they hold"),
    "desk": ("desk", "desk", "a conversation of the service desk assigned to an agent, with 5,000 waiting"),
    "conversations": ("conversations", "conversations", "messages one-to-one and to a group, and a list of 200"),
    "report": (
        "report",
        "report",
        "the report of a two-hour show with a million entries of the ledger, and its memory",
    ),
    "soak": ("soak", "soak", "memory while viewers join, post and leave (10 minutes)"),
    "webhooks": ("webhooks", "webhooks", "events a second delivered in order to a local receiver"),
    "gifts": ("gifts", "gifts", "CPU of a durable gift through the whole broker, by thread"),
    "engine": ("engine", "engine", "appends, facts and ticks over a real Redis, beside bare hiredis"),
    "nodes": ("nodes", "nodes", "CPU of a delivery by one process and by two that share a room over Redis"),
    "ledger": ("ledger", "ledger", "durable events a second with fsync, beside the disk's own rate of syncs"),
}
"""Name -> (module, function, what it measures). Modules are imported by the process that runs them."""
TIMEOUT_S = 900.0


def run(names: Sequence[str] = (), smoke: bool = False) -> list[Result]:
    """Run benches by name (none given: all but the soak), each in its own process; returns their results.

    RuntimeError naming the bench if one fails or has wrong totals. ValueError for an unknown name.
    """
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        raise ValueError(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    results: list[Result] = []
    for name in names or [name for name in BENCHES if name != "soak"]:
        command = [sys.executable, "-m", "bench.micro", "--inside", name, *(["--smoke"] if smoke else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
        if done.returncode:
            raise RuntimeError(f"bench {name} failed")
        results += [_result(row) for row in json.loads(done.stdout)]
    return results


def _result(row: dict[str, Any]) -> Result:
    row.pop("ratio"), row.pop("met")
    return Result(**row)


def _inside(name: str, smoke: bool) -> int:
    """Run one bench in this process and print its results as JSON."""
    module, function, _ = BENCHES[name]
    try:
        bench = getattr(importlib.import_module(f"bench.micro.{module}"), function)
        if iscoroutinefunction(bench):
            import trio

            results = trio.run(cast(Callable[[bool], Awaitable[list[Result]]], bench), smoke)
        else:
            results = bench(smoke)
    except ModuleNotFoundError as error:
        print(f"bench {name} needs the package {error.name}. {INSTALL_BENCH}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    json.dump([result.as_json() for result in results], sys.stdout)
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run benches and print the table, or JSON. Exits with 1 if one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.micro",
        description="Micro benches: " + "; ".join(f"{name}: {what}" for name, (_, _, what) in BENCHES.items()) + ".",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHES)}; all but soak if none")
    parser.add_argument("--smoke", action="store_true", help="small sizes that only show that they work")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--inside", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        sys.exit(_inside(options.inside, options.smoke))
    facts = machine()
    if not options.json:
        print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    try:
        results = run(options.names, options.smoke)
    except (RuntimeError, ValueError) as error:
        sys.exit(f"{error}")
    if options.json:
        print(json.dumps({"machine": facts, "smoke": options.smoke, "results": [each.as_json() for each in results]}))
    else:
        print(table(results))
