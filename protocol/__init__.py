"""The roomcast wire protocol: usable with no broker installed."""
