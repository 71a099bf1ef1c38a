"""A broker inside a Trio program: its life, calls of operations in process, clients without a port."""

from __future__ import annotations

import inspect
import socket
from typing import Any

import pytest
import trio

from broker import Broker, Config, OperationError, roomcast_broker
from broker.config.schema import LedgerConfig, ListenConfig
from broker.config.sections import ApiConfig
from broker.rooms.fanout import FanOut
from protocol.codes import ErrorCode, Outcome
from protocol.fields import RECORD_SCHEMAS
from protocol.operations import OPERATIONS

pytestmark = pytest.mark.integration

ON_A_FREE_PORT = Config(listen=ListenConfig(port=0), ledger=LedgerConfig(ephemeral=True))


async def test_operations_and_clients_need_no_port() -> None:
    async with roomcast_broker(listens=False) as broker:
        assert broker.addresses == ()
        opened = await broker.call("rooms.open", room="live-1")
        assert opened.room == "live-1"
        async with broker.connect("dev:ann") as ann, broker.connect("dev:bob") as bob:
            room = await ann.join("live-1")
            others = await bob.join("live-1")
            assert (await room.post_danmaku("你好")).outcome is Outcome.ACCEPTED
            published = await broker.call("messages.publish", room="live-1", type=4, payload=["欢迎"])
            assert published.offset == 1
            with trio.fail_after(20):
                async for event in others:
                    if getattr(event, "payload", None) == ("欢迎",):
                        break
            assert (await broker.call("rooms.get", room="live-1")).online == 2
            assert (await broker.call("users.kick", room="live-1", user="bob", reason="spam")).links == 1
        assert broker.stats().posts >= 1
    assert broker.stopped.is_set()


async def test_a_port_is_served_as_ever() -> None:
    async with roomcast_broker(ON_A_FREE_PORT) as broker:
        async with await trio.open_tcp_stream(*broker.addresses[0]) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_what_is_refused_is_typed() -> None:
    async with roomcast_broker(listens=False) as broker:
        wrong: list[tuple[dict[str, Any], ErrorCode, str]] = [
            ({"room": "live-1", "title": 5}, ErrorCode.BAD_FIELD, "title"),
            ({"room": "live-1", "rom": 5}, ErrorCode.BAD_FIELD, "rom"),
            ({}, ErrorCode.BAD_FIELD, "room"),
        ]
        for fields, code, field in wrong:
            with pytest.raises(OperationError) as caught:
                await broker.call("rooms.open", **fields)
            assert (caught.value.code, caught.value.field) == (code, field)
        with pytest.raises(OperationError) as caught:
            await broker.call("rooms.get", room="nowhere")
        assert caught.value.code is ErrorCode.UNKNOWN_ROOM
        with pytest.raises(ValueError, match=r"'rooms\.burn' is no operation"):
            await broker.call("rooms.burn")


async def test_a_key_and_a_dry_run_are_those_of_the_control_api() -> None:
    async with roomcast_broker(listens=False) as broker:
        await broker.call("rooms.open", dry_run=True, room="live-1")
        assert len(broker.hub) == 0
        gift: dict[str, Any] = {"room": "live-1", "type": 4, "payload": ["once"]}
        first = await broker.call("messages.publish", idempotency_key="k", **gift)
        assert await broker.call("messages.publish", idempotency_key="k", **gift) == first
        assert broker.hub.find("live-1").state.last_offset == 1  # type: ignore[union-attr]


def test_no_request_has_a_field_that_a_call_uses_itself() -> None:
    parameters = inspect.signature(Broker.call).parameters.values()
    used = {each.name for each in parameters if each.kind not in (each.POSITIONAL_ONLY, each.VAR_KEYWORD)}
    assert used == {"idempotency_key", "dry_run", "tenant"}
    for row in OPERATIONS:
        assert not used & RECORD_SCHEMAS[row.request.__name__]["properties"].keys(), row.name


async def test_an_exception_of_the_block_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with roomcast_broker(listens=False) as broker:
            raise KeyError("mine")
    assert broker.stopped.is_set()


async def test_a_block_that_is_cancelled_ends_its_broker() -> None:
    with trio.move_on_after(0.2) as scope:
        async with roomcast_broker(listens=False) as broker:
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert broker.stopped.is_set()


async def test_a_broker_that_cannot_start_says_why() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = ListenConfig(port=taken.getsockname()[1])
        with pytest.RaisesGroup(pytest.RaisesExc(OSError), flatten_subgroups=True):
            async with roomcast_broker(Config(listen=listen, ledger=LedgerConfig(ephemeral=True))):
                pass


async def test_a_broker_that_fails_cancels_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: FanOut, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(0.05)
        raise RuntimeError("a defect")

    monkeypatch.setattr(FanOut, "run", fail)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a defect"), flatten_subgroups=True):
        async with roomcast_broker(listens=False):
            await trio.sleep_forever()


async def test_the_control_api_is_served_where_it_is_configured() -> None:
    config = Config(
        listen=ListenConfig(port=0), ledger=LedgerConfig(ephemeral=True), api=ApiConfig(listen="127.0.0.1:0")
    )
    async with roomcast_broker(config) as broker:
        assert broker.api_urls[0].startswith("http://127.0.0.1:")
