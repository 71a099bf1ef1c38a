"""Section [engine]: its URL is checked, and its password is in no text that leaves the process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.config.schema import ConfigError, load, settings_of, to_toml
from tests.support.webhooks import hook_settings

PASSWORD = "p-0123456789"


def problem_of(**engine: Any) -> str:  # Any: settings of several types
    with pytest.raises(ConfigError) as caught:
        load(None, {}, {"engine": engine})
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def test_without_a_url_there_is_no_engine() -> None:
    assert load(None, {}, {}).engine.url is None


def test_a_password_of_the_url_becomes_the_password_and_is_shown_nowhere() -> None:
    config = load(None, {"ROOMCAST_ENGINE__URL": f"rediss://me:{PASSWORD}@host:7000/3"})
    assert (config.engine.url, config.engine.password) == ("rediss://me@host:7000/3", PASSWORD)
    for text in (repr(config), to_toml(config), str(settings_of(config))):
        assert PASSWORD not in text
        assert "host:7000" in text


def test_a_password_with_escaped_characters_is_taken_as_it_is_meant() -> None:
    assert load(None, {}, {"engine": {"url": "redis://:p%40%2Fq@h"}}).engine.password == "p@/q"


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user of the machine may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_the_password_comes_from_its_file(open_directory: Path) -> None:
    file = open_directory / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o600)
    assert load(None, {}, {"engine": {"url": "redis://h", "password_file": str(file)}}).engine.password == PASSWORD
    file.chmod(0o644)
    assert "chmod" in problem_of(url="redis://h", password_file=str(file))


def test_two_passwords_are_one_too_many() -> None:
    expected = "engine.password: set either this or engine.url, not both"
    assert problem_of(url=f"redis://:{PASSWORD}@h", password=PASSWORD) == expected


def test_a_file_of_settings_with_a_password_in_the_url_may_not_be_read_by_others(open_directory: Path) -> None:
    path = open_directory / "roomcast.toml"
    path.write_text(f'[engine]\nurl = "redis://:{PASSWORD}@h"\n')
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"engine\.url: .*chmod"):
        load(path)
    path.write_text('[engine]\nurl = "redis://h"\n')
    assert load(path).engine.url == "redis://h"


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"url": "http://h"}, "engine.url: the URL of the engine begins with redis://"),
        ({"url": f"redis://:{PASSWORD}@h:99999"}, "engine.url: the URL of the engine names no host"),
        ({"password": "x"}, "engine.password: is for the server of engine.url, which is not set"),
        ({"url": "redis://h", "tls_ca_file": "/nowhere"}, "engine.tls_ca_file: is for a URL with TLS"),
        ({"url": "rediss://h", "tls_ca_file": "/nowhere"}, "engine.tls_ca_file: cannot read /nowhere"),
        ({"url": "redis://h", "prefix": "{x}"}, "engine.prefix: expected a string such as rc:"),
        ({"url": "redis://h", "durability": "sometimes"}, "engine.durability: expected one of any, everysec, always"),
    ],
)
def test_what_is_wrong_is_named(engine: dict[str, Any], expected: str) -> None:
    assert expected in problem_of(**engine)


def test_what_several_nodes_do_not_share_is_refused_with_the_engine(tmp_path: Path) -> None:
    hooks = hook_settings(tmp_path, "http://127.0.0.1:9/", "audit.anchored")
    with pytest.raises(ConfigError, match=r"webhooks\.endpoints: is not there with several nodes yet"):
        load(None, {}, {"engine": {"url": "redis://h"}, "ledger": {"ephemeral": True}, "webhooks": hooks})
