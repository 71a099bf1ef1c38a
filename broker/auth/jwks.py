"""The platform's public keys from a URL: fetched in the background, bounded in size and time, never by a connection.

A task fetches the set when the broker starts, every ``auth.jwks_refresh_s``, and when a token names a key that is not
in it, then at most once in ``auth.jwks_min_refresh_s``. While the URL fails, the last good set is used, and the task
tries again after 1 s, then twice as long each time; after ``auth.jwks_max_age_s`` the broker is not ready any more. A
redirect, a compressed body, a body above `MAX_BYTES` and a set without a usable key are failures.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import httpx
import structlog
import trio

from broker.auth.jws import PublicKey
from broker.auth.keys import KeysRead, parse_public_keys
from broker.config.files import openssl_path
from broker.config.schema import AuthConfig

__all__ = ["FETCH_S", "MAX_BYTES", "JwksSource"]

log = structlog.get_logger("roomcast.auth")

FETCH_S = 10.0
"""Deadline of one fetch, connecting and the whole body included."""
MAX_BYTES = 256 * 1024
FIRST_RETRY_S = 1.0
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "roomcast"}


class _FetchFailed(Exception):
    """The set could not be fetched; ``str()`` is the reason for the log."""


class JwksSource:
    """Keys of one URL. Counters ``fetched`` (good sets) and ``failed`` only grow.

    ``on_keys`` gets every set that differs from the one before, and an empty one when the URL is taken away. ``clock``
    gives monotonic seconds.
    """

    def __init__(
        self, config: AuthConfig, on_keys: Callable[[tuple[PublicKey, ...]], None], clock: Callable[[], float]
    ) -> None:
        """OSError if the authorities of ``auth.jwks_ca_file`` cannot be used."""
        self.fetched = self.failed = 0
        self._on_keys = on_keys
        self._clock = clock
        self._wake = trio.Event()
        self._text = ""
        """The set in use."""
        self._good_at: float | None = None
        self._next_request_at = 0.0
        """Before then, an unknown key starts no fetch."""
        self._fetching = False
        self._config = config
        self._context = self.context_of(config)

    @staticmethod
    def context_of(config: AuthConfig) -> ssl.SSLContext | None:
        """Return the TLS context of a configuration, None without a URL. OSError if its file cannot be used."""
        if config.jwks_url is None:
            return None
        if config.jwks_ca_file is None:
            context = ssl.create_default_context()
        else:
            with openssl_path(config.jwks_ca_file) as path:
                context = ssl.create_default_context(cafile=path)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def use(self, config: AuthConfig, context: ssl.SSLContext | None) -> None:
        """Fetch by another configuration from now on. The keys of another URL are used until its own are there."""
        other = config.jwks_url != self._config.jwks_url
        self._config, self._context = config, context
        if config.jwks_url is None and self._text:
            self._text, self._good_at = "", None
            self._on_keys(())
        if other:
            self._good_at = None
            self._wake.set()

    @property
    def age_s(self) -> float:
        """Seconds since the last good fetch; 0 without a URL or before the first."""
        return 0.0 if self._good_at is None else self._clock() - self._good_at

    @property
    def is_stale(self) -> bool:
        """Whether there is a URL and no set, or one older than ``auth.jwks_max_age_s``."""
        if self._config.jwks_url is None:
            return False
        return self._good_at is None or self.age_s > self._config.jwks_max_age_s

    def request(self) -> bool:
        """Ask for a newer set, as a token names an unknown key; return whether one may come within seconds."""
        if self._config.jwks_url is None:
            return False
        if not self._fetching and self._clock() >= self._next_request_at:
            self._wake.set()
        return self._fetching or self._wake.is_set() or self._good_at is None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch until cancelled; started after the first attempt."""
        retry_s, is_started = FIRST_RETRY_S, False
        while True:
            self._wake = trio.Event()
            if self._config.jwks_url is None:
                wait_s = float("inf")
            elif await self._refresh(self._config.jwks_url):
                wait_s, retry_s = self._config.jwks_refresh_s, FIRST_RETRY_S
            else:
                wait_s = min(retry_s, self._config.jwks_refresh_s)
                retry_s *= 2
            if not is_started:
                task_status.started()
                is_started = True
            with trio.move_on_after(wait_s):
                await self._wake.wait()

    async def _refresh(self, url: str) -> bool:
        """Fetch the set and use it; False, with the one before in use, if it cannot be."""
        self._fetching = True
        self._next_request_at = self._clock() + self._config.jwks_min_refresh_s
        try:
            text = await self._fetch(url)
            if text == self._text:
                read = None
            else:
                read = _usable(text)
        except _FetchFailed as failure:
            self.failed += 1
            log.warning("keys not fetched", url=url, why=str(failure), age_s=round(self.age_s))
            return False
        finally:
            self._fetching = False
        if url != self._config.jwks_url:  # it was changed meanwhile
            return False
        self.fetched += 1
        self._good_at = self._clock()
        if read is not None:
            self._text = text
            names = [key.key_id for key in read.keys]
            log.info("keys fetched", url=url, keys=names)
            if read.refused:
                log.warning("keys of the URL refused", url=url, why=read.refused)
            self._on_keys(read.keys)
        return True

    async def _fetch(self, url: str) -> str:
        """Return the body of the URL. _FetchFailed for anything but a 200 with at most `MAX_BYTES` of UTF-8."""
        body, transport = bytearray(), httpx.AsyncHTTPTransport(verify=self._context or False, trust_env=False)
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), FETCH_S)
        try:
            with trio.fail_after(FETCH_S):
                async with transport:
                    request = httpx.Request("GET", url, headers=_HEADERS, extensions={"timeout": timeout})
                    response = await transport.handle_async_request(request)
                    try:
                        _check(response)
                        assert isinstance(response.stream, httpx.AsyncByteStream)
                        with trio.CancelScope() as reading:
                            async for part in response.stream:
                                body += part
                                if len(body) > MAX_BYTES:
                                    reading.cancel()  # leaving the loop would leave its generators to the collector
                    finally:
                        await response.aclose()
            if len(body) > MAX_BYTES:
                raise _FetchFailed(f"the body has more than {MAX_BYTES} bytes")
            return body.decode()
        except trio.TooSlowError:
            raise _FetchFailed(f"no answer within {FETCH_S:g} s") from None
        except UnicodeDecodeError:
            raise _FetchFailed("the body is not UTF-8") from None
        except (httpx.HTTPError, OSError) as error:
            raise _FetchFailed(f"{type(error).__name__}: {error}"[:200]) from None


def _check(response: httpx.Response) -> None:
    if response.status_code != 200:
        raise _FetchFailed(f"status {response.status_code}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _FetchFailed("the body is compressed")


def _usable(text: str) -> KeysRead:
    read = parse_public_keys(text)
    if not read.keys:
        raise _FetchFailed("no usable key: " + (read.refused[0] if read.refused else "there is none for a signature"))
    return read
