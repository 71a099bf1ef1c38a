from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli.config import policy_values
from broker.cli.main import main
from broker.config.schema import Config, load, to_toml
from broker.config.sections import POLICY_FIELDS
from broker.core.rooms.policies import POLICIES, value_in_force
from tests.support.keys import key_pair, pem, private_pem

SECRET = "0123456789abcdef0123456789abcdef"


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.toml"
    path.write_text("[listen]\nport = 70000\nhots = 'x'\n[link]\nheartbeat_s = 60\n")
    return path


PROBLEMS = [
    "listen.port: expected int <= 65535, got 70000",
    "listen.hots: unknown key; did you mean listen.host?",
    "link.heartbeat_cut_s: expected more than 2 x link.heartbeat_s (120), got 75",
]


def test_check_config_prints_all_problems_and_fails(broken: Path) -> None:
    result = run("check-config", broken)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == PROBLEMS
    assert result.stdout == ""


def test_check_config_reads_the_file_of_the_environment(broken: Path) -> None:
    assert run("check-config", env={"ROOMCAST_CONFIG": str(broken)}).stderr.splitlines() == PROBLEMS


def test_check_config_prints_the_mode_of_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(f"[listen]\nhost = '0.0.0.0'\n[auth]\nsecret = '{SECRET}'\n")
    assert run("check-config", path).output == f"ok: {path} (0.0.0.0:7400, tokens are checked)\n"
    assert "development mode, loopback only" in run("check-config").output


def test_check_config_names_what_is_wrong_with_a_file_of_keys(tmp_path: Path) -> None:
    path, keys = tmp_path / "roomcast.toml", tmp_path / "keys"
    path.write_text(f"[auth]\nkeys_file = '{keys}'\n")
    assert run("check-config", path).stderr == f"auth.keys_file: cannot read {keys}: No such file or directory\n"
    keys.write_text(private_pem(key_pair("EdDSA")))
    result = run("check-config", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"auth.keys_file: {keys}: key 1: is a private key")
    keys.write_text(pem(key_pair("EdDSA")))
    assert "tokens are checked" in run("check-config", path).output


def test_check_config_names_a_missing_file(tmp_path: Path) -> None:
    result = run("check-config", tmp_path / "none.toml")
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path}/none.toml: cannot be read: No such file or directory\n"


def test_print_config_prints_what_load_reads(tmp_path: Path) -> None:
    for extra in ([], ["--no-comments"]):
        path = tmp_path / "printed.toml"
        path.write_text(
            run("print-config", "--set", "listen.port=7001", *extra, env={"ROOMCAST_ROOM__MERGE": "no"}).output
        )
        config = load(path)
        assert (config.listen.port, config.room.merge) == (7001, False)


def test_print_config_defaults_ignores_file_and_environment(broken: Path) -> None:
    result = run("print-config", "--defaults", "--config", broken, env={"ROOMCAST_NONSENSE": "1"})
    assert result.exit_code == 0
    assert result.output == to_toml(Config(), in_force=policy_values(Config()))


@pytest.mark.parametrize("policy", POLICIES)
def test_print_config_shows_the_value_in_force_of_each_setting_that_a_policy_sets(policy: str) -> None:
    output = run("print-config", "--set", f"room.policy={policy}").output
    for name in POLICY_FIELDS:
        (shown,) = re.findall(rf"^# {name} is not set: (.+) \(policy {policy}\)$", output, re.MULTILINE)
        value = value_in_force(POLICIES[policy], name)
        if name == "user_joins_burst" and value is not None:
            value = max(value, 2 * Config().link.rooms_per_connection)
        assert shown == ("no limit" if value is None else json.dumps(value))


def test_print_config_shows_what_follows_from_other_settings() -> None:
    output = run("print-config", "--set", "room.admit_per_window=80", "--set", "link.rooms_per_connection=40").output
    assert "admit_per_window = 80\n" in output
    assert "# reserved is not set: 16 (policy roomcast)\n" in output
    assert "# user_joins_burst is not set: 80 (policy roomcast)\n" in output


def test_print_config_fails_on_settings_that_are_wrong(broken: Path) -> None:
    result = run("print-config", "--config", broken, "--set", "queue.frames=0")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        *PROBLEMS[:2],
        "queue.frames: expected int >= 1, got 0 (from a flag)",
        PROBLEMS[2],
    ]


def test_print_config_shows_no_secret() -> None:
    result = run("print-config", env={"ROOMCAST_AUTH__SECRET": SECRET})
    assert result.exit_code == 0
    assert SECRET not in result.output
    assert "# secret is set, and not shown" in result.output


@pytest.mark.parametrize("setting", ["listen.port", "=1", ""])
def test_a_set_option_is_key_and_value(setting: str) -> None:
    result = run("print-config", "--set", setting)
    assert result.exit_code == 2
    assert "--set takes KEY=VALUE" in result.stderr
