"""Rules of the suite itself: what test modules import, and which private names they reach."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.integration import require_marker

TESTS = Path(__file__).parent


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Every module of the suite, parsed: by the first test that asks, and once in a process."""
    return {
        str(path.relative_to(TESTS)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(TESTS.rglob("*.py"))
    }


def imported(tree: ast.AST) -> set[str]:
    """Absolute names of the modules, and of the names in them, that a module imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "tests use absolute imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_no_module_imports_from_a_test_module() -> None:
    """What two modules need is in ``tests/support``."""
    found = {
        path: [name for name in imported(tree) if any(part.startswith("test_") for part in name.split(".")[:-1])]
        for path, tree in trees().items()
    }
    assert {path: names for path, names in found.items() if names} == {}


def test_the_support_modules_hold_no_tests() -> None:
    for path, tree in trees().items():
        if path.startswith("support/"):
            assert [
                node.name
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            ] == [], path


def test_only_the_support_modules_build_a_broker() -> None:
    """They require the marker ``integration``; the simulation's broker has no sockets."""
    found = {
        path
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Broker"
    }
    assert {path for path in found if not path.startswith(("support/", "simulation/"))} <= {
        "test_server.py",  # it builds brokers and runs none
        "operations/test_table.py",  # likewise
    }


def test_a_stream_is_closed_by_the_block_that_opened_it() -> None:
    """A test that is cancelled or fails closes its streams: one left open is an error of the test that runs next."""

    def opens(node: ast.AST) -> bool:
        match node:
            case ast.Await(ast.Call(ast.Attribute(ast.Name("trio"), "open_tcp_stream"))):
                return True
        return False

    for path, tree in trees().items():
        blocks = [
            each
            for node in ast.walk(tree)
            for each in (
                [item.context_expr for item in node.items]
                if isinstance(node, ast.AsyncWith)
                else node.args
                if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "enter_async_context"
                else []
            )
        ]
        found = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Await) and opens(node)]
        assert sorted(found) == sorted(each.lineno for each in blocks if opens(each)), path


@pytest.mark.parametrize("start", [lambda: subprocess.run(["true"], check=True), lambda: require_marker("a broker")])
def test_a_test_without_the_marker_cannot_start_a_process_or_a_broker(start: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="integration"):
        start()


NAMED_TUPLE = {"_make", "_replace", "_asdict", "_fields", "_field_defaults"}
"""Public in spite of their underscore."""

EXCEPTIONS = {
    # What still reaches into the code under test, by file; a row leaves with its reason, none comes.
    "cli/test_serve.py": {"_open", "_serve"},  # a signal in the middle of the start
    "protocol/clients/test_inbox.py": {"_lossy", "_missed_chat", "_reliable"},  # invariants of a state machine
    "protocol/clients/test_memberships.py": {"_by_number", "_pending"},  # invariants of a state machine
    "simulation/disk.py": {"_connection"},  # the reader's connection to a disk that fails
    "simulation/world.py": {"_ALLOW_DETERMINISTIC_SCHEDULING", "_r"},  # the scheduler of Trio
}


def private_names(tree: ast.AST) -> set[str]:
    """Private attributes of anything but ``self``, ``cls`` and ``super()``, and private names that are imported."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            owner = node.value
            if isinstance(owner, ast.Name) and owner.id in ("self", "cls"):
                continue
            if isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super":
                continue
            found.add(node.attr)
    return {name for name in found if name.startswith("_") and not name.endswith("__")} - NAMED_TUPLE


def test_tests_reach_no_private_name_but_those_listed() -> None:
    found = {path: private_names(tree) for path, tree in trees().items()}
    assert {path: names for path, names in found.items() if names} == EXCEPTIONS


def test_no_connection_to_a_database_is_left_open() -> None:
    """``with sqlite3.connect(...)`` ends a transaction, not the connection: the garbage collector reports it later."""
    found = {
        path
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.context_expr, ast.Call) and ast.unparse(item.context_expr.func) == "sqlite3.connect"
    }
    assert found == set()


def test_no_page_waits_for_an_expression_that_its_policy_forbids() -> None:
    """``wait_for_function`` with a text passes where it is true at once, and fails where it has to wait."""
    found = {
        path
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "wait_for_function"
    }
    assert found == set()
