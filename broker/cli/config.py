"""``roomcast check-config`` and ``print-config``, and the options with which every command finds its settings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from broker.config.engine import url_has_password
from broker.config.files import user_path
from broker.config.schema import ENV_PREFIX, SECRET_SETTINGS, Config, ConfigError, EngineConfig, load, to_toml
from broker.config.sections import POLICY_FIELDS

if TYPE_CHECKING:
    from broker.engine.probe import ServerFinding

__all__ = [
    "ConfigProblems",
    "UserPath",
    "check_config",
    "config_options",
    "engine_findings",
    "load_or_fail",
    "policy_values",
    "print_config",
    "secret_on_command_line",
]

F = TypeVar("F", bound=Callable[..., Any])  # Any: click commands have every signature.


class UserPath(click.Path):
    """Path on the command line; ``~`` at its beginning is the home directory, also where the shell has left it."""

    def __init__(self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a Path. Any: click passes what the user typed, or a default."""
        return super().convert(user_path(value), param, ctx)


_FILE = UserPath(dir_okay=False)


class ConfigProblems(click.ClickException):
    """Error that ends the command with exit status 1 and one line per problem."""

    def __init__(self, error: ConfigError) -> None:
        super().__init__(str(error))
        self.problems = error.problems

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the problems to ``file`` (standard error)."""
        for problem in self.problems:
            click.echo(problem, file=file, err=file is None)


def config_options(command: F) -> F:
    """Add ``--config FILE`` (or ROOMCAST_CONFIG) and ``--set KEY=VALUE``: ``config_path`` and ``settings``."""
    command = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one setting, as in --set listen.port=7000; may be repeated.",
    )(command)
    return click.option(
        "--config",
        "config_path",
        type=_FILE,
        envvar="ROOMCAST_CONFIG",
        help="TOML file with the settings (or ROOMCAST_CONFIG).",
    )(command)


def secret_on_command_line(option: str, section: str = "auth") -> click.UsageError:
    """Return the error for ``option`` with a secret: the list of processes and the shell's history show it."""
    ways = f"--set auth.secret_file=FILE, or --secret-file FILE), or set {ENV_PREFIX}AUTH__SECRET"
    if section == "engine":
        ways = f"--set engine.password_file=FILE), or set {ENV_PREFIX}ENGINE__PASSWORD"
    return click.UsageError(
        f"{option}: every user of this machine can see a secret on a command line. Put it in a file of mode 600 and"
        f" name that ({ways}"
    )


def load_or_fail(
    config_path: Path | None,
    settings: Sequence[str] = (),
    flags: dict[str, Any] | None = None,
    origins: dict[str, str] | None = None,
) -> Config:
    """Return the settings from the file, the environment, ``--set`` and then ``flags`` (dotted keys, None = not given).

    ``origins``: see `broker.config.schema.load`.

    Raises `ConfigProblems` or `click.UsageError` if they are wrong; callers let them propagate, click prints them.
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise click.UsageError(f"--set takes KEY=VALUE, got {setting!r}")
        if key.strip() in SECRET_SETTINGS or (key.strip() == "engine.url" and url_has_password(value)):
            raise secret_on_command_line(f"--set {key.strip()}", key.strip().partition(".")[0])
        overrides[key.strip()] = value
    overrides.update({key: value for key, value in (flags or {}).items() if value is not None})
    try:
        return load(config_path, os.environ, overrides, origins)
    except ConfigError as error:
        raise ConfigProblems(error) from error


@click.command("check-config")
@click.argument("file", type=_FILE, required=False, envvar="ROOMCAST_CONFIG")
@click.option("--connect", is_flag=True, help="Try the server of engine.url too.")
def check_config(file: Path | None, connect: bool) -> None:
    """Read FILE and the environment and report every error; exit status 1 if there is one."""
    config = load_or_fail(file)
    if config.auth.keys_file is not None:
        from broker.auth.keys import KeyProblem, read_public_keys  # only a file of keys needs the library

        try:
            read_public_keys(config.auth.keys_file)
        except KeyProblem as problem:
            raise ConfigProblems(ConfigError([f"auth.keys_file: {problem}"])) from problem
    if connect and config.engine.url is not None:
        found = engine_findings(config.engine)
        if wrong := [f"{each.name}: {each.detail}: {each.remedy}" for each in found if each.prevents]:
            raise ConfigProblems(ConfigError(wrong))
        for each in found:
            click.echo(f"{each.name}: {each.detail}" + (f" ({each.remedy})" if each.remedy else ""))
    mode = "development mode, loopback only" if config.development else "tokens are checked"
    click.echo(f"ok: {file or 'defaults and environment'} ({config.listen.host}:{config.listen.port}, {mode})")


def engine_findings(config: EngineConfig) -> list[ServerFinding]:
    """Look at the server of the engine, which is set; return what was found."""
    import trio

    from broker.engine.configured import redis_settings  # only a broker with an engine needs the library
    from broker.engine.probe import ServerFinding, probe_server

    try:
        settings = redis_settings(config)
        return trio.run(probe_server, settings)
    except OSError as error:  # files of certificates
        return [
            ServerFinding("engine", f"{config.url}: {error}", "correct engine.tls_ca_file, engine.tls_cert_file", True)
        ]


@click.command("print-config")
@config_options
@click.option("--defaults", is_flag=True, help="Print the defaults and ignore the file and the environment.")
@click.option("--comments/--no-comments", default=True, help="Explain every setting.")
def print_config(config_path: Path | None, settings: tuple[str, ...], defaults: bool, comments: bool) -> None:
    """Print the settings in force as a TOML file, with what the policy sets as comments; secrets are left out."""
    config = Config() if defaults else load_or_fail(config_path, settings)
    click.echo(to_toml(config, comments, policy_values(config)), nl=False)


def policy_values(config: Config) -> dict[str, str]:
    """Return what is in force for each setting that is left to the policy, by dotted name."""
    from broker.core.rooms.policies import value_in_force
    from broker.rooms.configured import policy_of  # imports rooms, which no other command here needs

    policy, found = policy_of(config), {}
    for name in POLICY_FIELDS:
        value = value_in_force(policy, name)
        shown = "no limit" if value is None else json.dumps(value)
        found[f"room.{name}"] = f"{shown} (policy {config.room.policy})"
    return found
