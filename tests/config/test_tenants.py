"""Tables [[tenants]]: what is refused, by path and rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config.schema import RELOADABLE, Config, ConfigError, changed_settings, load
from tests.support.tokens import SECRET


def load_text(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "roomcast.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, {}, {"auth.secret": SECRET})


def secret_file(tmp_path: Path, content: str = SECRET) -> Path:
    path = tmp_path / "acme.secret"
    path.touch(0o600)
    path.write_text(content)
    return path


def test_a_tenant_needs_a_name_alone(tmp_path: Path) -> None:
    (tenant,) = load_text(tmp_path, "[[tenants]]\nname = 'acme'").tenants
    assert (tenant.name, tenant.has_own_keys, tenant.max_connections) == ("acme", False, 0)


def test_a_tenant_has_quotas_and_keys_of_its_own(tmp_path: Path) -> None:
    path = secret_file(tmp_path)
    text = f"[[tenants]]\nname = 'acme'\nsecret_file = '{path}'\nmax_rooms = 5\nmessages_per_s = 0.5\n"
    (tenant,) = load_text(tmp_path, text).tenants
    assert (tenant.has_own_keys, tenant.max_rooms, tenant.messages_per_s) == (True, 5, 0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[tenants]]\nname = 'Acme'", "tenants[0].name: "),
        ("[[tenants]]\nname = ''", "tenants[0].name: "),
        ("[[tenants]]\nmax_rooms = 1", "tenants[0]"),
        ("[[tenants]]\nname = 'a'\nmax_rooms = -1", "tenants[0].max_rooms: "),
        ("[[tenants]]\nname = 'a'\ncalls_per_s = 'x'", "tenants[0].calls_per_s: "),
        ("[[tenants]]\nname = 'a'\nquota = 1", "tenants[0].quota: "),
        ("[[tenants]]\nname = 'a'\n[[tenants]]\nname = 'a'", "tenants[0].name: a is given to 2 tenants"),
        ("[[tenants]]\nname = 'a'\nsecret_file = 'missing'", "tenants[0].secret_file: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert caught.value.problems[0].startswith(expected)


def test_a_secret_that_is_short_or_that_others_can_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = secret_file(tmp_path, "short")
    text = f"[[tenants]]\nname = 'acme'\nsecret_file = '{path}'"
    with pytest.raises(ConfigError, match="5 bytes are too few"):
        load_text(tmp_path, text)
    path.write_text(SECRET)
    assert load_text(tmp_path, text).tenants[0].secret_file == str(path)
    monkeypatch.setattr("broker.config.files.exposure", lambda name: f"{name} can be read by other users")
    with pytest.raises(ConfigError, match=r"tenants\[0\].secret_file: .* can be read by other users") as caught:
        load_text(tmp_path, text)
    assert SECRET not in str(caught.value)


def test_an_endpoint_of_a_tenant_that_is_not_there_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "hook.secret"
    secret.touch(0o600)
    secret.write_text("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
    hook = f"name = 'shop'\nurl = 'https://example.com'\nsecret_file = '{secret}'\ntenant = 'acme'"
    with pytest.raises(ConfigError, match=r"webhooks.endpoints\[0\].tenant: no table \[\[tenants\]\] is called 'acme'"):
        load_text(tmp_path, f"[[webhooks.endpoints]]\n{hook}")
    load_text(tmp_path, f"[[webhooks.endpoints]]\n{hook}\n[[tenants]]\nname = 'acme'")


def test_tenants_change_without_a_restart(tmp_path: Path) -> None:
    before, after = (load_text(tmp_path, f"[[tenants]]\nname = '{name}'") for name in ("acme", "globex"))
    assert changed_settings(before, after) == ["tenants"]
    assert "tenants" in RELOADABLE


def test_an_endpoint_of_a_tenant_answers_no_questions(tmp_path: Path) -> None:
    secret = tmp_path / "hook.secret"
    secret.touch(0o600)
    secret.write_text("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
    hook = f"[[webhooks.endpoints]]\nname = 'shop'\nurl = 'https://example.com'\nsecret_file = '{secret}'\n"
    text = f"[webhooks.questions.join]\nendpoint = 'shop'\n{hook}"
    load_text(tmp_path, text)
    with pytest.raises(ConfigError, match=r"webhooks\.questions\.join\.endpoint: shop belongs to a tenant"):
        load_text(tmp_path, f"{text}tenant = 'acme'\n[[tenants]]\nname = 'acme'")
