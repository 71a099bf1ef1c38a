from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from broker.cli.main import COMMANDS, LazyCommand, LazyGroup, main
from broker.cli.version import commit_of


def group(lazy: Mapping[str, LazyCommand]) -> LazyGroup:
    return LazyGroup("top", lazy=lazy)


def test_help_names_every_command_and_imports_none() -> None:
    broken = group({"boom": LazyCommand("no.such.module:x", "Goes boom."), "b": LazyCommand("nor.this:x", "Second.")})
    result = CliRunner().invoke(broken, ["--help"])
    assert result.exit_code == 0
    assert "boom  Goes boom.\n  b     Second." in result.output


def test_the_real_help_lists_the_table() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name, row in COMMANDS.items():
        assert f"  {name} " in result.output
        assert row.summary in result.output


@pytest.mark.integration
def test_the_command_table_imports_nothing_slow() -> None:
    code = (
        "import sys, broker.cli; print([m for m in ('trio', 'rich', 'msgspec', 'jwt', 'msgpack') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["token", "check-config", "print-config", "doctor"])
def test_a_command_is_found_under_its_name(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert command.help


def test_a_missing_command_is_an_error_that_names_its_module() -> None:
    missing = group({"x": LazyCommand("broker.cli.no_such:x", ""), "y": LazyCommand("no_such_top.cli:y", "")})
    for name, module in (("x", "broker.cli.no_such"), ("y", "no_such_top")):
        result = CliRunner().invoke(missing, [name])
        assert result.exit_code == 1
        assert result.output == f"Error: {name} is not part of this installation (no module {module}).\n"


def test_a_missing_package_is_named_with_its_installation(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "needy_command.py").write_text("import no_such_package.inner\n")
    monkeypatch.syspath_prepend(str(folder))
    needy = group({"x": LazyCommand("needy_command:x", "", "In a clone: pip install -e '.[bench]'")})
    result = CliRunner().invoke(needy, ["x"])
    assert result.exit_code == 1
    assert result.output == (
        "Error: x needs the package no_such_package, which is not installed. In a clone: pip install -e '.[bench]'\n"
    )


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["srve"]).exit_code == 2


def test_commands_added_with_add_command_are_listed() -> None:
    both = group({"lazy": LazyCommand("x:y", "Lazy one.")})
    both.add_command(click.Command("plain", help="Plain one."))
    result = CliRunner().invoke(both, ["--help"])
    assert "lazy   Lazy one.\n  plain  Plain one." in result.output
    assert CliRunner().invoke(both, ["plain"]).exit_code == 0


@pytest.mark.integration
def test_the_version_is_reported() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.output.startswith("roomcast, version ")
    assert (result.exit_code, result.output.count("\n")) == (0, 1)


@pytest.mark.integration
def test_the_version_names_the_commit_in_a_clone_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "", "no clone"

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    assert commit_of(tmp_path) == "", "no commit yet"
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    git("tag", "v1")
    head = git("rev-parse", "HEAD")
    assert commit_of(tmp_path) == head[:12]
    (tmp_path / "file").write_text("two")
    assert commit_of(tmp_path) == head[:12] + "+"
