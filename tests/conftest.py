"""Settings of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

# Machines that run the tests are shared: an example that takes long says nothing about the code. On CI the same
# commit gets the same examples, so that a red run speaks about the change; elsewhere every run looks at new ones.
settings.register_profile("roomcast", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("roomcast")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command run inside the test process configures logging for it; the next test must not feel that."""
    yield
    structlog.reset_defaults()
