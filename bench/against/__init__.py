"""Other servers on the same machine, with the same viewers, the same messages and the same receiver."""

COMPARATORS = ("websockets", "redis", "nchan")
"""Servers for ``--against``; one that is not installed is reported as absent."""
