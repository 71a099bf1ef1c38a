"""Section [webhooks]: what is refused, with its path and rule."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from broker.config.schema import ConfigError, load, to_toml
from broker.config.webhooks import EndpointConfig, read_webhook_keys

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def secret_file(tmp_path: Path, text: str = SECRET, mode: int = 0o600) -> Path:
    path = tmp_path / "secret"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def problems(tmp_path: Path, endpoint: str = "", more: str = "") -> list[str]:
    path = tmp_path / "roomcast.toml"
    table = f'[[webhooks.endpoints]]\nname = "shop"\nsecret_file = "{secret_file(tmp_path)}"\n'
    if "url" not in endpoint:
        table += 'url = "https://shop.example/hook"\n'
    path.write_text(f"{more}\n{table}{endpoint}\n", encoding="utf-8")
    try:
        load(path, {})
    except ConfigError as error:
        return error.problems
    return []


def test_endpoints_and_questions_are_read_and_printed(tmp_path: Path) -> None:
    path = tmp_path / "roomcast.toml"
    path.write_text(
        f"""
        [webhooks]
        timeout_s = 5
        [webhooks.questions.message]
        endpoint = "shop"
        on_failure = "allow"
        [[webhooks.endpoints]]
        name = "shop"
        url = "https://shop.example:8443/hook?a=1"
        secret_file = "{secret_file(tmp_path)}"
        events = ["room.*", "message.published", "*"]
        rooms = ["live-*"]
        """,
        encoding="utf-8",
    )
    config = load(path, {"ROOMCAST_WEBHOOKS__QUESTIONS__MESSAGE__DEADLINE_MS": "200"})
    assert config.webhooks.questions.message.deadline_ms == 200
    assert config.webhooks.questions.join.endpoint is None
    assert config.webhooks.endpoint("shop").events == ("room.*", "message.published", "*")
    for comments in (True, False):
        path.write_text(to_toml(config, comments=comments), encoding="utf-8")
        assert load(path, {}) == config
    with pytest.raises(KeyError):
        config.webhooks.endpoint("other")


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("shop.example/hook", "expected https://HOST/PATH"),
        ("ftp://shop.example/", "expected https://HOST/PATH"),
        ("https:///hook", "expected https://HOST/PATH"),
        ("https://[::1/hook", "is not a URL"),
        ("https://shop.example:70000/", "is not a URL"),
        ("https://shop.example:0/", "expected a port from 1 to 65535"),
        ("https://ann:pw@shop.example/", "has a user or password"),
        ("https://shop.example/#a", "has a fragment"),
        ("https://shop.example/a b", "expected printable ASCII"),
        ("https://sh\u00f6p.example/", "expected printable ASCII"),
        ("http://shop.example/hook", "is http to another machine"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(tmp_path: Path, url: str, rule: str) -> None:
    (problem,) = problems(tmp_path, f'url = "{url}"')
    assert problem.startswith(f"webhooks.endpoints[0].url: {rule}")
    assert "pw" not in problem


@pytest.mark.parametrize(
    "more", ['url = "http://127.0.0.1:80/a"', 'url = "http://[::1]/a"', 'url = "http://a/"\nplain_http = true']
)
def test_http_is_for_this_machine_or_permitted(tmp_path: Path, more: str) -> None:
    assert problems(tmp_path, more) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "has 0 secrets"),
        (f"{SECRET}\n{SECRET}\n{SECRET}", "has 3 secrets"),
        ("secret", "secret 1: expected a secret that begins with whsec_"),
        (f"{SECRET}\nwhsec_!!", "secret 2: expected base64 after whsec_"),
        ("whsec_" + base64.b64encode(b"k" * 23).decode(), "expected a key of 24 to 64 bytes, got 23"),
        ("whsec_" + base64.b64encode(b"k" * 65).decode(), "expected a key of 24 to 64 bytes, got 65"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule.replace("[", "\\[")) as caught:
        read_webhook_keys(str(secret_file(tmp_path, text)))
    assert SECRET not in str(caught.value)


def test_two_secrets_are_two_keys(tmp_path: Path) -> None:
    other = "whsec_" + base64.b64encode(b"n" * 24).decode()
    assert read_webhook_keys(str(secret_file(tmp_path, f"{other}\r\n{SECRET}\n\n"))) == (b"n" * 24, b"k" * 32)


def test_a_secret_file_of_all_users_and_one_that_is_missing_are_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = secret_file(tmp_path, mode=0o644)
    endpoint = f'[[webhooks.endpoints]]\nname = "a"\nurl = "https://a/"\nsecret_file = "{path}"\n'
    endpoint += '[[webhooks.endpoints]]\nname = "b"\nurl = "https://b/"\nsecret_file = "/nowhere"\n'
    config = tmp_path / "roomcast.toml"
    config.write_text(f'[webhooks]\nca_file = "/nowhere.pem"\n{endpoint}', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(config, {})
    found = caught.value.problems
    assert found[0].startswith("webhooks.ca_file: cannot read /nowhere.pem")
    assert found[-1].startswith("webhooks.endpoints[1].secret_file: cannot read /nowhere")
    exposed = [problem for problem in found if "can be read by other users" in problem]
    parents_open = all(parent.stat().st_mode & 0o011 for parent in path.parents)
    assert bool(exposed) is parents_open


@pytest.mark.parametrize(
    ("endpoint", "more", "problem"),
    [
        ('events = ["room"]', "", "webhooks.endpoints[0].events[0]: expected a name such as room.opened"),
        ('events = ["room.*.x"]', "", "webhooks.endpoints[0].events[0]: expected a name such as room.opened"),
        ('events = ["room.opend"]', "", "webhooks.endpoints[0].events[0]: there is no event 'room.opend'"),
        ('events = ["message.sale"]', "", "webhooks.endpoints[0].events[0]: there is no event 'message.sale'"),
        ('rooms = ["a*b"]', "", "webhooks.endpoints[0].rooms[0]: expected a room's name"),
        ('event = ["*"]', "", "webhooks.endpoints[0].event: unknown key; did you mean webhooks.endpoints[0].events?"),
        (
            "", '[webhooks.questions.join]\nendpoint = "shp"',
            "webhooks.questions.join.endpoint: shp is no endpoint; known: shop",
        ),
        (
            "", "[webhooks.questions.join]\ndeadline_ms = 0",
            "webhooks.questions.join.deadline_ms: expected int >= 10, got 0",
        ),
        ("", "[webhooks.questions.leave]", "webhooks.questions.leave: unknown key"),
        ("", '[webhooks.questions.app]\nendpoint = "x"', "webhooks.questions.app.endpoint: x is no endpoint"),
        (
            'tenant = "a"', '[webhooks.questions.join]\nendpoint = "shop"\n[[tenants]]\nname = "a"',
            "webhooks.questions.join.endpoint: shop belongs to a tenant: questions are about all of them",
        ),
        (
            "", '[link]\nhandshake_timeout_s = 0.3\n[webhooks.questions.connect]\nendpoint = "shop"',
            "webhooks.questions.connect.deadline_ms: expected less than link.handshake_timeout_s (0.3 s), got 300",
        ),
        (
            "", f'[auth]\nsecret = "{"x" * 32}"\n[webhooks.questions.connect]\nendpoint = "shop"\non_failure = "allow"',
            "webhooks.questions.connect.on_failure: allow makes guests, and auth.guest_access names no room",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_path(tmp_path: Path, endpoint: str, more: str, problem: str) -> None:
    found = [each for each in problems(tmp_path, endpoint, more) if not each.startswith("auth.secret")]
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_a_name_is_given_once(tmp_path: Path) -> None:
    second = f'[[webhooks.endpoints]]\nname = "shop"\nurl = "https://b/"\nsecret_file = "{secret_file(tmp_path)}"\n'
    found = problems(tmp_path, 'url = "https://a/"\n' + second)
    assert found == [f"webhooks.endpoints[{index}].name: shop is given to 2 endpoints" for index in (0, 1)]


def test_an_endpoint_needs_name_url_and_secret() -> None:
    with pytest.raises(TypeError):
        EndpointConfig()  # type: ignore[call-arg]
