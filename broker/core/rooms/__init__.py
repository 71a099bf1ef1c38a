"""Decisions about one room: its state, stream, history, counters and policies."""
