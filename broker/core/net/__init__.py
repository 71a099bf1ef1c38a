"""Decisions about connections: admission, queues of slow viewers, PROXY headers."""
