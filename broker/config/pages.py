"""Settings of the pages that browsers load: live room, host desk, console, agent page and chat widget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from broker.config.origins import origin_problem

__all__ = ["PagesConfig", "pages_conflicts"]

# Such as img.example.com or localhost:8080: a subdomain is meant with it, so there are no wildcards.
HostName = Annotated[
    str, Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?\Z", examples=["img.example.com"])
]


class PagesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Pages for browsers: /room/NAME, /host/NAME, /agent and /widget on the viewers' port, /console on the listener of
    the control API."""

    enabled: bool = True
    """Serve them; false where the platform has pages of its own."""
    public_origin: Annotated[str, Meta(max_length=255, examples=["https://live.example.com"])] | None = None
    """Origin under which browsers reach the viewers' port; its pages may connect, and the console links to it."""
    image_hosts: Annotated[tuple[HostName, ...], Meta(max_length=32)] = ()
    """Hosts, with their subdomains, from which pages show pictures of products; of others a drawn box is shown."""
    link_hosts: Annotated[tuple[HostName, ...], Meta(max_length=32)] = ()
    """Hosts, with their subdomains, to which pages link; other links are not shown."""
    widget_origins: Annotated[tuple[str, ...], Meta(max_length=32, examples=[["https://shop.example.com"]])] = ()
    """Origins of shops whose pages may hold the chat widget (`/widget`) in a frame; none = it is only a page."""


def pages_conflicts(pages: PagesConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the settings that are wrong, and why."""
    named = [("pages.widget_origins", origin) for origin in pages.widget_origins]
    if pages.public_origin is not None:
        named.append(("pages.public_origin", pages.public_origin))
    for name, origin in named:
        problem = origin_problem(origin)
        if not problem and not origin.startswith(("https://", "http://")):
            problem = "expected https:// (or http:// on this machine)"
        if problem:
            yield (name,), problem
