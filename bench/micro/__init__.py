"""Micro benches: one for each hot path, seconds each, every figure beside the floor of the same run.

``python -m bench.micro`` runs them all, ``python -m bench.micro fanout-tcp inbound`` some, ``--smoke`` all in small
sizes that only show that they work. Each runs in a process of its own, so that none measures the heap of another.
"""

from bench.micro.run import BENCHES, main, run

__all__ = ["BENCHES", "main", "run"]
