"""Which module may import which: read from the sources with ``ast`` and enforced.

Pure code imports no I/O, nothing imports upwards or in a circle, each third-party library is imported in one place. A
new module must have a place in the tables below, or the test fails.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("protocol", "broker", "bench")


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path
    return found


MODULES = modules()


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Every module, parsed: by the first test that asks, and once in a process."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(path: Path, name: str) -> Iterator[str]:
    """Absolute names of everything a module imports, inside functions and under ``TYPE_CHECKING`` too."""
    tree = trees()[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


LAZY_EXPORTS = ("broker", "protocol")
"""Packages that hand on names of modules above them, when they are first used; nothing imports them for that."""


@functools.cache
def all_imports() -> dict[str, list[str]]:
    return {name: sorted(set(imports(path, name))) for name, path in MODULES.items() if name not in LAZY_EXPORTS}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


LAYERS = [
    # The rows of the architecture, lowest first. A module imports rows below its own, and modules of its own folder;
    # two folders of one row do not import each other.
    ("protocol",),
    ("broker.core", "broker.config"),
    ("broker.ledger", "broker.engine"),
    ("broker.telemetry",),
    ("broker.net", "broker.auth", "broker.webhooks"),
    ("broker.rooms", "broker.users"),
    ("broker.operations",),
    ("broker.sessions", "broker.http"),
    ("broker.server",),
    ("broker.demo",),
    ("broker.cli",),
    ("bench",),
]


def row_and_folder(name: str) -> tuple[int, str]:
    """The row of a module in LAYERS, and the folder there that it belongs to."""
    for index, folders in enumerate(LAYERS):
        for folder in folders:
            if within(name, folder):
                return index, folder
    pytest.fail(f"{name} has no place in LAYERS")


def test_every_module_has_a_layer_and_imports_only_downwards() -> None:
    wrong = []
    for name, targets in all_imports().items():
        row, folder = row_and_folder(name)
        for target in targets:
            if within(target, *PACKAGES) and target != "broker":
                target_row, target_folder = row_and_folder(target)
                if target_row > row or (target_row == row and target_folder != folder):
                    wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_the_top_of_the_broker_shows_at_most_17_entries_of_code() -> None:
    top = [
        entry.name
        for entry in (ROOT / "broker").iterdir()
        if entry.suffix == ".py" or (entry.is_dir() and any(entry.glob("*.py")))
    ]
    assert len(top) <= 17, sorted(top)


def test_there_are_no_import_cycles() -> None:
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if state.get(name) == 2:
            return
        assert state.get(name) != 1, "cycle: " + " -> ".join((*path[path.index(name) :], name))
        state[name] = 1
        for target in all_imports()[name]:
            if target in all_imports() and target != name:
                visit(target, (*path, name))
        state[name] = 2

    for name in all_imports():
        visit(name, ())


PURE_STANDARD_LIBRARY = {
    "__future__", "abc", "array", "binascii", "bisect", "collections", "contextvars", "dataclasses", "enum",
    "functools", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "json", "math", "operator", "random", "re",
    "string", "struct", "types", "typing", "unicodedata", "zlib",
}  # fmt: skip


def test_pure_code_imports_no_io() -> None:
    wrong = []
    for name, targets in all_imports().items():
        if within(name, "broker.core"):
            allowed_packages: tuple[str, ...] = ("broker.core", "protocol")
            allowed_libraries: set[str] = {"ahocorasick_rs"}
        elif within(name, "protocol") and not within(name, "protocol.clients", "protocol.backend", "protocol.vectors"):
            allowed_packages = ("protocol",)
            allowed_libraries = {"msgpack", "lz4", "regex", "py_ecc"}
        else:
            continue
        for target in targets:
            top = target.partition(".")[0]
            if within(target, *allowed_packages) or top in PURE_STANDARD_LIBRARY | allowed_libraries:
                continue
            wrong.append(f"{name} imports {target}")
        if within(name, "broker.core"):
            wrong += [
                f"{name} imports {target}"
                for target in targets
                if within(target, "protocol.clients", "protocol.backend")
            ]
    assert wrong == []


DOORS = {
    # Third-party library: the only modules that may import it.
    "wsproto": ("broker.net.websocket", "protocol.clients"),
    "jwt": ("broker.auth.jws",),
    "msgspec": (
        "broker.config.engine",
        "broker.config.pages",
        "broker.config.privacy",
        "broker.auth.jws",
        "broker.config.moderation",
        "broker.config.schema",
        "broker.config.sections",
        "broker.config.tenants",
        "broker.config.webhooks",
        "broker.config.loader",
        "bench",
    ),
    "httpx": ("broker.auth.jwks", "protocol.backend"),
    "ahocorasick_rs": ("broker.core.moderation.words", "bench"),
    "anyio": ("protocol.backend",),
    "cryptography": ("broker.auth.keys", "broker.ledger.encryption"),
    "regex": ("protocol.text",),
    "lz4": ("protocol.compression", "bench"),
    "py_ecc": ("protocol.lottery.drand",),
    "msgpack": ("protocol.frames", "protocol.connection", "bench"),
    "trio_websocket": ("protocol.clients",),
    "h11": ("broker.http.connection", "broker.webhooks.connection", "bench"),
    "starlette": ("broker.http",),
    "click": ("broker.cli.main", "broker.cli", "bench"),
    "rich": ("broker.cli.main", "broker.cli", "broker.demo", "bench"),
    "hdrh": ("bench",),
    "matplotlib": ("bench",),
    "numpy": ("bench",),
    "psutil": ("bench",),
    "websockets": ("bench",),
    "brotli": ("bench",),
    "hiredis": (
        "broker.engine.link",
        "broker.engine.connecting",
        "broker.engine.redis",
        "broker.engine.probe",
        "bench",
    ),
}


def test_each_library_is_imported_in_one_place() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, targets in all_imports().items()
        for target in targets
        for library in [target.partition(".")[0]]
        if library in DOORS and not within(name, *DOORS[library])
    ]
    assert wrong == []


def test_only_known_libraries_are_used() -> None:
    known = set(DOORS) | {"trio", "structlog", "_typeshed"} | set(PACKAGES) | set(sys.stdlib_module_names)
    wrong = [
        f"{name} imports {target}"
        for name, targets in all_imports().items()
        for target in targets
        if target.partition(".")[0] not in known
    ]
    assert wrong == []


def test_a_room_never_knows_sessions() -> None:
    assert not [
        t
        for t in all_imports()["broker.rooms.room"]
        if within(t, "broker.sessions.session", "broker.rooms.hub", "broker.server")
    ]


def test_public_class_names_are_unique_in_broker_and_protocol() -> None:
    found: dict[str, list[str]] = {}
    for name, tree in trees().items():
        if within(name, "broker", "protocol"):
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found.setdefault(node.name, []).append(name)
    twice = {name: places for name, places in found.items() if len(places) > 1}
    assert twice == {}


def test_no_module_is_longer_than_600_lines() -> None:
    """But for what is generated, which grows with the table of operations and is not edited."""
    lengths = {
        name: text.count("\n")
        for name, path in MODULES.items()
        for text in [path.read_text(encoding="utf-8")]
        if "generated by ``python .ci/client.py``, not edited" not in text.partition("\n")[0]
    }
    assert {name: lines for name, lines in lengths.items() if lines > 600} == {}


def test_every_module_says_what_it_decides() -> None:
    assert [name for name, tree in trees().items() if not ast.get_docstring(tree)] == []
