"""Operations on the product list of a room: over HTTP and CALL, with a ledger and a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.core.commerce import products
from broker.operations.caller import OperationError
from broker.server import Broker
from protocol.activities.products import ProductsView
from protocol.clients import CallRefused, Client, open_client
from protocol.codes import ErrorCode
from protocol.operations import BY_NAME
from tests.support.api import API, call, client_of, ok, refused
from tests.support.durable import durable_broker
from tests.support.tenants import backend
from tests.support.tokens import SECRET

pytestmark = pytest.mark.integration

MUG: dict[str, Any] = {
    "room": "live-1",
    "id": "mug-1",
    "version": 2,
    "title": "Mug",
    "price_cents": 1990,
    "position": 2,
}
PAN: dict[str, Any] = {
    "room": "live-1",
    "id": "pan-7",
    "version": 1,
    "title": "Pan",
    "price_cents": 4990,
    "position": 1,
}


@pytest.fixture(autouse=True)
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clicks wait for 20 ms in place of a second."""
    monkeypatch.setattr(products, "CLICK_WINDOW_MS", 20)


def link_of(broker: Broker, user: str) -> Any:
    return open_client(f"roomcast://127.0.0.1:{broker.addresses[0][1]}", f"dev:{user}")


async def code_of(client: Client, name: str, **fields: Any) -> ErrorCode:
    """Call an operation that must be refused and return the code."""
    with pytest.raises(CallRefused) as caught:
        await client.call(name, room="live-1", **fields)
    return ErrorCode(caught.value.code)


