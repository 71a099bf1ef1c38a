"""``python -m tests.sim SEED...``: run these worlds again; ``python -m tests.sim FIRST-LAST`` a range of them.

Prints one line a seed with the hash of its log; ``--log`` prints the log. Exit status 1 if one failed.
"""

from __future__ import annotations

import os
import sys
import time
import traceback

if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts are part of the order of things
    os.execve(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"})

from tests.sim.show import simulate


def main(arguments: list[str]) -> int:
    failed = 0
    for argument in arguments:
        if argument == "--log":
            continue
        first, _, last = argument.partition("-")
        for seed in range(int(first), int(last or first) + 1):
            begun = time.perf_counter()
            try:
                world = simulate(seed)
            except BaseException:
                failed += 1
                traceback.print_exc()
                print(f"seed {seed} FAILED", flush=True)
            else:
                if "--log" in arguments:
                    print("\n".join(world.log))
                print(
                    f"seed {seed} {world.digest[:16]} {len(world.log)} lines {time.perf_counter() - begun:.2f} s",
                    flush=True,
                )
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
