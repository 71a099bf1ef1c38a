from __future__ import annotations

import getpass

import click
import pytest

from broker.cli.client import run_visit, visit, who_am_i


def test_the_development_identity_is_the_login_name_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")
    assert who_am_i(None, "viewer") == "dev:anna:viewer"
    assert who_am_i("bob", "host") == "dev:bob:host"
    assert who_am_i("bob:vip", "host") == "dev:bob:vip"


def test_a_user_without_a_name_can_still_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert who_am_i(None, "viewer") == "dev:somebody:viewer"


@pytest.mark.parametrize("user", ["bob:king", "", ":vip", "bob:"])
def test_an_identity_that_no_broker_takes_is_refused_before_it_is_sent(user: str) -> None:
    with pytest.raises(click.UsageError, match="USER:ROLE"):
        who_am_i(user, "viewer")


def test_expected_errors_leave_their_groups_and_ours_stay_in_them() -> None:
    async def fail() -> None:
        raise BaseExceptionGroup("a", [ExceptionGroup("b", [click.ClickException("no broker")])])

    async def fail_twice() -> None:
        raise ExceptionGroup("a", [click.ClickException("no"), ValueError("ours")])

    async def lose_the_output() -> None:
        raise ExceptionGroup("a", [BrokenPipeError("one"), ExceptionGroup("b", [BrokenPipeError("two")])])

    with pytest.raises(click.ClickException, match="no broker"):
        run_visit(fail)
    with pytest.raises(ExceptionGroup):
        run_visit(fail_twice)
    with pytest.raises(BrokenPipeError, match="one"):
        run_visit(lose_the_output)


async def test_where_no_broker_is_the_error_says_how_to_start_one() -> None:
    with pytest.raises(click.ClickException, match=r"no broker at 127.0.0.1:1 .*roomcast serve"):
        async with visit("roomcast://127.0.0.1:1", None):
            pass


async def test_an_address_that_is_none_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="'http' is not one of"):
        async with visit("http://127.0.0.1", None):
            pass
