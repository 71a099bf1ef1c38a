"""The control API as an ASGI application: one route a row of the table of operations.

A request is one JSON object, its answer the result record as an object; failures are `broker.http.problems`. Who calls
is known from ``Authorization: Bearer rk_...``; in development mode no key is needed.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from broker.auth.api_keys import ApiKey, ApiKeys
from broker.auth.signatures import NonceTable, SignatureRefused, is_digest_of, read_signature
from broker.core.limits.rate_limit import Gcra, Rate
from broker.core.tenants.names import qualify
from broker.http.json_body import MAX_BODY_BYTES, parse_body, wrong_field
from broker.http.live import MAX_SECONDS, LiveParts, LiveResponse, LiveStreams
from broker.http.openapi import DRY_RUN, document, reference_page
from broker.http.overview import OverviewResponse, OverviewTexts
from broker.http.page_files import PageSite
from broker.http.problems import HttpProblem, problem_of
from broker.net.loopback import FORWARDED_HEADERS, is_of_this_machine
from broker.operations.caller import Caller, OperationError
from broker.operations.calls import Operations
from broker.telemetry.history import HISTORY_S
from protocol.codes import Role
from protocol.fields import schema_of
from protocol.json_values import as_json
from protocol.operations import BY_NAME, KeyUse, OperationRow, Scope

__all__ = ["ApiParts", "make_app"]

log = structlog.get_logger("roomcast.api")

_is_idempotency_key = re.compile(r"[!-~]{1,128}").fullmatch
DRAIN_RETRY_MS = 1000
MAX_ADDRESSES = 20_000
REFUSALS = Rate(1.0, 20)
"""Requests without a valid key from one address: in the long run, and at once."""
MAX_BODIES_BYTES = 32 * 1024 * 1024
"""Bodies of all requests together that are being read or worked on; one more is OVERLOADED."""
_ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class ApiParts:
    """What the control API uses. ``keys`` returns None in development mode; ``is_draining``: nothing is taken in."""

    operations: Operations
    keys: Callable[[], ApiKeys | None]
    requests: Callable[[], Rate]
    status: Callable[[], tuple[bool, dict[str, object]]]
    metrics: Callable[[], Awaitable[str]]
    is_draining: Callable[[], bool]
    clock: Callable[[], float]
    started_at_s: float
    """Unix seconds."""
    live: LiveParts
    overview: OverviewTexts
    pages: PageSite | None = None
    """The console with its files; None: there is none."""


class _Api:
    """The routes' shared state: limits by key and by address."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._requests = Gcra(parts.requests(), MAX_ADDRESSES)
        self._refusals = Gcra(REFUSALS, MAX_ADDRESSES)
        self._nonces = NonceTable(since=parts.started_at_s)
        self._live = LiveStreams(parts.live)
        self._overview = parts.overview
        self._body_bytes = 0

    # ---- who calls

    def authenticate(self, request: Request, request_id: str) -> ApiKey | None:
        """Return the key of a request, None in development mode. Problem 401 without a valid one; the log has why."""
        keys = self._parts.keys()
        address = _address(request)
        if keys is None:
            if request.client is not None and not _is_of_this_machine(request):
                raise HttpProblem(403, "NOT_ALLOWED", "in development mode only this machine is served", "Host")
            return None
        now = self._parts.clock()
        wait_s = self._refusals.wait_s(address, now)
        if wait_s:
            raise HttpProblem(
                429, "RATE_LIMITED", "too many requests without a valid key", "", round(wait_s * 1000) + 1
            )
        if "signature-input" in request.headers:
            return self._signer(request, keys, address, request_id)
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        key, why = keys.verify(presented.strip() if scheme.lower() == "bearer" else "")
        if key is None:
            self._refusals.try_acquire(address, now)
            log.info("api key refused", address=address, why=why, request_id=request_id)
            raise HttpProblem(401, "AUTH_FAILED", "give a valid key: Authorization: Bearer rk_...", "Authorization")
        return key

    def _signer(self, request: Request, keys: ApiKeys, address: str, request_id: str) -> ApiKey:
        """Return the key that has signed a request; its body is to be compared with the digest that is signed."""
        query = request.scope["query_string"]
        target = request.scope["raw_path"] + (b"?" + query if query else b"")
        try:
            signed = read_signature(request.method, target.decode("latin-1"), request.headers.raw)
            return keys.verify_signature(signed, self._nonces)
        except SignatureRefused as refused:
            log.info("signature refused", address=address, why=str(refused), request_id=request_id)
            if refused.retry_after_s:
                wait_ms = round(refused.retry_after_s * 1000)
                raise HttpProblem(
                    429, "RATE_LIMITED", "cannot be verified now: sign and send it again later", "Signature", wait_ms
                ) from None
            self._refusals.try_acquire(address, self._parts.clock())
            raise HttpProblem(401, "AUTH_FAILED", "must be a valid signature (RFC 9421)", "Signature") from None

    def _holds(self, key: ApiKey | None) -> bool:
        """Return whether a key is valid still, and as it was (None: in development mode)."""
        keys = self._parts.keys()
        return (keys is None) is (key is None) and (keys is None or key is None or keys.holds(key))

    @property
    def _limit(self) -> Gcra:
        """The limit of the requests of each key, at the rate in force."""
        self._requests = self._requests.at_rate(self._parts.requests())
        return self._requests

    def limit(self, key: ApiKey | None) -> None:
        """Charge one request to its key. Problem 429 above the rate."""
        wait_s = self._limit.try_acquire("" if key is None else key.id, self._parts.clock())
        if wait_s:
            raise HttpProblem(429, "RATE_LIMITED", "too many requests of this key", "", round(wait_s * 1000) + 1)

    def limits_of(self, key: ApiKey | None, caller: Caller | None, row: OperationRow | None) -> dict[str, str]:
        """Return the headers of the draft of the HTTPAPI group: the limit of the key's requests, and of its calls of
        this operation. Each policy has ``q`` at once, which come back in ``w`` seconds; ``r`` are left, all again in
        ``t`` seconds."""
        rate = self._parts.requests()
        left, whole_s = self._limit.left("" if key is None else key.id, self._parts.clock())
        policies = [f'"key";q={rate.burst};w={ceil(rate.burst / rate.per_s)}']
        limits = [f'"key";r={left};t={ceil(whole_s)}']
        if row is not None and caller is not None:
            left, whole_s = self._parts.operations.left(caller, row)
            of_calls = row.rate_of(caller.is_backend)
            policies.append(f'"operation";q={of_calls.burst};w={ceil(of_calls.burst / of_calls.per_s)}')
            limits.append(f'"operation";r={left};t={ceil(whole_s)}')
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(limits)}

    # ---- routes

    async def call(self, request: Request) -> Response:
        """Answer ``POST /v1/<subject>/<operation>``."""
        request_id = secrets.token_hex(8)
        try:
            key = self.authenticate(request, request_id)
        except HttpProblem as problem:
            return problem.response(request_id)
        row = BY_NAME.get(f"{request.path_params['subject']}.{request.path_params['operation']}")
        caller: Caller | None = None
        try:
            self.limit(key)
            if row is None:
                raise HttpProblem(404, "UNKNOWN_OPERATION", "is no operation", "operation")
            if request.method != "POST":
                raise HttpProblem(405, "NOT_ALLOWED", "an operation is called with POST")
            if self._parts.is_draining():
                raise HttpProblem(503, "OVERLOADED", "the broker drains", "", DRAIN_RETRY_MS)
            caller = self.caller(request, key, row, _dry_run(request, row))
            with self._body_budget() as reserve:
                body = await _body(request, reserve)
                if key is not None and key.secret and not is_digest_of(request.headers.raw, body):
                    log.info("signature refused", address=caller.address, why="digest", request_id=request_id)
                    raise HttpProblem(401, "AUTH_FAILED", "is not that of the body", "Content-Digest")
                arguments = parse_body(body)
                wrong = wrong_field(arguments, schema_of(row.read))
                if wrong is not None:
                    raise HttpProblem(400, "BAD_FIELD", wrong[1], wrong[0])
                result, is_replayed = await self._parts.operations.call(caller, row, arguments)
        except OperationError as error:
            return problem_of(error).response(request_id, self.limits_of(key, caller, row))
        except HttpProblem as problem:
            return problem.response(request_id, self.limits_of(key, caller, row))
        except ClientDisconnect:
            return Response(status_code=400)  # not sent: the connection has ended
        except Exception:
            log.exception("request failed", request_id=request_id, path=request.url.path[:128])
            return HttpProblem(500, "INTERNAL_ERROR", "the broker has a defect; its log has the request id").response(
                request_id
            )
        headers = {"X-Request-Id": request_id, "Cache-Control": "no-store", **self.limits_of(key, caller, row)}
        if is_replayed:
            headers["Idempotent-Replayed"] = "true"
        answer = json.dumps(as_json(result), ensure_ascii=False, separators=(",", ":")).encode()
        return Response(answer, 200, headers, media_type="application/json")

    @contextmanager
    def _body_budget(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves bytes of one request's body until the block ends. Problem 503 where all
        bodies together are too much."""
        reserved = 0

        def reserve(size: int) -> None:
            nonlocal reserved
            if self._body_bytes + size > MAX_BODIES_BYTES:
                raise HttpProblem(503, "OVERLOADED", "too many bodies at a time", "", 1000)
            reserved += size
            self._body_bytes += size

        try:
            yield reserve
        finally:
            self._body_bytes -= reserved

    def caller(self, request: Request, key: ApiKey | None, row: OperationRow, dry_run: bool = False) -> Caller:
        """Return who calls. Problem BAD_FIELD for an idempotency key that is none, or where none is taken."""
        idempotency = request.headers.get("idempotency-key", "")
        if "idempotency-key" in request.headers and not _is_idempotency_key(idempotency):
            raise HttpProblem(400, "BAD_FIELD", "must be 1 to 128 visible ASCII characters", "Idempotency-Key")
        if idempotency and row.key is KeyUse.NONE and row.changes:
            raise HttpProblem(400, "BAD_FIELD", "this operation takes no key", "Idempotency-Key")
        address = _address(request)
        if key is None:
            return Caller(
                "dev", "dev", address, lambda room: Role.APP, frozenset({Role.APP}), _ALL_SCOPES, key=idempotency,
                dry_run=dry_run,
            )  # fmt: skip
        return Caller(
            key.id, key.id, address, lambda room: Role.APP if key.grants(room) else None, frozenset({Role.APP}),
            key.scopes, idempotency, dry_run, key.tenant, in_all_rooms="*" in key.rooms,
        )  # fmt: skip

    async def live(self, request: Request) -> Response:
        """Answer ``GET /healthz``: the process serves."""
        return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})

    async def ready(self, request: Request) -> Response:
        """Answer ``GET /readyz``: whether viewers should be sent here."""
        ready, fields = self._parts.status()
        return JSONResponse(fields, 200 if ready else 503, {"Cache-Control": "no-store"})

    async def metrics(self, request: Request) -> Response:
        """Answer ``GET /metrics`` in the Prometheus text format."""
        return PlainTextResponse(await self._parts.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def live_stats(self, request: Request) -> Response:
        """Answer ``GET /stats/ROOM``: live statistics as Server-Sent Events; ``seconds`` of the past come first."""
        request_id = secrets.token_hex(8)
        row = BY_NAME["rooms.stats"]
        try:
            key = self.authenticate(request, request_id)
            self.limit(key)
            if self._parts.is_draining():
                raise HttpProblem(503, "OVERLOADED", "the broker drains", "", DRAIN_RETRY_MS)
            caller = self.caller(request, key, row)
            arguments = {"room": request.path_params["room"], "seconds": _seconds(request, MAX_SECONDS, 1)}
            try:
                result, _ = await self._parts.operations.call(caller, row, arguments)
            except OperationError as error:
                raise problem_of(error) from None
            self._live.enter(caller.account)
        except HttpProblem as problem:
            return problem.response(request_id)
        return LiveResponse(
            self._live, qualify(caller.tenant, result.room), caller.account, partial(self._holds, key),
            arguments["seconds"],
        )  # fmt: skip

    async def page(self, request: Request) -> Response:
        """Answer ``GET /console`` and its files, which are no secret: what they show needs a key."""
        site = self._parts.pages
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}
        path = request.scope["raw_path"].decode("latin-1")
        answer = None if site is None else site.answer(request.method, path, headers)
        if answer is None:
            return HttpProblem(404, "UNKNOWN_OPERATION", "there is nothing at this path").response(secrets.token_hex(8))
        response = Response(b"" if request.method == "HEAD" else answer.body, answer.status, dict(answer.headers))
        if request.method == "HEAD":
            response.headers["content-length"] = str(len(answer.body))
        return response

    async def overview(self, request: Request) -> Response:
        """Answer ``GET /stats``: the whole broker as Server-Sent Events, for keys of no tenant with the scope admin."""
        request_id = secrets.token_hex(8)
        try:
            key = self.authenticate(request, request_id)
            self.limit(key)
            if self._parts.is_draining():
                raise HttpProblem(503, "OVERLOADED", "the broker drains", "", DRAIN_RETRY_MS)
            if key is not None and (key.tenant or Scope.ADMIN not in key.scopes):
                raise HttpProblem(403, "NOT_ALLOWED", "is for keys of no tenant with the scope admin")
            account = self.caller(request, key, BY_NAME["broker.stats"]).account
            seconds = _seconds(request, HISTORY_S, 0)
            self._live.enter(account)
        except HttpProblem as problem:
            return problem.response(request_id)
        return OverviewResponse(self._overview, self._live, account, partial(self._holds, key), seconds)

    async def openapi(self, request: Request) -> Response:
        """Answer ``GET /v1/openapi.json``."""
        return JSONResponse(document())

    async def docs(self, request: Request) -> Response:
        """Answer ``GET /docs``: the reference page, with nothing from elsewhere."""
        return HTMLResponse(
            reference_page(),
            headers={
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
                "form-action 'none'; frame-ancestors 'none'",
                "X-Content-Type-Options": "nosniff",
            },
        )


def make_app(parts: ApiParts) -> Starlette:
    """Return the control API as an ASGI application."""
    api = _Api(parts)

    def guarded(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            request_id = secrets.token_hex(8)
            try:
                key = api.authenticate(request, request_id)
                api.limit(key)
                if key is not None and key.tenant:
                    raise HttpProblem(403, "NOT_ALLOWED", "is for keys of no tenant: it is about all of them")
            except HttpProblem as problem:
                return problem.response(request_id)
            return await answer(request)

        return checked

    async def unknown(request: Request, error: Exception) -> Response:
        return HttpProblem(404, "UNKNOWN_OPERATION", "there is nothing at this path").response(secrets.token_hex(8))

    async def wrong_method(request: Request, error: Exception) -> Response:
        problem = HttpProblem(405, "NOT_ALLOWED", "this path is read with GET", allow="GET, HEAD")
        return problem.response(secrets.token_hex(8))

    methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]
    app = Starlette(
        routes=[
            Route("/healthz", api.live),
            Route("/readyz", api.ready),
            Route("/metrics", guarded(api.metrics)),
            Route("/stats", api.overview),
            Route("/stats/{room}", api.live_stats),
            Route("/v1/openapi.json", api.openapi),
            Route("/docs", api.docs),
            Route("/console", api.page, methods=methods),
            Route("/pages/{path:path}", api.page, methods=methods),
            Route("/v1/{subject}/{operation}", api.call, methods=methods),
        ],
        exception_handlers={404: unknown, 405: wrong_method},
    )
    app.router.redirect_slashes = False  # such a redirect goes wherever the Host header says
    return app


def _seconds(request: Request, most: int, default: int) -> int:
    """Return how many past seconds a stream begins with. Problem BAD_FIELD for another number or parameter."""
    for name, value in request.query_params.multi_items():
        if name != "seconds":
            raise HttpProblem(400, "BAD_FIELD", "is no parameter here", name[:64])
        if not (value.isascii() and value.isdecimal() and len(value) < 4 and 1 <= int(value) <= most):
            raise HttpProblem(400, "BAD_FIELD", f"must be an integer 1..{most}", name)
    return int(request.query_params.get("seconds", default))


def _dry_run(request: Request, row: OperationRow) -> bool:
    """Return whether a call is only judged. Problem BAD_FIELD for any other parameter, or value: a call that was meant
    to be judged is not to be done."""
    found = request.query_params.multi_items()
    for name, value in found:
        if name != "dry_run" or not row.changes or len(found) > 1:
            raise HttpProblem(400, "BAD_FIELD", "is no parameter of this operation, or there twice", name[:64])
        if value not in DRY_RUN:
            raise HttpProblem(400, "BAD_FIELD", f"must be one of {', '.join(DRY_RUN)}", name)
    return bool(found) and DRY_RUN[found[0][1]]


async def _body(request: Request, reserve: Callable[[int], None]) -> bytes:
    """Read a request's body. Problem 413 above `MAX_BODY_BYTES`, 415 where it is not JSON."""
    length = request.headers.get("content-length")
    if length is not None and length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise HttpProblem(413, "PAYLOAD_TOO_LARGE", f"the body is above {MAX_BODY_BYTES} bytes")
    body = bytearray()
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise HttpProblem(413, "PAYLOAD_TOO_LARGE", f"the body is above {MAX_BODY_BYTES} bytes")
            reserve(len(chunk))
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media_type != "application/json":
        raise HttpProblem(415, "BAD_FIELD", "must be application/json", "Content-Type")
    return bytes(body)


def _address(request: Request) -> str:
    return "unix" if request.client is None else request.client.host


def _is_of_this_machine(request: Request) -> bool:
    headers = request.headers
    if headers.get("sec-fetch-site") == "cross-site":  # a picture or a script of another site has no Origin
        return False
    origin = headers.get("origin")
    forwarded = [[each.encode("latin-1") for each in headers.getlist(name.decode())] for name in FORWARDED_HEADERS]
    return is_of_this_machine(
        headers.get("host", "").encode("latin-1"), None if origin is None else origin.encode("latin-1"), forwarded
    )
