"""Clients of the roomcast protocol."""
