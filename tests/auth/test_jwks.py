"""Keys of a URL: fetched from a real server on loopback, kept while it fails, never waited for by a connection."""

from __future__ import annotations

import gzip
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from broker.auth import jwks as module
from broker.auth.grants import AuthError, KeysPending
from broker.auth.jwks import MAX_BYTES, JwksSource
from broker.auth.tokens import Authenticator
from broker.config.schema import AuthConfig
from protocol.codes import CloseCode
from protocol.messages import Auth
from tests.support.broker import raw_link, running_broker
from tests.support.jwks_server import JwksServer, jwks_server, response
from tests.support.keys import jwk, jwks, key_pair, private_pem, signed
from tests.support.tokens import GOOD, NOW, SECRET, Clock
from tests.support.until import until

ONE = jwks(jwk("ES256", "one", kid="one"))
BOTH = jwks(jwk("ES256", "one", kid="one"), jwk("EdDSA", "two", kid="two"))
TWO = jwks(jwk("EdDSA", "two", kid="two"))


def token_of(name: str, **claims: Any) -> str:
    algorithm = {"one": "ES256", "two": "EdDSA"}[name]
    return signed(algorithm, GOOD | claims, key_pair(algorithm, name), kid=name)


class Parts:
    """An authenticator with the source of its keys, as a broker has them."""

    def __init__(self, config: AuthConfig) -> None:
        self.source = JwksSource(config, lambda keys: self.auth.use_url_keys(keys), trio.current_time)
        self.auth = Authenticator(config, Clock(), random.Random(1), self.source.request)


@asynccontextmanager
async def parts(server: JwksServer, **settings: Any) -> AsyncIterator[Parts]:
    chosen: dict[str, Any] = {"jwks_url": server.url, "jwks_refresh_s": 3600.0, "jwks_min_refresh_s": 3600.0} | settings
    made = Parts(AuthConfig(**chosen))
    async with trio.open_nursery() as nursery:
        await nursery.start(made.source.run)
        yield made
        nursery.cancel_scope.cancel()


async def test_the_keys_of_the_url_verify_tokens() -> None:
    async with jwks_server() as server:
        server.answer = response(BOTH)
        async with parts(server) as made:
            assert made.auth.verify(token_of("one")).user_id == made.auth.verify(token_of("two")).user_id
            assert (made.source.fetched, made.source.failed, server.requests) == (1, 0, 1)
            assert not made.source.is_stale
            assert b"Accept-Encoding: identity" in server.heads[0]
            with pytest.raises(AuthError):
                made.auth.verify(signed("ES256", GOOD, key_pair("ES256", "other"), kid="one"))


async def test_an_unknown_kid_brings_one_fetch_and_then_none_for_a_while() -> None:
    async with jwks_server() as server:
        server.answer = response(ONE)
        async with parts(server, jwks_min_refresh_s=0.3) as made:
            await trio.sleep(0.35)  # the first fetch counts too
            server.answer = response(BOTH)
            for _ in range(50):
                with pytest.raises(KeysPending):
                    made.auth.verify(token_of("two"))
            await until(lambda: made.source.fetched == 2)
            assert made.auth.verify(token_of("two")).user_id == "u1"
            for number in range(50):  # a flood of invented ids
                with pytest.raises(AuthError) as refused:
                    made.auth.verify(signed("EdDSA", kid=f"invented-{number}"))
                assert type(refused.value) is AuthError
                await trio.lowlevel.checkpoint()
            assert server.requests == 2


async def test_an_unknown_kid_of_another_algorithm_brings_no_fetch() -> None:
    async with jwks_server() as server:
        server.answer = response(ONE)
        async with parts(server, jwks_min_refresh_s=0.0, secret=SECRET) as made:
            for header in ({"alg": "none"}, {"alg": "HS512"}):
                with pytest.raises(AuthError) as refused:
                    made.auth.verify(signed("EdDSA", kid="two", **header))
                assert type(refused.value) is AuthError
            await trio.testing.wait_all_tasks_blocked()
            assert server.requests == 1