async def test_products_are_listed_arranged_explained_clicked_and_removed_and_stay_so(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        assert await ok(http, "products.put", **MUG) == {"id": "mug-1", "version": 2, "listed": True}
        assert await ok(http, "products.put", **PAN) == {"id": "pan-7", "version": 1, "listed": True}
        assert await ok(http, "products.put", **MUG) == {"id": "mug-1", "version": 2, "listed": True}
        assert await refused(http, "products.put", **MUG | {"title": "Cup"}) == (409, "KEY_REUSED", "version")
        assert (await refused(http, "products.put", **MUG | {"version": 1}))[1] == "STALE"
        positions = [["mug-1", 1], ["pan-7", 2]]
        assert await ok(http, "products.arrange", room="live-1", version=1, positions=positions) == {"version": 1}
        explained = await ok(http, "products.explain", key="e1", room="live-1", id="pan-7")
        assert (explained["product"], explained["number"]) == ("pan-7", 1)
        assert await ok(http, "products.explain", key="e1", room="live-1", id="pan-7") == explained
        other = await call(http, "products.explain", "e1", room="live-1", id="mug-1")
        assert (other.status_code, other.json()["code"]) == (409, "KEY_REUSED")
        async with link_of(broker, "ann") as ann:
            snapshot = (await ann.join("live-1")).snapshot
            assert snapshot is not None
            (view,) = (each.data for each in snapshot.activities)
            assert isinstance(view, ProductsView)
            assert (view.explaining.product, [row.id for row in view.products]) == ("pan-7", ["mug-1", "pan-7"])
            counted = [
                (await ann.call("products.report_clicks", room="live-1", id="mug-1", clicks=7, report=5)).counted
                for _ in range(2)
            ]
            assert counted == [True, False]
            assert [each.clicks for each in (await ann.call("products.list", room="live-1")).items] == [None, None]
        removed = await ok(http, "products.remove", room="live-1", id="pan-7", version=2)
        assert removed == {"id": "pan-7", "version": 2, "listed": False}
        assert await ok(http, "products.remove", room="live-1", id="pan-7", version=2) == removed
        listed = await ok(http, "products.list", room="live-1")
        assert [(each["product"]["id"], each["clicks"]) for each in listed["items"]] == [("mug-1", 7)]
        log = await ok(http, "products.log", room="live-1")
        assert [(each["product"], each["to_ms"] is None) for each in log["items"]] == [("pan-7", False)]
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http:
        assert await ok(http, "products.list", room="live-1") == listed
        assert await ok(http, "products.log", room="live-1") == log
        assert await ok(http, "products.explain", key="e1", room="live-1", id="pan-7") == explained
        assert (await refused(http, "products.put", **PAN))[1] == "STALE"
        async with link_of(broker, "ann") as ann:
            await ann.join("live-1")
            again = await ann.call("products.report_clicks", room="live-1", id="mug-1", clicks=7, report=5)
            assert not again.counted


async def test_refusals_of_products_name_the_code_and_change_nothing(directory: Path) -> None:
    async with durable_broker(directory, api=API) as broker, client_of(broker) as http, link_of(broker, "ann") as ann:
        assert await refused(http, "products.explain", room="live-1", id="x") == (404, "UNKNOWN_ROOM", "room")
        await ok(http, "products.put", **MUG)
        before = await ok(http, "products.list", room="live-1")
        for field, value in (
            ("id", ""), ("id", "x" * 65), ("version", 0), ("price_cents", -1), ("price_cents", 1.5),
            ("price_cents", 10**12 + 1), ("title", "x" * 500), ("url", "http://shop.example"), ("stock", -1),
            ("room", ""),
        ):  # fmt: skip
            assert await refused(http, "products.put", **MUG | {"version": 3, field: value}) == (
                400,
                "BAD_FIELD",
                field,
            )
        assert (await refused(http, "products.explain", room="live-1", id="x"))[1] == "UNKNOWN_ACTIVITY"
        assert (await refused(http, "products.list", room="live-1", cursor="x"))[1:] == ("BAD_FIELD", "cursor")
        assert await refused(http, "products.report_clicks", room="live-1", id="mug-1", clicks=1, report=1) == (
            403, "NOT_ALLOWED", "operation",
        )  # fmt: skip
        await ann.join("live-1")
        assert (
            await code_of(ann, "products.put", id="mug-1", version=9, title="Mine", price_cents=1)
            is ErrorCode.NOT_ALLOWED
        )
        for name, fields in (
            ("products.remove", {"id": "mug-1", "version": 9}), ("products.explain", {"id": "mug-1"}),
            ("products.stop_explaining", {}), ("products.arrange", {"version": 9, "positions": ()}),
            ("products.log", {}),
        ):  # fmt: skip
            assert await code_of(ann, name, **fields) is ErrorCode.NOT_ALLOWED, name
        report = {"id": "mug-1", "report": 1}
        assert await code_of(ann, "products.report_clicks", **report | {"id": "x"}, clicks=1) is (
            ErrorCode.UNKNOWN_ACTIVITY
        )
        async with link_of(broker, "eve:guest") as guest:
            await guest.join("live-1")
            assert await code_of(guest, "products.report_clicks", **report, clicks=1) is ErrorCode.NOT_ALLOWED
        assert await ok(http, "products.list", room="live-1") == before
        await ok(http, "rooms.close", room="live-1")
        for name, fields in (
            ("products.put", MUG | {"version": 3}),
            ("products.remove", {"room": "live-1", "id": "mug-1", "version": 3}),
            ("products.arrange", {"room": "live-1", "version": 1, "positions": []}),
        ):  # fmt: skip
            assert (await refused(http, name, **fields))[1] == "ROOM_ENDED", name


async def test_products_of_a_tenant_are_not_those_of_another(directory: Path) -> None:
    tenants = [{"name": "acme"}, {"name": "globex"}]
    async with durable_broker(directory, auth={"secret": SECRET}, tenants=tenants) as broker:

        async def invoke(tenant: str, name: str, *request: Any) -> Any:
            result, _ = await broker.operations.call(backend(tenant), BY_NAME[name], request)
            return result

        await invoke("acme", "products.put", *MUG.values())
        for name, request in (
            ("products.list", ("live-1",)), ("products.log", ("live-1",)), ("products.explain", ("live-1", "mug-1")),
        ):  # fmt: skip
            with pytest.raises(OperationError) as caught:
                await invoke("globex", name, *request)
            assert caught.value.code is ErrorCode.UNKNOWN_ROOM, name
        await invoke("globex", "products.put", "live-1", "mug-1", 9, "Other mug", 1)
        (listed,) = (await invoke("acme", "products.list", "live-1")).items
        assert (listed.product.version, listed.product.title) == (2, "Mug")
