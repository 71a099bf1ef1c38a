"""Nodes, the pure part: which of several processes owns a room, what it may do, and what travels between them."""
