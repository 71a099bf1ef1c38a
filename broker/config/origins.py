"""Check of web origins: whether a browser could send one (RFC 6454, as the URL standard serializes it).

An origin that no browser sends admits no page, and nothing reports it; so each is compared
with the form that browsers use.
"""

from __future__ import annotations

import ipaddress
import re

__all__ = ["origin_problem"]

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\[\]:/?#\\]+)(?::([0-9]*))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NEVER_SENT = frozenset({"ws", "wss", "file", "data", "blob", "about", "javascript", "ftp", "roomcast", "tcp"})
"""Schemes of addresses that are no origins: a page's origin has its own scheme, not that of the WebSocket."""


def origin_problem(origin: str) -> str:
    """Return why no browser sends ``origin``, with what to write in its place; "" if one may."""
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        return "expected scheme, host and perhaps port, nothing after them, such as https://live.example.com"
    scheme, host, port = found.groups()
    if scheme in _NEVER_SENT:
        return f"the scheme is that of the page, such as https://live.example.com, not {scheme}"
    if not host.isascii():
        return "browsers send the host in its ASCII form, xn--..., such as https://xn--bcher-kva.example"
    if host.startswith("["):
        try:
            short = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            return f"{host} is no IPv6 address"
        if short != host:
            return f"browsers send {short} for {host}"
    elif host.rpartition(".")[2].isdigit():
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return f"{host} is no IPv4 address"
    if port is None:
        return ""
    bare = f"{scheme}://{host}"
    if not port or int(port) == _DEFAULT_PORTS.get(scheme):
        return f"browsers leave this port out: {bare}"
    if not 0 < int(port) < 65536 or port != str(int(port)):
        return f"{port} is no port; expected a number from 1 to 65535, such as {bare}:8443"
    return ""
