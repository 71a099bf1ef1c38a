"""``roomcast``: the table of commands, and nothing that is slow to import.

A command is one row of `COMMANDS`: its module and one line of help. The module is imported only when the command
runs, so ``roomcast --help`` needs click alone. This module must not import Trio, rich or a part of the broker.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from typing import Any, NamedTuple

import click

__all__ = ["COMMANDS", "LazyCommand", "LazyGroup", "main"]


class LazyCommand(NamedTuple):
    """Row of the table: ``target`` is ``module:attribute``; ``needs``: a sentence that says how to
    install its optional packages."""

    target: str
    summary: str
    needs: str = ""


INSTALL_BENCH = "In a clone: pip install -e '.[bench]'"

COMMANDS: dict[str, LazyCommand] = {
    "serve": LazyCommand("broker.cli.serve:serve", "Run the broker."),
    "demo": LazyCommand("broker.cli.demo:demo", "Run a broker with a busy room of simulated viewers."),
    "tail": LazyCommand("broker.cli.tail:tail", "Watch a room in the terminal."),
    "say": LazyCommand("broker.cli.say:say", "Post messages to a room."),
    "direct": LazyCommand("broker.cli.direct:direct", "Send users messages that must arrive."),
    "token": LazyCommand("broker.cli.token:token", "Make a token for a user."),
    "call": LazyCommand("broker.cli.call:call", "Call an operation of the control API."),
    "webhooks": LazyCommand("broker.cli.webhooks:webhooks", "List, test, retry or drop what webhooks deliver."),
    "listen-webhooks": LazyCommand("broker.cli.listen_webhooks:listen_webhooks", "Receive webhooks here, for trying."),
    "key": LazyCommand("broker.cli.key:key", "Make keys for the control API."),
    "ledger": LazyCommand("broker.cli.ledger:ledger", "Verify, export, replay or copy the ledger."),
    "report": LazyCommand("broker.cli.report:report", "Report of a show: JSON, and a page for the browser."),
    "export": LazyCommand("broker.cli.export:export", "What happened in a room as NDJSON, resumable."),
    "replay": LazyCommand("broker.cli.replay:replay", "State of a room at any moment of its past."),
    "train-dictionary": LazyCommand(
        "broker.cli.train_dictionary:train_dictionary", "Make a dictionary for ticks of the texts of your rooms."
    ),
    "audit": LazyCommand("broker.cli.audit:audit", "Who has changed what: verify, export, head of the chain."),
    "lottery": LazyCommand("broker.cli.lottery:lottery", "Verify the proof of a lottery."),
    "check-config": LazyCommand("broker.cli.config:check_config", "Report every error in a configuration file."),
    "print-config": LazyCommand("broker.cli.config:print_config", "Print the settings, explained, as TOML."),
    "doctor": LazyCommand("broker.cli.doctor:doctor", "Check this machine: limits, ports, clock, optional parts."),
    "bench": LazyCommand("bench.cli:bench", "Measure a broker.", INSTALL_BENCH),
}


class LazyGroup(click.Group):
    """Click group whose commands are imported when they are called; help texts come from the table."""

    def __init__(self, *args: Any, lazy: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        # Any: click's own parameters, passed through.
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, then those added with `add_command`."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; ClickException with what to install if a module is missing."""
        row = self._lazy.get(cmd_name)
        if row is None:
            return super().get_command(ctx, cmd_name)
        module_name, _, attribute = row.target.partition(":")
        try:
            command = getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            raise click.ClickException(_missing(cmd_name, row, module_name, error.name or "?")) from error
        assert isinstance(command, click.Command), row.target
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing anything."""
        rows = [(name, row.summary) for name, row in self._lazy.items()]
        rows += [(name, command.get_short_help_str()) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _missing(name: str, row: LazyCommand, module_name: str, missing: str) -> str:
    if module_name == missing or module_name.startswith(f"{missing}."):
        return f"{name} is not part of this installation (no module {missing})."
    text = f"{name} needs the package {missing}, which is not installed."
    return f"{text} {row.needs}" if row.needs else text


def _print_version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from broker.cli.version import version_text

        click.echo(version_text())
        context.exit()


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version, in a clone with its commit, and exit.",
)
def main() -> None:
    """A live-room message broker: danmaku, likes, gifts and control messages for live streams.

    `roomcast serve` needs no configuration to be tried on this machine; `roomcast demo` runs a broker with viewers.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
