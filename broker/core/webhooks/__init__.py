"""Webhooks, the pure part: when a delivery is tried again, whether an endpoint is tried at all, and in which order."""
