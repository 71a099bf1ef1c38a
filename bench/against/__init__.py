"""Other servers on the same machine, with the same viewers, the same messages and the same receiver."""

COMPARATORS = ("websockets", "redis", "nats", "nchan", "centrifugo")
"""Servers for ``--against``; one that is not installed is reported as absent."""
