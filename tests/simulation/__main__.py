"""Run worlds of the simulation by their seeds.

A world is a whole broker, its disk, its network and some users with the project's own client, in virtual time; the
seed decides every delay, fault and crash (tests/simulation/faults.py lists them). The same seed gives the same world
and the same log, so a failing seed is a complete bug report.

    python -m tests.simulation 1000-1499        run these worlds; print each failure, then how often each event occurred
    python -m tests.simulation 1017             run one world; print the hash of its log
    python -m tests.simulation --log 1017       the same with its log: every fault, and what every client received

Exit status 1 if a world failed.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback
from collections import Counter

from tests.simulation.scenario import simulate


def seeds(text: str) -> range:
    """Parse ``7`` or ``1-500``."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(arguments: list[str]) -> int:
    """Run the worlds that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seeds", nargs="+", type=seeds, metavar="SEED|FIRST-LAST")
    parser.add_argument("--log", action="store_true", help="print the log of every world")
    options = parser.parse_args(arguments)
    numbers = [seed for some in options.seeds for seed in some]
    failed: list[int] = []
    happened: Counter[str] = Counter()
    started = time.perf_counter()
    gc.collect()
    gc.freeze()
    gc.disable()  # a tenth of the time; cycles are collected between worlds
    for count, seed in enumerate(numbers):
        if count % 20 == 0:
            gc.collect()
        try:
            world = simulate(seed)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failed.append(seed)
            traceback.print_exc()
            print(f"seed {seed} FAILED; again: python -m tests.simulation {seed}", flush=True)
        else:
            happened += world.happened
            if options.log:
                print("\n".join(world.log))
            if len(numbers) <= 20 or options.log:
                print(f"seed {seed} {world.digest[:16]} {len(world.log)} lines", flush=True)
    for what, times in sorted(happened.items()):
        print(f"{times:8} {what}")
    took_s = time.perf_counter() - started
    print(f"{len(numbers)} worlds, {len(failed)} failed, {took_s / len(numbers):.3f} s each")
    if failed:
        print("again: python -m tests.simulation", *failed)
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
