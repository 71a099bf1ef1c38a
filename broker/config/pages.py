"""Settings of the pages that browsers load from the broker: live room, host desk and console."""

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
    """Pages for browsers: /room/NAME and /host/NAME on the viewers' port, /console on the control API's listener."""

    enabled: bool = True
    """Serve them; false where the platform has pages of its own."""
    public_origin: Annotated[str, Meta(max_length=255, examples=["https://live.example.com"])] | None = None
    """Origin under which browsers reach the viewers' port; its pages may connect, and the console links to it."""
    image_hosts: Annotated[tuple[HostName, ...], Meta(max_length=32)] = ()
    """Hosts, with their subdomains, from which pages show pictures of products; of others a drawn box is shown."""
    link_hosts: Annotated[tuple[HostName, ...], Meta(max_length=32)] = ()
    """Hosts, with their subdomains, to which pages link; other links are not shown."""


def pages_conflicts(pages: PagesConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the settings that are wrong, and why."""
    origin = pages.public_origin
    if origin is None:
        return
    problem = origin_problem(origin)
    if not problem and not origin.startswith(("https://", "http://")):
        problem = "expected https:// (or http:// on this machine)"
    if problem:
        yield ("pages.public_origin",), problem
