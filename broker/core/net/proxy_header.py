"""Parser of the PROXY protocol header, in which a trusted proxy names the address of its client.

A proxy in front (HAProxy, a cloud's balancer) hides the viewers' addresses; it may put them before the first byte of
each connection, in the binary version 2 or the text version 1 (haproxy.org, "The PROXY protocol"). `parse` reads such
a header from bytes that arrive in any split and returns its length; `Networks` holds the trusted proxies.

It decides nothing about admission, and holds no bytes: the caller does, at most `MAX_BYTES` of them. A header from
other peers must never be parsed: a peer that may send one may claim any address.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

__all__ = ["MAX_BYTES", "HeaderState", "Networks", "ProxyHeader", "parse", "plain_address"]

MAX_BYTES = 536
"""Whole version 2 header; the specification promises senders that so many fit in one segment (the IPv4 minimum)."""
MAX_V1_BYTES = 107
"""The specification's worst case of the text line, CRLF included."""

_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED_BYTES = 16
_V1_SIGNATURE = b"PROXY "
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_BYTES = {0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
"""Address block by family and transport; 0x00 is "unspecified"."""


class HeaderState(Enum):
    """State of bytes that are no header yet."""

    NEED_MORE = "need more"
    MALFORMED = "malformed"


class ProxyHeader(NamedTuple):
    """A whole header. ``address`` None: the proxy connects for itself (a health check), or the family has no
    addresses."""

    address: str | None
    consumed: int


def parse(data: bytes | bytearray) -> ProxyHeader | HeaderState:
    """Read a header at the start of ``data``, which holds everything received so far.

    NEED_MORE only while fewer than `MAX_BYTES` are there and all of them fit a header; MALFORMED as early as that can
    be known. Bytes after the header are not inspected. O(len of the header).
    """
    if data[: len(_V2_SIGNATURE)] == _V2_SIGNATURE[: len(data)]:
        return _parse_v2(data)
    if data[: len(_V1_SIGNATURE)] == _V1_SIGNATURE[: len(data)]:
        return _parse_v1(data)
    return HeaderState.MALFORMED


def _parse_v2(data: bytes | bytearray) -> ProxyHeader | HeaderState:
    if len(data) < _V2_FIXED_BYTES:
        return HeaderState.NEED_MORE
    command, family, length = struct.unpack_from("!BBH", data, len(_V2_SIGNATURE))
    consumed = _V2_FIXED_BYTES + length
    if consumed > MAX_BYTES or command not in (_LOCAL, _PROXY):
        return HeaderState.MALFORMED
    if command == _PROXY and family and length < _ADDRESS_BYTES.get(family, MAX_BYTES):
        return HeaderState.MALFORMED
    if len(data) < consumed:
        return HeaderState.NEED_MORE
    if command == _LOCAL or family not in (0x11, 0x21):
        return ProxyHeader(None, consumed)
    size = 4 if family == 0x11 else 16
    source = bytes(data[_V2_FIXED_BYTES : _V2_FIXED_BYTES + size])
    return ProxyHeader(plain_address(str(ipaddress.ip_address(source))), consumed)


def _parse_v1(data: bytes | bytearray) -> ProxyHeader | HeaderState:
    end = data.find(b"\r\n", 0, MAX_V1_BYTES)
    if end < 0:
        return HeaderState.NEED_MORE if len(data) < MAX_V1_BYTES else HeaderState.MALFORMED
    consumed = end + 2
    line = bytes(data[:end])
    if not line.isascii():
        return HeaderState.MALFORMED
    family, *fields = line[len(_V1_SIGNATURE) :].decode("ascii").split(" ")
    if family == "UNKNOWN":
        return ProxyHeader(None, consumed)
    version = {"TCP4": 4, "TCP6": 6}.get(family)
    if version is None or len(fields) != 4 or not all(map(_is_port, fields[2:])):
        return HeaderState.MALFORMED
    try:
        source, destination = ipaddress.ip_address(fields[0]), ipaddress.ip_address(fields[1])
    except ValueError:
        return HeaderState.MALFORMED
    if not source.version == destination.version == version or "%" in line.decode("ascii"):
        return HeaderState.MALFORMED
    return ProxyHeader(plain_address(str(source)), consumed)


def _is_port(field: str) -> bool:
    return field.isdigit() and len(field) <= 5 and int(field) <= 65535 and (field == "0" or field[0] != "0")


def plain_address(address: str) -> str:
    """Return ``address`` without a zone, and an IPv4 address mapped into IPv6 as the IPv4 address."""
    if ":" not in address:
        return address
    address = address.partition("%")[0]
    try:
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return str(mapped) if mapped is not None else address


class Networks:
    """A few CIDR networks; `in` asks for an address in any of them. ValueError for what is no network."""

    __slots__ = ("_networks",)

    def __init__(self, cidrs: Iterable[str] = ()) -> None:
        self._networks = tuple(ipaddress.ip_network(cidr) for cidr in cidrs)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        """Whether ``address`` is in one of them; what is no address is in none. About 2 us and 0.3 us a network."""
        try:
            parsed = ipaddress.ip_address(plain_address(address))
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)
