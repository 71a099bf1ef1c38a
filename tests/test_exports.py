"""The packages' public names: they are there, and importing a part does not import everything."""

from __future__ import annotations

import subprocess
import sys

import pytest

import broker
import protocol


@pytest.mark.parametrize("package", [broker, protocol])
def test_every_exported_name_is_there(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert [name for name in names if getattr(package, name).__name__ != name] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.integration
@pytest.mark.parametrize("part", ["protocol.connection", "broker.core.rooms.state"])
def test_importing_pure_code_imports_neither_trio_nor_the_broker(part: str) -> None:
    code = f"import sys, {part}; print([name for name in ('trio', 'broker.server') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
