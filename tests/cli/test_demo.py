from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from broker.cli import demo as command
from broker.cli.main import main
from broker.demo.accounting import Accounting, Latency
from broker.demo.load_process import Report
from broker.demo.runner import DemoResult
from broker.demo.users import StalledState
from protocol.clients.events import PostResult
from protocol.codes import MessageType, Outcome
from protocol.messages import Account


def result_of(differences: list[str]) -> DemoResult:
    accounting, latency = Accounting(), Latency()
    accounting.record("people", MessageType.DANMAKU, ("x",), PostResult(Outcome.ACCEPTED, "m"))
    latency.add(12)
    accounts = (Account(), Account(), Account(), Account(1, 1), Account())
    return DemoResult(
        differences,
        [],
        {"sale": {"stock": 15, "amount_cents": 29_850}},
        accounts,
        5.0,
        60,
        7,
        accounting,
        1000,
        latency,
        Report(cut=3, back=3),
        StalledState(),
        0,
    )


def run(monkeypatch: pytest.MonkeyPatch, found: DemoResult | None, *arguments: str) -> Result:
    async def run_demo(*_: Any) -> DemoResult | None:
        return found

    monkeypatch.setattr(command, "run_demo", run_demo)
    return CliRunner().invoke(main, ["demo", *arguments])


def test_a_balanced_demo_ends_with_one_json_line_and_exit_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, result_of([]), "--json")
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    written = json.loads(result.stdout)
    assert written["balanced"] is True
    assert written["lanes"]["chat"] == {"admitted": 1, "shown": 1, "merged": 0, "sampled": 0, "expired": 0, "held": 0}
    assert list(written["lanes"]) == ["control", "commerce", "paid", "chat", "ambient"]
    assert (written["deliveries"], written["deliveries_per_s"], written["latency_ms"]) == (
        1000,
        200,
        {"p50": 12, "p99": 12},
    )
    assert written["senders"] == {"people": {"chat": {"accepted": 1}}}


def test_a_demo_that_does_not_balance_names_the_differences_and_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, result_of(["chat: shown: the broker says 2, senders received 1"]), "--json")
    assert result.exit_code == 1
    written = json.loads(result.stdout)
    assert written["balanced"] is False
    assert written["differences"] == ["chat: shown: the broker says 2, senders received 1"]
    text = run(monkeypatch, result_of(["chat: shown"]))
    assert text.exit_code == 1
    assert "NOT balanced:\n  chat: shown\n" in text.output


def test_a_demo_that_does_not_reconcile_names_the_differences_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = result_of([])._replace(commerce_differences=["sale: units: offered 15, sold_and_left 16"])
    result = run(monkeypatch, found, "--json")
    assert result.exit_code == 1
    written = json.loads(result.stdout)
    assert (written["balanced"], written["reconciled"]) == (True, False)
    assert written["commerce"] == {"sale": {"stock": 15, "amount_cents": 29_850}}
    assert written["differences"] == ["sale: units: offered 15, sold_and_left 16"]
    text = run(monkeypatch, found)
    assert text.exit_code == 1
    assert "NOT reconciled:\n  sale: units" in text.output
    assert "sale: stock 15, amount cents 29,850" in text.output


def test_without_json_the_result_is_printed_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, result_of([]))
    assert result.exit_code == 0
    assert "balanced: the counts of broker, senders and viewers agree in every lane" in result.output
    assert "3 links cut, 3 back" in result.output


def test_the_summary_says_that_one_message_carries_several_gifts_and_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = result_of([])
    for count in (10, 27):
        gift = ("o", "u", "u", "rose", count, 100, "")
        found.accounting.record("platform", MessageType.GIFT, gift, PostResult(Outcome.ACCEPTED, "m"))
    found.accounting.record("people", MessageType.LIKE, (9,), PostResult(Outcome.ACCEPTED, "m", counted=7))
    text = run(monkeypatch, found).output
    assert "messages by lane:" in text
    assert "a message can carry several: 37 gifts in 2 messages, 7 likes in 1 messages" in text
    written = json.loads(run(monkeypatch, found, "--json").stdout)
    assert written["gifts"] == {"messages": 2, "count": 37, "amount_cents": 3700}


@pytest.mark.parametrize("terminal", ["dumb", "unknown"])
def test_a_terminal_without_a_cursor_gets_progress_lines(monkeypatch: pytest.MonkeyPatch, terminal: str) -> None:
    chosen: list[bool] = []

    async def run_demo(seconds: float, viewers: int, seed: int, on_screen: bool, stays: bool) -> DemoResult:
        chosen.append(on_screen)
        return result_of([])

    monkeypatch.setattr(command, "run_demo", run_demo)
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    for name in (terminal, "xterm"):
        monkeypatch.setenv("TERM", name)
        assert CliRunner().invoke(main, ["demo"]).exit_code == 0
    assert chosen == [False, True]


def test_an_interrupted_count_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, None, "--json").exit_code == 130


@pytest.mark.parametrize("arguments", [("--seconds", "1"), ("--viewers", "5"), ("--seconds", "x")])
def test_a_demo_that_is_too_small_is_refused(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(main, ["demo", *arguments]).exit_code == 2


def test_a_machine_that_is_too_busy_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_demo(*_: Any) -> DemoResult:
        async with trio.open_nursery():
            raise trio.TooSlowError

    monkeypatch.setattr(command, "run_demo", run_demo)
    result = CliRunner().invoke(main, ["demo", "--json"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "too busy for the demo" in result.stderr
