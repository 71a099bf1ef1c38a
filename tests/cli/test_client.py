from __future__ import annotations

import getpass

import click
import pytest

from broker.cli.client import connected_client, development_token, run_command


def test_the_development_identity_is_the_login_name_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")
    assert development_token(None, "viewer") == "dev:anna:viewer"
    assert development_token("bob", "host") == "dev:bob:host"
    assert development_token("bob:vip", "host") == "dev:bob:vip"


def test_a_login_without_a_name_has_a_development_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", no_name)
    assert development_token(None, "viewer") == "dev:unknown:viewer"


@pytest.mark.parametrize("user", ["bob:king", "", ":vip", "bob:"])
def test_an_invalid_identity_is_refused_before_it_is_sent(user: str) -> None:
    with pytest.raises(click.UsageError, match="USER:ROLE"):
        development_token(user, "viewer")


def test_expected_errors_are_unpacked_from_groups_and_others_are_not() -> None:
    async def fail() -> None:
        raise BaseExceptionGroup("a", [ExceptionGroup("b", [click.ClickException("no broker")])])

    async def fail_twice() -> None:
        raise ExceptionGroup("a", [click.ClickException("no"), ValueError("unexpected")])

    async def close_the_output() -> None:
        raise ExceptionGroup("a", [BrokenPipeError("one"), ExceptionGroup("b", [BrokenPipeError("two")])])

    with pytest.raises(click.ClickException, match="no broker"):
        run_command(fail)
    with pytest.raises(ExceptionGroup):
        run_command(fail_twice)
    with pytest.raises(BrokenPipeError, match="one"):
        run_command(close_the_output)


async def test_the_error_without_a_broker_says_how_to_start_one() -> None:
    with pytest.raises(click.ClickException, match=r"no broker at 127.0.0.1:1 .*roomcast serve"):
        async with connected_client("roomcast://127.0.0.1:1", None):
            pass


async def test_an_invalid_address_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="'http' is not one of"):
        async with connected_client("http://127.0.0.1", None):
            pass
