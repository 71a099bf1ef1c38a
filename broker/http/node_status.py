"""The supervisor's own listener: readiness and metrics of all processes of this host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

__all__ = ["node_status_app"]


def node_status_app(
    status: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]], metrics: Callable[[], Awaitable[str]]
) -> Starlette:
    """Return ``/healthz``, ``/readyz`` and ``/metrics`` as an ASGI application.

    :param status: whether viewers may be sent to this host, and the fields to show. Any: fields of health checks.
    :param metrics: all metrics in the Prometheus text format.
    """

    async def live(request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})

    async def ready(request: Request) -> Response:
        is_ready, fields = await status()
        return JSONResponse(fields, 200 if is_ready else 503, {"Cache-Control": "no-store"})

    async def scrape(request: Request) -> Response:
        return PlainTextResponse(await metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(routes=[Route("/healthz", live), Route("/readyz", ready), Route("/metrics", scrape)])
