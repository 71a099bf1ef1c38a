from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from broker.auth.grants import Grant, RoomGrant
from broker.auth.tokens import Authenticator
from broker.cli.main import main
from broker.cli.token import duration_s, room_entry
from broker.config.schema import AuthConfig
from protocol.codes import Role

SECRET = "0123456789abcdef0123456789abcdef"
IN_ENVIRONMENT = {"ROOMCAST_AUTH__SECRET": SECRET}


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["token", *(str(argument) for argument in arguments)], env=env)


def grant_of(result: Result, config: AuthConfig | None = None) -> Grant:
    assert result.exit_code == 0, result.output
    return Authenticator(config or AuthConfig(secret=SECRET)).verify(result.stdout.strip())


def test_a_token_contains_what_the_options_say() -> None:
    grant = grant_of(
        run(
            "--user",
            "u1",
            "--name",
            "小明",
            "--role",
            "vip",
            "--room",
            "a",
            "--room",
            "live-*:host",
            env=IN_ENVIRONMENT,
        )
    )
    assert (grant.user_id, grant.name, grant.role) == ("u1", "小明", Role.VIP)
    assert grant.rooms == (RoomGrant("a", Role.VIP), RoomGrant("live-*", Role.HOST))


def test_a_token_has_the_tags_and_the_id_that_it_is_given() -> None:
    grant = grant_of(run("--user", "u1", "--tag", "fans", "--tag", "region:cn", "--jti", "t-1", env=IN_ENVIRONMENT))
    assert (grant.tags, grant.jti) == (("fans", "region:cn"), "t-1")


def test_without_rooms_every_room_is_granted() -> None:
    assert grant_of(run("--user", "u1", env=IN_ENVIRONMENT)).rooms == (RoomGrant("*", Role.VIEWER),)


def test_the_token_is_valid_for_the_ttl() -> None:
    auth = Authenticator(AuthConfig(secret=SECRET, leeway_s=0))
    left = auth.seconds_left(auth.verify(run("--user", "u", "--ttl", "15m", env=IN_ENVIRONMENT).stdout.strip()))
    assert 800 < left <= 900


def test_the_secret_is_found_in_every_place(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    config = tmp_path / "roomcast.toml"
    config.write_text(f"[auth]\nsecret_file = '{secret}'\naudience = 'shop'\nissuer = 'platform'\n")
    plain = AuthConfig(secret=SECRET)
    special = AuthConfig(secret=SECRET, audience="shop", issuer="platform")
    grant_of(run("--user", "u", "--secret-file", secret), plain)
    grant_of(run("--user", "u", env={"ROOMCAST_AUTH__SECRET": SECRET}), plain)
    grant_of(run("--user", "u", "--set", f"auth.secret_file={secret}"), plain)
    grant_of(run("--user", "u", "--config", config), special)
    other = SECRET[::-1]
    other_file = tmp_path / "other"
    other_file.write_text(other)
    grant_of(
        run("--user", "u", "--config", config, "--secret-file", other_file),
        AuthConfig(secret=other, audience="shop", issuer="platform"),
    )


def test_without_a_secret_the_error_shows_the_development_token() -> None:
    result = run("--user", "alice", "--role", "host")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "--secret-file" in result.stderr
    assert "dev:alice:host" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--user", ""], "user id is not"),
        (["--user", "u\n"], "user id is not"),
        (["--user", "u", "--name", "n" * 65], "name is not"),
        (["--user", "u", "--role", "root"], "'root' is not one of"),
        (["--user", "u", "--tag", ""], "tags"),
        (["--user", "u", "--jti", "j" * 129], "jti"),
        (["--user", "u", "--room", "a b"], "neither a room's name"),
        (["--user", "u", "--room", "a:hots"], "did you mean host? A room of this name is a:hots:viewer"),
        (["--user", "u", "--ttl", "soon"], "is not a time such as"),
        (["--user", "u", "--ttl", "999999999d"], "exp is not a time"),
        (["--user", "u", "--secret", SECRET], "--secret: every user of this machine can see a secret"),
        (["--user", "u", "--set", f"auth.secret={SECRET}"], "--set auth.secret: every user of this machine"),
        (["--user", "u", "--secret-file", "/no/such"], "auth.secret_file: cannot read /no/such"),
        ([], "Missing option '--user'"),
    ],
)
def test_a_wrong_option_is_named_and_no_token_is_printed(arguments: list[str], text: str) -> None:
    result = run(*arguments, env={"ROOMCAST_AUTH__SECRET": SECRET})
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert text in " ".join(result.stderr.split())


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("24h", 86_400), ("7d", 604_800)])
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1h", "1w", "h", "1 h", "1e9", "inf", "٣h\n"])
def test_invalid_durations(text: str) -> None:
    with pytest.raises(click.BadParameter):
        duration_s(text)


def test_a_room_may_have_colons_and_be_called_like_a_role() -> None:
    assert room_entry("shop:1") == ("shop:1", None)
    assert room_entry("shop:1:host") == ("shop:1", Role.HOST)
    assert room_entry("host") == ("host", None)
    assert room_entry("shop:host:viewer") == ("shop:host", Role.VIEWER)
    assert room_entry("*:app") == ("*", Role.APP)
