"""``python -m bench``: the same as ``roomcast bench``."""

from bench.cli import bench

bench(prog_name="python -m bench")
