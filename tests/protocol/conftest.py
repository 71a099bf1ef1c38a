"""Settings of the property tests."""

from __future__ import annotations

from hypothesis import settings

# Machines that run the tests are shared: an example that takes long says nothing about the code.
settings.register_profile("protocol", deadline=None)
settings.load_profile("protocol")
