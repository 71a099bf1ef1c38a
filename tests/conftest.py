"""Settings of the whole suite."""

from __future__ import annotations

from hypothesis import settings

# Machines that run the tests are shared: an example that takes long says nothing about the code.
settings.register_profile("roomcast", deadline=None)
settings.load_profile("roomcast")
