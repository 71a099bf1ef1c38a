"""Decisions about paid events."""
