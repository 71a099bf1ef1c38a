"""Idempotency keys of backends and ``client_msg_id`` of viewers: neither can use up one of the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.core.rooms.idempotency import OperationKey, call_id, call_key, post_key
from broker.operations.caller import OperationError
from broker.server import Broker
from protocol.codes import ErrorCode, MessageType, Outcome
from protocol.messages import Ack, Post
from protocol.operations import BY_NAME
from protocol.payloads import AnnouncementPayload
from tests.support.broker import running_broker
from tests.support.durable import durable_broker
from tests.support.tenants import backend, tenant_link
from tests.support.tokens import SECRET

AUTH: dict[str, Any] = {"auth": {"secret": SECRET}}


def test_the_key_of_a_call_is_that_of_its_post_and_of_no_client() -> None:
    post = Post(MessageType.ANNOUNCEMENT, call_id("messages.publish 4 shop:k1", b"12345678"), AnnouncementPayload("a"))
    assert post_key("shop", post) == call_key("messages.publish 4 shop:k1", b"12345678")
    of_client = post_key("shop", post._replace(client_msg_id="messages.publish 4 shop:k1"))
    assert isinstance(of_client, OperationKey)
    assert of_client.parts[0] == "post"


async def _call(broker: Broker, name: str, arguments: tuple[Any, ...]) -> Any:
    result, _ = await broker.operations.call(backend("", "k1"), BY_NAME[name], arguments)
    return result


@pytest.mark.integration
async def test_a_key_with_another_user_is_refused_after_a_restart(directory: Path) -> None:
    async with durable_broker(directory, **AUTH) as broker:
        first = await _call(broker, "directs.send", ("ann", 4, ("code",)))
    async with durable_broker(directory, **AUTH) as broker:
        with pytest.raises(OperationError) as caught:
            await _call(broker, "directs.send", ("bob", 4, ("code",)))
        assert (caught.value.code, caught.value.field) == (ErrorCode.KEY_REUSED, "key")
        again = await _call(broker, "directs.send", ("ann", 4, ("code",)))
        assert (again.id, again.repeated) == (first.id, True)


@pytest.mark.integration
async def test_a_client_cannot_occupy_the_key_of_a_backend() -> None:
    async with running_broker(**AUTH) as broker, tenant_link(broker, "", "shop", "host") as link:
        joined, _ = await link.join("live-1")
        for number, name in enumerate(("shop:k1", "k1", "messages.publish 4 shop:k1", "4 shop:k1"), 1):
            post = Post(MessageType.ANNOUNCEMENT, name, AnnouncementPayload("of the viewer"))
            await link.send((post, joined, number))
            _, ack = await link.expect(Ack)
            assert ack.results[0].outcome is Outcome.ACCEPTED
        published, _ = await broker.operations.call(
            backend("", "k1"), BY_NAME["messages.publish"], ("live-1", MessageType.ANNOUNCEMENT, ("of the shop",))
        )
        assert (published.outcome, published.repeated) == (Outcome.ACCEPTED, False)


@pytest.mark.integration
@pytest.mark.parametrize(
    "other",
    [("live-2", 4, ("first",)), ("live-1", 4, ("other",)), ("live-1", 4, ("first",), "", "ann")],
    ids=["room", "payload", "as_user"],
)
async def test_a_key_with_other_content_is_refused_after_a_restart(directory: Path, other: tuple[Any, ...]) -> None:
    async def publish(broker: Broker, arguments: tuple[Any, ...]) -> Any:
        return await _call(broker, "messages.publish", arguments)

    async with durable_broker(directory, **AUTH) as broker:
        first = await publish(broker, ("live-1", 4, ("first",)))
    async with durable_broker(directory, **AUTH) as broker:
        with pytest.raises(OperationError) as caught:
            await publish(broker, other)
        assert (caught.value.code, caught.value.field) == (ErrorCode.KEY_REUSED, "key")
        again = await publish(broker, ("live-1", 4, ("first",)))
        assert (again.offset, again.repeated) == (first.offset, True)
