"""Micro benches: one per hot path, seconds each, every figure beside the floor of the same run.

``python -m bench.micro`` runs them all, ``python -m bench.micro fanout-tcp inbound`` some, ``--smoke`` small ones
that only show that they work. Each runs in a process of its own, so that none measures another's heap.
"""

from bench.micro.run import BENCHES, main, run

__all__ = ["BENCHES", "main", "run"]
