"""Packages of the extra ``bench``: which of them are missing, and the command that installs them."""

from __future__ import annotations

from importlib.util import find_spec

import click

from broker.cli.main import COMMANDS

__all__ = ["EXTRA_MODULES", "require_extra"]

EXTRA_MODULES = ("hdrh", "matplotlib", "numpy", "psutil")
"""Modules that every run imports."""


def require_extra(command: str) -> None:
    """Raise a ClickException that names what is missing and how to install it; ``command`` is what needs it."""
    missing = [name for name in EXTRA_MODULES if find_spec(name) is None]
    if missing:
        packages = f"the package{'s' * (len(missing) > 1)} {', '.join(missing)}"
        raise click.ClickException(f"{command} needs {packages}. {COMMANDS['bench'].needs}")
