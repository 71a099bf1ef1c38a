"""Other servers on the same machine, with the same viewers, the same messages and the same receiver."""

COMPARATORS = ("websockets", "redis", "nchan")
"""What ``--against`` knows; each is used when it is installed and named as absent when not."""
