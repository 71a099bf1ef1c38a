"""The control API over real HTTP: keys, refusals, hostile requests, a socket file, the whole way to a viewer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from broker.core.limits.rate_limit import Rate
from broker.http import app
from broker.server import Broker
from protocol.messages import Event, Left
from protocol.operations import BY_NAME
from tests.support.broker import joined_link, running_broker
from tests.support.until import until

pytestmark = pytest.mark.integration

KEY_FILE = """
[[key]]
id = "shop"
sha256 = "{digest}"
scopes = ["rooms:write", "rooms:read", "messages:write", "users:write"]
rooms = ["live-*"]

[[key]]
id = "old"
sha256 = "{digest_old}"
scopes = ["admin"]
expires_at = 1
"""


@asynccontextmanager
async def api(**overrides: Any) -> AsyncIterator[tuple[Broker, httpx.AsyncClient]]:
    """A broker with a control API on a free port, and a client for it."""
    listen = overrides.pop("listen_api", "127.0.0.1:0")
    async with running_broker(api={"listen": listen, **overrides.pop("api", {})}, **overrides) as broker:
        transport = httpx.AsyncHTTPTransport(uds=listen.removeprefix("unix:")) if listen.startswith("unix:") else None
        url = "http://localhost" if transport else broker.api_urls[0]
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20, transport=transport) as client:
            yield broker, client


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str, str]:
    """A key file, a good key and an expired one."""
    import hashlib

    good, old = "rk_shop_" + "a" * 32, "rk_old_" + "b" * 32
    path = tmp_path / "keys.toml"
    digests = {
        "digest": hashlib.sha256(good.encode()).hexdigest(),
        "digest_old": hashlib.sha256(old.encode()).hexdigest(),
    }
    path.write_text(KEY_FILE.format(**digests))
    path.chmod(0o600)
    return path, good, old


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_backend_publishes_a_viewer_sees_it_and_is_kicked() -> None:
    async with api() as (broker, client), joined_link(broker, "dev:ann", "live-1") as (ann, _):
        answer = await client.post("/v1/messages/publish", json={"room": "live-1", "type": 4, "payload": ["欢迎"]})
        assert (answer.status_code, answer.json()) == (
            200, {"outcome": "accepted", "offset": 1, "code": None, "retry_after_ms": None, "repeated": False},
        )  # fmt: skip
        _, event = await ann.expect(Event)
        assert event.payload == ("欢迎",)
        kicked = await client.post("/v1/users/kick", json={"room": "live-1", "user": "ann", "reason": "spam"})
        assert kicked.json() == {"links": 1}
        _, left = await ann.expect(Left)
        assert left.message == "spam"


async def test_keys_are_judged(keys: tuple[Path, str, str]) -> None:
    path, good, old = keys
    secret = {"auth": {"secret": "x" * 32}}
    async with api(api={"key_file": str(path)}, **secret) as (_, client):
        body = {"room": "live-1"}
        assert (await client.post("/v1/rooms/open", json=body, headers=bearer(good))).status_code == 200
        for headers in ({}, bearer("rk_shop_" + "c" * 32), bearer(old), bearer("x"), {"Authorization": good}):
            answer = await client.post("/v1/rooms/open", json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "AUTH_FAILED")
            assert answer.headers["www-authenticate"] == "Bearer"
        wrong_room = await client.post("/v1/rooms/open", json={"room": "other"}, headers=bearer(good))
        assert (wrong_room.status_code, wrong_room.json()["field"]) == (403, "room")
        wrong_scope = await client.post("/v1/broker/status", json={}, headers=bearer(good))
        assert (wrong_scope.status_code, wrong_scope.json()["code"]) == (403, "NOT_ALLOWED")
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/healthz")).status_code == 200


async def test_a_signed_request_is_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(f'[[key]]\nid = "shop"\nhmac = "{"c" * 43}"\nscopes = ["admin"]\n')
    path.chmod(0o600)
    secret = base64.urlsafe_b64decode("c" * 43 + "=")
    behind_s = 20

    def wall_ms() -> int:
        return time.time_ns() // 1_000_000 - 1000 * behind_s

    async with api(api={"key_file": str(path)}, auth={"secret": "x" * 32}, wall_ms=wall_ms) as (_, client):
        behind_s = 0  # the broker has been up for 20 s

        def sign(nonce: str, body: bytes, after_s: int = 2) -> dict[str, str]:
            created = int(time.time()) + after_s
            digest = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
            covered = f'("@method" "@path" "content-digest");created={created};keyid="shop";nonce="{nonce}"'
            lines = '"@method": POST', '"@path": /v1/rooms/open', f'"content-digest": {digest}'
            base = "\n".join((*lines, f'"@signature-params": {covered}'))
            made = base64.b64encode(hmac.digest(secret, base.encode(), "sha256")).decode()
            return {
                "Content-Digest": digest, "Signature-Input": f"a={covered}", "Signature": f"a=:{made}:",
                "Content-Type": "application/json",
            }  # fmt: skip

        body = b'{"room": "live-1"}'
        for headers, sent, status, field in (
            (sign("nonce-001", body), body, 200, None),
            (sign("nonce-001", body), body, 401, "Signature"),
            (sign("nonce-002", body), body.replace(b"1", b"2"), 401, "Content-Digest"),
            (sign("nonce-003", body) | {"Signature": "a=:AAAA:"}, body, 401, "Signature"),
            (sign("nonce-004", body, after_s=-100), body, 429, "Signature"),  # the process may have seen it, and ended
        ):
            answer = await client.post("/v1/rooms/open", content=sent, headers=headers)
            assert (answer.status_code, answer.json().get("field")) == (status, field)


async def test_many_requests_without_a_key_from_one_address_are_refused_early(
    keys: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, *_ = keys
    monkeypatch.setattr(app, "REFUSALS", Rate(0.001, app.REFUSALS.burst))  # a slow machine must not refill it
    async with api(api={"key_file": str(path)}, auth={"secret": "x" * 32}) as (_, client):
        statuses = [(await client.post("/v1/rooms/list", json={})).status_code for _ in range(25)]
        assert statuses[0] == 401
        assert statuses[-1] == 429


@pytest.mark.parametrize(
    ("body", "content_type", "status", "field"),
    [
        (b'{"room": "live-1", "rom": 1}', "application/json", 400, "rom"),
        (b'{"room": 5}', "application/json", 400, "room"),
        (b"{}", "application/json", 400, "room"),
        (b'{"room": "live-1", "": 1}', "application/json", 400, '""'),
        (b'{"room": "a", "room": "b"}', "application/json", 400, None),
        (b'{"room": NaN}', "application/json", 400, None),
        (b"[" * 100_000, "application/json", 400, None),
        (b'{"room": "\\ud800"}', "application/json", 400, "room"),
        (b"\xff\xfe", "application/json", 400, None),
        (b'\xef\xbb\xbf{"room": "live-1"}', "application/json", 400, None),
        (b'{"room": 1e999}', "application/json", 400, "room"),
        (b'{"room": ' + b"9" * 5000 + b"}", "application/json", 400, None),
        (b'{"room": "live-1", "deep": {"a": [[[[]]]]}}', "application/json", 400, "deep"),
        (b"[]", "application/json", 400, None),
        (b'{"room": "live-1"}', "text/plain", 415, "Content-Type"),
    ],
)
async def test_bad_bodies_are_named(body: bytes, content_type: str, status: int, field: str | None) -> None:
    async with api() as (_, client):
        answer = await client.post("/v1/rooms/open", content=body, headers={"Content-Type": content_type})
        problem = answer.json()
        assert (answer.status_code, problem.get("field")) == (status, field), problem
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == problem["request_id"]


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_above_one_mebibyte_is_refused(is_announced: bool) -> None:
    async with api() as (broker, _):
        port = int(broker.api_urls[0].rpartition(":")[2])
        size = "Content-Length: 1048577" if is_announced else "Transfer-Encoding: chunked"
        head = f"POST /v1/rooms/open HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{size}\r\n\r\n"
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(head.encode())
            if not is_announced:
                for _ in range(17):
                    await stream.send_all(b"10000\r\n" + b" " * 65536 + b"\r\n")
            with trio.fail_after(20):
                answer = await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("query", ["dry_run=yes", "dry_run=", "dry_run=1&dry_run=0", "dryrun=1", "x"])
async def test_a_parameter_that_is_none_is_refused_by_name(query: str) -> None:
    async with api() as (broker, client):
        answer = await client.post(f"/v1/rooms/open?{query}", json={"room": "live-1"})
        assert (answer.status_code, answer.json()["field"]) == (400, query.partition("=")[0])
        assert len(broker.hub) == 0
        assert (await client.post("/v1/rooms/list?dry_run=1", json={})).status_code == 400
        for value, rooms in (("true", 0), ("false", 1)):
            await client.post(f"/v1/rooms/open?dry_run={value}", json={"room": "live-1"})
            assert len(broker.hub) == rooms


async def test_a_number_in_place_of_a_name_and_an_empty_key_are_refused() -> None:
    async with api() as (_, client):
        answer = await client.post("/v1/rooms/set_phase", json={"room": "live-1", "phase": 2})
        assert (answer.status_code, answer.json()["field"]) == (400, "phase")
        for key in ("", "a b", "x" * 129):
            answer = await client.post("/v1/rooms/open", json={"room": "live-1"}, headers={"Idempotency-Key": key})
            assert (answer.status_code, answer.json()["field"]) == (400, "Idempotency-Key")


async def test_other_methods_and_paths_are_problems_too() -> None:
    async with api() as (_, client):
        for method, path, allow in (("GET", "/v1/rooms/open", "POST"), ("POST", "/healthz", "GET, HEAD")):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allow)
        assert (await client.post("/v1/rooms/burn", json={})).status_code == 404
        assert (await client.get("/v2")).json()["status"] == 404


async def test_answers_say_how_much_of_the_limits_is_left() -> None:
    rate = BY_NAME["broker.drain"].rate
    async with api() as (_, client):
        for left in (rate.burst - 1, rate.burst - 2):
            answer = await client.post("/v1/broker/drain?dry_run=1", json={})
            policies = f'"key";q=1000;w=2, "operation";q={rate.burst};w={ceil(rate.burst / rate.per_s)}'
            assert answer.headers["ratelimit-policy"] == policies
            key, operation = answer.headers["ratelimit"].split(", ")
            assert re.fullmatch(r'"key";r=(99[89]|1000);t=[01]', key)
            assert left <= int(re.fullmatch(r'"operation";r=(\d+);t=\d', operation)[1]) < rate.burst  # type: ignore[index]
        wrong = await client.post("/v1/broker/status", json={"x": 1})
        assert "ratelimit" in wrong.headers
        assert wrong.headers["x-request-id"] != answer.headers["x-request-id"]


async def test_an_idempotency_key_replays_the_answer() -> None:
    async with api() as (_, client):
        body = {"room": "live-1", "type": 4, "payload": ["once"]}
        headers = {"Idempotency-Key": "k-1"}
        first = await client.post("/v1/messages/publish", json=body, headers=headers)
        again = await client.post("/v1/messages/publish", json=body, headers=headers)
        assert again.json() == first.json()
        assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
        other = await client.post("/v1/messages/publish", json=body | {"payload": ["twice"]}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (409, "KEY_REUSED")


async def test_an_order_is_one_order_over_http_and_restarts(tmp_path: Path) -> None:
    gift = {"room": "live-1", "type": 5, "payload": ["order-1", "ann", "Ann", "rose", 1, 100, ""]}
    offsets = []
    for is_again in (False, True):
        async with api(ledger={"data_dir": str(tmp_path / "data")}) as (_, client):
            answer = (await client.post("/v1/messages/publish", json=gift)).json()
            assert (answer["outcome"], answer["repeated"]) == ("accepted", is_again)
            offsets.append(answer["offset"])
            other = await client.post("/v1/messages/publish", json=gift | {"room": "live-2"})
            assert other.json()["outcome"] == "rejected"
    assert offsets[0] == offsets[1]


async def test_development_mode_serves_this_machine_only() -> None:
    async with api() as (_, client):
        for headers in (
            {"Host": "evil.example"},
            {"Origin": "https://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"X-Forwarded-For": "203.0.113.7"},
            {"Forwarded": "for=203.0.113.7"},
        ):
            answer = await client.post("/v1/rooms/list", json={}, headers=headers)
            assert answer.status_code == 403


async def test_a_socket_file_is_private_to_its_group_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with api(listen_api=f"unix:{path}") as (_, client):
        assert (await client.post("/v1/rooms/list", json={})).status_code == 200
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    assert not await trio.Path(path).exists()


HOSTILE = [
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: \xff\xfe\r\n\r\n",
    b"POST /v1/rooms/open HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/rooms/open HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    b"POST /v1/rooms/open HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    b"",
]


async def test_hostile_requests_leave_the_broker_alive() -> None:
    async with api() as (broker, client):
        port = int(broker.api_urls[0].rpartition(":")[2])
        for data in HOSTILE:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(data)
                with trio.move_on_after(0.3):
                    await stream.receive_some()
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.post("/v1/rooms/list", json={})).status_code == 200


async def test_a_broker_that_drains_takes_no_calls() -> None:
    async with api() as (broker, client):
        broker.draining = True
        answer = await client.post("/v1/rooms/list", json={})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        broker.draining = False


async def test_the_documents_are_served() -> None:
    async with api() as (_, client):
        assert (await client.get("/v1/openapi.json")).json()["openapi"] == "3.1.0"
        page = await client.get("/docs")
        assert "rooms.open" in page.text or "/v1/rooms/open" in page.text
        assert "<code>order_id</code> string, <code>user_id</code> string" in page.text  # of the message type gift
        assert "<code>gift.accepted</code>" in page.text
        assert "<code>ban_s</code>: and ban it for so long" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "roomcast_connections" in (await client.get("/metrics")).text
        assert json.loads((await client.get("/readyz")).text)["status"] == "ok"


async def test_a_key_of_a_tenant_is_for_its_rooms_alone(tmp_path: Path) -> None:
    import hashlib

    path, names = tmp_path / "keys.toml", ("acme", "globex", "none")
    keys = {name: f"rk_{name}_" + name[0] * 32 for name in names}
    path.write_text(
        "".join(
            f'[[key]]\nid = "{name}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'
            f'scopes = ["admin"]\nrooms = ["live-*"]\n' + (f'tenant = "{name}"\n' if name != "none" else "")
            for name, key in keys.items()
        )
    )
    path.chmod(0o600)
    secret = {"auth": {"secret": "x" * 32}, "tenants": [{"name": "acme"}]}
    async with api(api={"key_file": str(path)}, **secret) as (broker, client):
        found = {}
        for name, key in keys.items():
            opened = await client.post("/v1/rooms/open", json={"room": "live-1"}, headers=bearer(key))
            listed = await client.post("/v1/rooms/list", json={}, headers=bearer(key))
            other = await client.post("/v1/rooms/open", json={"room": "shop"}, headers=bearer(key))
            metrics = await client.get("/metrics", headers=bearer(key))
            status = await client.post("/v1/broker/status", json={}, headers=bearer(key))
            answers = opened, listed, other, metrics, status
            found[name] = [answer.status_code for answer in answers]
            if opened.status_code == 200:
                assert opened.json()["room"] == "live-1"
                assert [item["room"] for item in listed.json()["items"]] == ["live-1"]
        assert found == {
            "acme": [200, 200, 403, 403, 403], "globex": [403, 403, 403, 403, 403], "none": [200, 200, 403, 200, 200],
        }  # fmt: skip
        assert {room.name for room in broker.hub} == {"live-1", "acme\x1flive-1"}


async def test_the_bounds_of_requests_and_connections_are_reloaded() -> None:
    async with api(api={"requests_per_s": 500}) as (broker, client):
        first = await client.post("/v1/rooms/list", json={})
        assert '"key";q=1000;w=2' in first.headers["RateLimit-Policy"]
        bounds = msgspec.structs.replace(broker.config.api, requests_per_s=1.0)
        assert broker.reload(msgspec.structs.replace(broker.config, api=bounds)) == []
        statuses = [(await client.post("/v1/rooms/list", json={})).status_code for _ in range(4)]
        assert statuses[:2] == [200, 200]
        assert 429 in statuses[2:]
    async with api() as (broker, _):
        bounds = msgspec.structs.replace(broker.config.api, max_connections=2)
        assert broker.reload(msgspec.structs.replace(broker.config, api=bounds)) == []
        async with (
            await trio.open_tcp_stream("127.0.0.1", int(broker.api_urls[0].rpartition(":")[2])),
            httpx.AsyncClient(base_url=broker.api_urls[0], trust_env=False) as second,
        ):
            await until(lambda: broker.api_limits.held == 1)
            assert (await second.get("/healthz")).status_code == 429, "half of two connections are of one address"
