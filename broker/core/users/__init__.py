"""Decisions about users: revoked tokens."""
