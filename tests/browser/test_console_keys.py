"""The console in a real Chromium: keys that are made and revoked, settings with where they came from, log-in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.pages import MARKUP, SIZES, PageBroker, bad_names, low_contrast, page_broker, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = "rk_root_" + "a" * 32


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageBroker]:
    folder = tmp_path_factory.mktemp("broker")
    keys, config = folder / "keys.toml", folder / "roomcast.toml"
    keys.write_text(
        f'[[key]]\nid = "root"\nsha256 = "{hashlib.sha256(ROOT.encode()).hexdigest()}"\nscopes = ["admin"]\n'
    )
    config.write_text(
        f'[auth]\nsecret = "{"s" * 40}"\n[api]\nkey_file = "{keys}"\n[room]\nmax_rooms = 77\n'
        '[[tenants]]\nname = "acme"\nmax_rooms = 10\ncalls_per_s = 0.5\n[[tenants]]\nname = "globex"\n'
    )
    for path in (keys, config):
        path.chmod(0o600)
    with page_broker(folder / "data", config=config) as found:
        found.key = ROOT
        yield found


def log_in(broker: PageBroker, page: Any, section: str, key: str = ROOT) -> None:
    page.goto(f"{broker.api}/console?lang=en#{section}")
    page.get_by_label("Key of the control API").fill(key)
    page.get_by_role("button", name="Log in").click()


def ids(broker: PageBroker) -> list[str]:
    return [each["id"] for each in broker.call("broker.api_keys")["items"]]


def test_a_key_is_made_shown_once_and_revoked(broker: PageBroker, page: Any) -> None:
    log_in(broker, page, "keys")
    row = page.get_by_role("row").filter(has=page.get_by_text("root", exact=True))
    row.get_by_text("in use here").wait_for()
    page.get_by_label("Id", exact=True).fill("shop")
    page.get_by_label("Note", exact=True).fill(MARKUP)
    page.get_by_role("button", name="Make it").click()
    page.get_by_text("Choose a scope at least").wait_for()
    page.get_by_role("group", name="Scopes").get_by_label("rooms:read").check()
    page.get_by_label("Expires in days").fill("30")
    page.get_by_role("button", name="Make it").click()
    shown = page.get_by_label("Keep it now")
    shown.wait_for()
    made = shown.input_value()
    assert made.startswith("rk_shop_")
    page.get_by_role("cell", name=MARKUP).wait_for()
    page.get_by_role("button", name="I have kept it").click()
    assert made not in page.content()
    other = PageBroker({"addresses": [["", broker.viewers.rpartition(":")[2]]]}, broker.api)
    other.key = made
    other.call("rooms.list")
    other.close()
    page.get_by_role("button", name="Revoke shop").click()
    page.get_by_text("It ends at once").wait_for()
    page.get_by_role("button", name="Revoke", exact=True).click()
    page.locator(".toast").get_by_text("shop is revoked").wait_for()
    assert ids(broker) == ["root"]


def test_what_is_wrong_with_a_new_key_is_said_at_its_field(broker: PageBroker, page: Any) -> None:
    log_in(broker, page, "keys")
    page.get_by_label("Id", exact=True).fill("Not an id")
    page.get_by_role("group", name="Scopes").get_by_label("admin").check()
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("alert").get_by_text("id: must be").wait_for()
    assert page.evaluate("document.activeElement.name") == "id"
    page.errors.clear()  # the browser writes refused requests to its console
    assert ids(broker) == ["root"]


def test_settings_have_where_they_came_from(broker: PageBroker, page: Any) -> None:
    log_in(broker, page, "config")
    page.get_by_label("Find a setting").fill("room.max_rooms")
    row = page.get_by_role("row").filter(has=page.get_by_text("room.max_rooms", exact=True))
    row.get_by_text("file").wait_for()
    assert row.get_by_role("cell").nth(1).inner_text() == "77"
    assert row.locator("b").evaluate("(name) => name.innerHTML.split('<wbr>')") == ["room.", "max_", "rooms", ""]
    page.get_by_label("Find a setting").fill("log.level")
    page.get_by_role("row").filter(has=page.get_by_text("log.level", exact=True)).get_by_text("flag").wait_for()
    page.get_by_label("Find a setting").fill("room.max_viewers")
    page.get_by_role("row").filter(has=page.get_by_text("room.max_viewers", exact=True)).get_by_text(
        "default"
    ).wait_for()
    page.get_by_label("Changed ones only").check()
    page.get_by_text("No such setting").wait_for()
    assert "s" * 40 not in page.content()


def test_a_key_that_is_revoked_under_use_leads_back_to_the_log_in(broker: PageBroker, page: Any) -> None:
    made = broker.call("broker.create_api_key", id="short", scopes=["admin"])["key"]
    log_in(broker, page, "overview", made)
    page.get_by_text("commerce and paid: 0").wait_for()
    broker.call("broker.revoke_api_key", id="short")
    page.get_by_role("alert").get_by_text("The key is not valid any more").wait_for()
    page.get_by_label("Key of the control API").wait_for()
    assert page.locator("#page").inner_text() == ""
    page.errors.clear()


def test_tenants_are_shown_with_their_quotas_and_the_chain_is_verified(broker: PageBroker, page: Any) -> None:
    log_in(broker, page, "tenants")
    row = page.get_by_role("row").filter(has=page.get_by_text("acme", exact=True))
    row.get_by_text("0 / 10").wait_for()
    row.get_by_text("0.5/s").wait_for()
    page.get_by_role("link", name="Audit").click()
    page.get_by_role("button", name="Verify the hash chain").click()
    page.get_by_role("status").get_by_text("holds", exact=True).wait_for()
    found = broker.call("broker.verify_chain")
    page.get_by_role("status").get_by_text(f"{found['last']}:{found['hash']}").wait_for()


def test_a_key_of_a_tenant_has_neither_tenants_nor_the_chain(broker: PageBroker, page: Any) -> None:
    made = broker.call("broker.create_api_key", id="globex", scopes=["admin"], of_tenant="globex")["key"]
    log_in(broker, page, "audit", made)
    page.get_by_text("No entries").wait_for()
    assert page.get_by_role("button", name="Verify the hash chain").count() == 0
    assert page.get_by_role("link", name="Tenants").count() == 0
    broker.call("broker.revoke_api_key", id="globex")
    page.errors.clear()  # probes that were refused


@pytest.mark.parametrize(("size", "theme", "language"), [("phone", "light", "en"), ("desk", "light", "zh")])
def test_keys_and_settings_are_readable_at_every_size(
    broker: PageBroker, page: Any, size: str, theme: str, language: str
) -> None:
    page.set_viewport_size(dict(zip(("width", "height"), SIZES[size], strict=True)))
    page.goto(f"{broker.api}/console?lang={language}&theme={theme}#keys")
    page.locator("#key").fill(ROOT)
    page.locator("#login").get_by_role("button").click()
    page.get_by_role("cell", name="root").wait_for()
    for section in ("keys", "config", "tenants"):
        page.evaluate("hash => { location.hash = hash }", f"#{section}")
        page.locator("tbody tr").nth(0).wait_for()
        assert bad_names(page) == [], section
        assert low_contrast(page) == [], section
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), section


def test_a_wrong_key_is_asked_once_and_many_are_limited_by_address(broker: PageBroker, page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/" in request.url else None)
    log_in(broker, page, "overview", "rk_root_" + "b" * 32)
    page.get_by_text("This key is not valid").wait_for()
    assert len(asked) == 1
    headers = {"Authorization": "Bearer rk_root_" + "b" * 32}
    with httpx.Client(base_url=broker.api, headers=headers, trust_env=False, timeout=30) as client:

        def is_limited() -> bool:
            while client.post("/v1/rooms/list", json={}).status_code != 429:
                pass
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("alert").get_by_text("Too many requests").or_(
                page.get_by_role("alert").get_by_text("This key is not valid")
            ).wait_for()
            return "Too many" in page.get_by_role("alert").inner_text()

        wait_until(is_limited)
    page.errors.clear()
