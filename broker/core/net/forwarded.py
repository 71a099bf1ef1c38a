"""Parser of the header by which a trusted web proxy names the client: ``X-Forwarded-For`` or ``Forwarded`` (RFC 7239).

A proxy appends the address of its peer to what came; what precedes it was sent by the peer itself, which may claim
any address. The header is therefore read from the right, and only past elements that name trusted proxies. Only one
of the two headers may be read: a proxy that writes one of them passes on the other as a client sent it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from broker.core.net.proxy_header import Networks, plain_address

__all__ = ["MAX_HOPS", "client_address"]

MAX_HOPS = 16
"""Elements that are read: proxies between a client and the broker, at most."""


def client_address(values: Sequence[bytes], peer: str, trusted: Networks, *, is_rfc7239: bool = False) -> str:
    """Return the address nearest to the broker that is not one of the ``trusted`` proxies.

    ``values``: the header's lines in order. ``peer``: the trusted proxy that sent them; returned if they name no
    address. An element that is no address (``unknown``, a name) ends the search at the proxy that wrote it.
    """
    address = peer
    for element in reversed(b",".join(values).decode("latin-1").rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
        named = _address(_node(element) if is_rfc7239 else element.strip())
        if not named:
            break
        address = named
        if address not in trusted:
            break
    return address


def _node(element: str) -> str:
    """Return the ``for`` parameter of an element of ``Forwarded``, without its quotes; "" without one."""
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip().strip('"')
    return ""


def _address(node: str) -> str:
    """Return the address in ``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1`` or ``[2001:db8::1]:80``; "" in others."""
    if node.startswith("["):
        node = node[1:].partition("]")[0]
    elif node.count(":") == 1:
        node = node.partition(":")[0]
    try:
        return str(ipaddress.ip_address(plain_address(node)))
    except ValueError:
        return ""
