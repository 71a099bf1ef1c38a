"""Transports of the control API's client over httpx: synchronous, and asynchronous under Trio or asyncio."""

from __future__ import annotations

import ssl
import time
from types import TracebackType
from typing import Any

import anyio
import httpx

from .calls import ApiCall, BackendError, NoAnswer
from .operations import AsyncOperationCalls, OperationCalls
from .signing import RequestSigner, is_signing_key

__all__ = ["AsyncBackend", "Backend"]

TIMEOUT_S = 35.0
"""Longer than the 30 s after which the broker itself gives a call up."""
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def _target(url: str) -> tuple[str, str | None]:
    """Return the base URL and the path of the socket file, where ``url`` is ``unix:PATH``."""
    if url.startswith("unix:"):
        return "http://localhost", url.removeprefix("unix:")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > 65535:
        raise ValueError(f"{url!r} is not http://HOST:PORT, https://HOST:PORT or unix:PATH")
    return url.rstrip("/"), None


def _credentials(key: str | None) -> tuple[dict[str, str], RequestSigner | None]:
    """Return the headers of every request, and what signs each, for a key that is not sent."""
    if key is None:
        return {}, None
    if not key.isascii() or not key.isprintable() or not key or " " in key:
        raise ValueError("the key is not printable ASCII without spaces: a file's line end, perhaps")
    if is_signing_key(key):
        return {}, RequestSigner(key)
    return {"Authorization": f"Bearer {key}"}, None


def _verify(base: str, ssl_context: ssl.SSLContext | None) -> ssl.SSLContext | bool:
    if ssl_context is None and base.startswith("https"):
        return ssl.create_default_context()
    return ssl_context or False


class _Attempts:
    """The tries of one call, until its result or the failure that ends it: what both transports share.

    ``left_s``: of the caller's timeout.
    """

    def __init__(
        self, name: str, request: Any, key: str | None, dry_run: bool, timeout_s: float, signer: RequestSigner | None
    ) -> None:
        # Any: the record of the operation.
        self._signer = signer
        self._call = ApiCall(name, request, key, dry_run=dry_run)
        self._ends_at = time.monotonic() + timeout_s

    @property
    def post(self) -> dict[str, Any]:
        """Arguments of the next ``post`` of an httpx client."""
        call = self._call
        left_s = max(0.001, self._ends_at - time.monotonic())
        signed = {} if self._signer is None else self._signer.headers("POST", call.path, call.body)
        return {"url": call.path, "content": call.body, "headers": call.headers | signed, "timeout": left_s}

    def result(self, reply: httpx.Response) -> Any:
        """Return the result that an answer holds. BackendError."""
        return self._call.result(reply.status_code, reply.headers, reply.content)

    def wait_s(self, error: httpx.HTTPError | BackendError) -> float:
        """Return the seconds until the next try. Raises BackendError where there is none."""
        if isinstance(error, BackendError):
            failure, was_sent = error, True
        else:
            failure, was_sent = NoAnswer(f"{type(error).__name__}: {error}"), not isinstance(error, _NOT_SENT)
        wait_s = self._call.wait_s(failure, was_sent=was_sent, left_s=self._ends_at - time.monotonic())
        if wait_s is None:
            raise failure from None
        return wait_s


class Backend(OperationCalls):
    """Client of the control API for synchronous programs. A context manager; its connections are kept and reused.

    One for a process, from any thread.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Create a client; it connects with its first call.

        :param url: ``http://HOST:PORT``, ``https://HOST:PORT`` or ``unix:PATH``; ValueError for anything else.
        :param key: key of the backend, ``rk_...``, or ``ID:SECRET`` of one for signatures, which signs every request
            (RFC 9421) and is not sent; None: the broker is in development mode. ValueError for what cannot be one.
        :param timeout_s: longest time of one call, all its tries included.
        :param ssl_context: for https; None: the authorities of the system.
        """
        super().__init__(self._call)
        base, path = _target(url)
        self._timeout_s = timeout_s
        transport = httpx.HTTPTransport(uds=path, verify=_verify(base, ssl_context))
        headers, self._signer = _credentials(key)
        self._client = httpx.Client(
            base_url=base, headers=headers, transport=transport, trust_env=False, timeout=timeout_s
        )

    def __enter__(self) -> Backend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _call(self, name: str, request: Any, key: str | None, dry_run: bool = False, /) -> Any:
        # Any: records of the operation.
        attempts = _Attempts(name, request, key, dry_run, self._timeout_s, self._signer)
        while True:
            try:
                return attempts.result(self._client.post(**attempts.post))
            except (httpx.HTTPError, BackendError) as error:
                wait_s = attempts.wait_s(error)
            time.sleep(wait_s)


class AsyncBackend(AsyncOperationCalls):
    """Client of the control API under Trio or asyncio: as `Backend`, with methods to await.

    An asynchronous context manager; its connections are kept and reused.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Create a client with the parameters of `Backend`; it connects with its first call."""
        super().__init__(self._call)
        base, path = _target(url)
        self._timeout_s = timeout_s
        transport = httpx.AsyncHTTPTransport(uds=path, verify=_verify(base, ssl_context))
        headers, self._signer = _credentials(key)
        self._client = httpx.AsyncClient(
            base_url=base, headers=headers, transport=transport, trust_env=False, timeout=timeout_s
        )

    async def __aenter__(self) -> AsyncBackend:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _call(self, name: str, request: Any, key: str | None, dry_run: bool = False, /) -> Any:
        # Any: records of the operation.
        attempts = _Attempts(name, request, key, dry_run, self._timeout_s, self._signer)
        while True:
            try:
                return attempts.result(await self._client.post(**attempts.post))
            except (httpx.HTTPError, BackendError) as error:
                wait_s = attempts.wait_s(error)
            await anyio.sleep(wait_s)
