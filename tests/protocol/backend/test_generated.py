"""What `.ci/client.py` writes is what is checked in: methods of the backend's client, and the reference pages."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from protocol.activities import ACTIVITY_EVENTS, REPORTS, VIEWS
from protocol.backend import AsyncBackend, Backend
from protocol.operations import OPERATIONS

ROOT = Path(__file__).parents[3]
OPTIONS = ("idempotency_key", "dry_run")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("client_generator", ROOT / ".ci" / "client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.integration
def test_the_methods_are_those_of_the_table(generator: ModuleType) -> None:
    folder = ROOT / "protocol" / "backend"
    written = {
        str(path.relative_to(folder)): path for path in (folder / "operations.py", *folder.glob("subjects/*.py"))
    }
    made = generator.backend_modules()
    assert written.keys() == made.keys(), "run python .ci/client.py"
    for name, path in written.items():
        assert path.read_text(encoding="utf-8") == made[name], "run python .ci/client.py"


@pytest.mark.integration
def test_the_types_of_calls_are_those_of_the_table(generator: ModuleType) -> None:
    text = (ROOT / "protocol" / "clients" / "typed_calls.py").read_text(encoding="utf-8")
    assert text == generator.calls_module(), "run python .ci/client.py"


def test_the_reference_page_is_that_of_the_docstrings(generator: ModuleType) -> None:
    text = (ROOT / "broker" / "guides" / "python-reference.md").read_text(encoding="utf-8")
    assert text == generator.reference_page(), "run python .ci/client.py"
    for row in OPERATIONS:
        assert f"\n`{row.name}(" in text


def test_the_page_of_activity_events_is_that_of_the_tables(generator: ModuleType) -> None:
    text = (ROOT / "broker" / "guides" / "activity-events.md").read_text(encoding="utf-8")
    assert text == generator.events_page(), "run python .ci/client.py"
    for name in (*(row.name for row in ACTIVITY_EVENTS), *(row.type for row in REPORTS), *(row.kind for row in VIEWS)):
        assert f"\n| `{name}` |" in text


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
def test_every_operation_is_a_method_with_the_fields_of_its_request(row: object) -> None:
    for backend in (Backend("http://127.0.0.1:1"), AsyncBackend("http://127.0.0.1:1")):
        subject, _, verb = row.name.partition(".")  # type: ignore[attr-defined]
        method = getattr(getattr(backend, subject), verb)
        names = [name for name in inspect.signature(method).parameters if name not in OPTIONS]
        assert tuple(names) == row.request._fields  # type: ignore[attr-defined]
        assert inspect.iscoroutinefunction(method) is isinstance(backend, AsyncBackend)