BAD_ANSWERS: dict[str, bytes] = {
    "500": response("", "500 Internal Server Error"),
    "redirect": response(BOTH, "301 Moved Permanently", "Location: http://127.0.0.1:1/"),
    "not found with keys": response(BOTH, "404 Not Found"),
    "empty": response(""),
    "no JSON": response("<html>"),
    "not UTF-8": response(b"\xff\xfe"),
    "no keys": response(jwks()),
    "a private key": response(private_pem(key_pair("EdDSA"))),
    "only a symmetric key": response(jwks({"kty": "oct", "k": "AAAA", "kid": "one"})),
    "compressed": response(gzip.compress(BOTH.encode()), "200 OK", "Content-Encoding: gzip"),
    "too large": response(b" " * (MAX_BYTES + 1) + BOTH.encode()),
    "endless": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b" " * 65536 * 6,
    "broken off": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "no HTTP": b"\x00\x01\x02",
    "huge headers": b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 10**6,
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ANSWERS)
async def test_the_last_good_keys_are_used_while_the_url_fails(case: str) -> None:
    async with jwks_server() as server:
        server.answer = response(ONE)
        async with parts(server, jwks_refresh_s=0.05) as made:
            server.answer = BAD_ANSWERS[case]
            await until(lambda: made.source.failed > 0)
            assert made.auth.verify(token_of("one")).user_id == "u1"
            server.answer = response(TWO)
            await until(lambda: made.auth.keys == 1 and made.source.fetched > 1 and made.source.age_s < 0.5)
            await until(lambda: verifies(made.auth, "two"))
            assert not verifies(made.auth, "one"), "a key that was taken out verifies nothing, in the cache neither"


def verifies(auth: Authenticator, name: str) -> bool:
    try:
        return auth.verify(token_of(name)).user_id == "u1"
    except AuthError:
        return False


async def test_a_url_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCH_S", 0.1)
    async with jwks_server() as server:
        server.answer = None
        async with parts(server) as made:
            assert (made.source.fetched, made.source.failed) == (0, 1)
            assert made.source.is_stale
            with pytest.raises(KeysPending):
                made.auth.verify(token_of("one"))


async def test_keys_that_are_too_old_are_reported_and_go_on_verifying() -> None:
    async with jwks_server() as server:
        server.answer = response(ONE)
        async with parts(server, jwks_refresh_s=0.05, jwks_max_age_s=0.2) as made:
            server.answer = response("", "503 Service Unavailable")
            await until(lambda: made.source.is_stale)
            assert made.source.age_s > 0.2
            assert verifies(made.auth, "one")
            server.answer = response(ONE)
            await until(lambda: not made.source.is_stale)


async def test_a_reload_changes_the_url_and_takes_it_away() -> None:
    async with jwks_server() as server, jwks_server() as other:
        server.answer, other.answer = response(ONE), None
        async with parts(server, secret=SECRET) as made:
            config = AuthConfig(secret=SECRET, jwks_url=other.url, jwks_refresh_s=0.05, jwks_min_refresh_s=1.0)
            made.auth.use(config, made.auth.keyring_of(config))
            made.source.use(config, made.source.context_of(config))
            await until(lambda: other.requests == 1)
            assert verifies(made.auth, "one"), "the keys before are used until the others are there"
            other.answer = response(TWO)
            config = AuthConfig(secret=SECRET)
            made.auth.use(config, made.auth.keyring_of(config))
            made.source.use(config, made.source.context_of(config))
            assert not verifies(made.auth, "one")
            assert (made.auth.keys, made.source.is_stale, made.source.age_s) == (1, False, 0.0)
            assert not made.source.request()


@pytest.mark.integration
async def test_a_broker_is_ready_with_keys_alone_and_a_viewer_with_a_new_key_comes_back() -> None:
    async with jwks_server() as server:
        server.answer = response("", "503 Service Unavailable")
        settings = {"jwks_url": server.url, "jwks_min_refresh_s": 1, "jwks_refresh_s": 3600, "jwks_max_age_s": 3600}
        async with running_broker(auth=settings, ledger={"ephemeral": True}, wall_ms=lambda: int(NOW * 1000)) as broker:
            ready, fields = broker.status()
            assert (ready, fields["status"], fields["keys"]) == (False, "degraded", "stale")
            async with raw_link(broker) as link:
                await link.hello()
                await link.send((Auth(token_of("one")), 0, 0))
                closed = await link.expect_close()
                assert (closed.code, closed.retry_after_ms) == (CloseCode.OVERLOADED, 1000)
            server.answer = response(ONE)
            await until(lambda: broker.status()[0])
            async with raw_link(broker) as link:
                assert (await link.login(token_of("one"))).user_id == "u1"
            async with raw_link(broker) as link:
                await link.hello()
                await link.send((Auth(signed("ES256", GOOD, kid="one")), 0, 0))
                assert (await link.expect_close()).code == CloseCode.AUTH_FAILED
