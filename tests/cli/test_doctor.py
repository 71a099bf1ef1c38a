from __future__ import annotations

import json
import resource
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli.doctor import (
    Check,
    check_accept_backlog,
    check_clock,
    check_descriptors,
    check_local_ports,
    check_port,
    check_tcp_memory,
    examine,
)
from broker.cli.main import main
from broker.config.schema import Config, ListenConfig


def test_descriptors_are_reported_as_viewers() -> None:
    assert check_descriptors(1024, 20_000, 256, 0) == Check(
        "descriptors", "ok", "soft 1024, hard 20000: 19744 viewers (256 in reserve)"
    )
    few = check_descriptors(1024, 4096, 256, 0)
    assert few.status == "warn"
    assert "LimitNOFILE" in few.remedy
    assert "0 viewers" in check_descriptors(100, 100, 256, 0).detail
    assert check_descriptors(1024, resource.RLIM_INFINITY, 256, 10**7).status == "ok"


def test_more_viewers_than_the_descriptors_hold_are_a_warning() -> None:
    check = check_descriptors(20_000, 20_000, 256, 50_000)
    assert check.status == "warn"
    assert "admission.max_connections wants 50000" in check.detail
    assert check_descriptors(2_000, 2_000, 256, 1_000).status == "ok"


def test_a_taken_port_is_a_warning_and_a_free_one_is_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check = check_port("127.0.0.1", port)
        assert check.status == "warn"
        assert "Address already in use" in check.detail
        assert str(port) in check.remedy
    assert check_port("127.0.0.1", port).status == "ok"
    assert check_port("127.0.0.1", 0).status == "ok"


def test_an_address_of_another_machine_is_a_warning() -> None:
    assert check_port("192.0.2.1", 7400).status == "warn"


def test_a_clock_that_is_wrong_or_being_set_is_a_warning() -> None:
    assert check_clock(2026, 0.0501, 0.05).status == "ok"
    assert check_clock(1970, 0.05, 0.05).status == "warn"
    assert check_clock(2026, 3600.0, 0.05).status == "warn"
    assert check_clock(2026, -10.0, 0.05).remedy


def test_kernel_memory_is_reported_as_stalled_viewers() -> None:
    check = check_tcp_memory("287907\t383877\t575814\n", 4096, 65536)
    assert (check.status, check.detail) == ("ok", "2249 MiB: 17994 viewers with full send buffers")
    poor = check_tcp_memory("100 200 3000", 4096, 65536)
    assert (poor.status, poor.remedy) == ("warn", "sysctl -w net.ipv4.tcp_mem='100 200 12000'")


def test_backlog_and_ports() -> None:
    assert check_accept_backlog("4096\n").status == "ok"
    assert check_accept_backlog("128\n").remedy == "sysctl -w net.core.somaxconn=4096"
    assert check_local_ports("32768\t60999\n") == Check(
        "ip_local_port_range", "ok", "28232 connections from one client address"
    )
    assert check_local_ports("50000 50001").status == "warn"


@pytest.mark.parametrize("text", [None, "", "x", "1 2 3 4", "-1", "1\n2\n3\n4\n5"])
def test_numbers_that_cannot_be_read_are_absent_not_wrong(text: str | None) -> None:
    for check in (check_accept_backlog(text), check_local_ports(text), check_tcp_memory(text, 4096, 65536)):
        assert check.status == "absent"


def test_every_check_that_is_not_ok_has_a_remedy() -> None:
    config = Config(listen=ListenConfig(port=0))
    checks = list(examine(config, lambda name: None))
    names = [check.name for check in checks]
    assert names == [
        "python", "descriptors", "port", "tcp_mem", "somaxconn", "ip_local_port_range",
        "hdrh", "matplotlib", "chromium", "redis-server", "clock",
    ]  # fmt: skip
    kernel = {"tcp_mem", "somaxconn", "ip_local_port_range"}
    assert all(check.remedy for check in checks if check.status != "ok" and check.name not in kernel)
    assert not any(check.remedy for check in checks if check.status == "ok")


def test_json_and_table_have_the_same_checks() -> None:
    result = CliRunner().invoke(main, ["doctor", "--json", "--set", "listen.port=0"])
    assert result.exit_code == 0
    checks = [Check(**check) for check in json.loads(result.output)["checks"]]
    table = CliRunner().invoke(main, ["doctor", "--set", "listen.port=0"], env={"COLUMNS": "200"})
    assert table.exit_code == 0
    for check in checks[:-1]:  # the numbers of the clock differ between two runs
        assert check.name in table.output
        assert check.detail in table.output


def test_in_a_pipe_a_remedy_stays_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["doctor", "--set", "listen.port=0"], env={"COLUMNS": "40"})
    assert "In a clone: pip install -e '.[bench]'" in result.output


def test_wrong_settings_are_reported_as_checks(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[listen]\nport = 70000\nx = '[bold]'\n")
    result = CliRunner().invoke(main, ["doctor", "--json", "--config", str(path)])
    checks = [Check(**check) for check in json.loads(result.output)["checks"]]
    assert [check.name for check in checks[:3]] == ["configuration", "configuration", "python"]
    assert checks[0].detail == "listen.port: expected int <= 65535, got 70000"
