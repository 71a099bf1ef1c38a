"""Micro benches of the hot paths, each with the raw-socket floor of its own run."""
