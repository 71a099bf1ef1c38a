"""Options of the commands that read one room out of a ledger, and the ledger that they select."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from broker.cli.config import UserPath
from broker.cli.ledger import copy_option, data_options, keys_of, opened
from broker.ledger import Reader

__all__ = ["LedgerSource", "source_options"]

F = TypeVar("F", bound=Callable[..., Any])  # Any: click commands have every signature.


class LedgerSource(NamedTuple):
    """The ledger that the options of a command select; ``key_file``: what it is encrypted with."""

    config_path: Path | None
    settings: tuple[str, ...]
    data_dir: Path | None
    copy: Path | None
    key_file: Path | None

    def opened(self) -> AbstractContextManager[Reader]:
        """Return a context of one moment of the ledger; ClickException, in one line, if it is refused."""
        is_configured = self.data_dir is None and self.copy is None
        keys = keys_of(self.config_path, self.settings, self.key_file, is_configured=is_configured)
        return opened(self.config_path, self.settings, self.data_dir, self.copy, keys)


def source_options(command: F) -> F:
    """Add the options that select a ledger; the command gets them as ``source``."""

    @functools.wraps(command)
    def with_source(**options: Any) -> Any:
        source = LedgerSource(*(options.pop(name) for name in LedgerSource._fields))
        return command(source=source, **options)

    option = click.option(
        "--ledger-key-file", "key_file", type=UserPath(dir_okay=False),
        help="Keys of an encrypted ledger (ledger.key_file).",
    )  # fmt: skip
    return data_options(copy_option(option(with_source)))  # type: ignore[return-value]  # it takes other arguments
