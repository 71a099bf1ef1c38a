"""What the project claims to run on: the lowest versions that .ci/run installs, and the versions of Python."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
]
SCRIPT = ROOT / ".ci" / "lowest.py"


def script(pyproject: Path) -> subprocess.CompletedProcess[str]:
    """The script as .ci/run calls it, on another project's file."""
    return subprocess.run(
        [sys.executable, SCRIPT, pyproject], capture_output=True, encoding="utf-8", timeout=60, check=False
    )


def lower_bound(requirement: Requirement) -> Version:
    (bound,) = (Version(part.version) for part in requirement.specifier if part.operator == ">=")
    return bound


@pytest.mark.integration
def test_the_script_prints_the_lower_bound_of_every_dependency() -> None:
    done = script(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stderr
    printed = [Requirement(line) for line in done.stdout.splitlines()]
    assert {canonicalize_name(one.name): Version(str(one.specifier).removeprefix("==")) for one in printed} == {
        canonicalize_name(one.name): lower_bound(one) for one in REQUIREMENTS if one.name != PROJECT["name"]
    }
    assert all(str(one.specifier).startswith("==") for one in printed)


@pytest.mark.integration
@pytest.mark.parametrize("requirement", ["trio", "trio<1", "trio==0.30", "trio>0.30", "trio>=0.30,>=0.31"])
def test_the_script_refuses_a_dependency_without_one_lower_bound(tmp_path: Path, requirement: str) -> None:
    other = tmp_path / "pyproject.toml"
    other.write_text(f'[project]\nname = "other"\ndependencies = ["{requirement}"]\n', encoding="utf-8")
    done = script(other)
    assert done.returncode != 0
    assert repr(requirement) in done.stderr
    assert done.stdout == ""


def test_a_dependency_has_one_lower_bound_wherever_it_is_named() -> None:
    bounds: dict[str, set[Version]] = {}
    for one in REQUIREMENTS:
        if one.name != PROJECT["name"]:
            bounds.setdefault(canonicalize_name(one.name), set()).add(lower_bound(one))
    assert {name for name, found in bounds.items() if len(found) > 1} == set()


def test_the_readme_and_the_classifiers_name_the_same_versions_of_python() -> None:
    prefix = "Programming Language :: Python :: "
    named = [text.removeprefix(prefix) for text in PROJECT["classifiers"] if text.startswith(prefix)]
    assert named == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert f"Python {named[0]} to {named[-1]}" in (ROOT / "README.md").read_text(encoding="utf-8")
