"""Check of development mode: requests come from this machine, neither by a page of another site nor through a proxy.

Without a secret any client may take any name. A web page of any origin can reach a local broker through its visitor's
browser, and a proxy on this machine can open it to others: Host, Origin and the client that a proxy names decide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from broker.core.net.forwarded import client_address
from broker.core.net.proxy_header import Networks

__all__ = ["FORWARDED_HEADERS", "is_of_this_machine"]

FORWARDED_HEADERS = (b"x-forwarded-for", b"forwarded")
_is_host = re.compile(rb"(?i)(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?").fullmatch
_is_origin = re.compile(rb"(?i)https?://(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?").fullmatch
_LOOPBACK = Networks(("127.0.0.0/8", "::1/128"))


def is_of_this_machine(host: bytes, origin: bytes | None, forwarded: Sequence[Sequence[bytes]]) -> bool:
    """Return whether a request comes from this machine.

    ``forwarded``: the lines of each of `FORWARDED_HEADERS`, in that order.
    """
    if not _is_host(host) or (origin is not None and not _is_origin(origin)):
        return False
    return not any(
        values and client_address(values, "127.0.0.1", _LOOPBACK, is_rfc7239=name == b"forwarded") not in _LOOPBACK
        for name, values in zip(FORWARDED_HEADERS, forwarded, strict=True)
    )
