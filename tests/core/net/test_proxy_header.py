from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.net.proxy_header import (
    MAX_BYTES,
    MAX_V1_BYTES,
    HeaderState,
    Networks,
    ProxyHeader,
    parse,
    plain_address,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
NEED_MORE, MALFORMED = HeaderState.NEED_MORE, HeaderState.MALFORMED


def v2(source: str, *, command: int = 0x21, tail: bytes = b"") -> bytes:
    address = ipaddress.ip_address(source)
    family = 0x11 if address.version == 4 else 0x21
    body = address.packed * 2 + struct.pack("!HH", 51000, 443) + tail
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


ADDRESSES = st.ip_addresses().map(str)


@given(ADDRESSES, st.binary(max_size=200), st.binary(max_size=50))
def test_v2_gives_the_source_address_and_leaves_what_follows(source: str, extras: bytes, follows: bytes) -> None:
    header = v2(source, tail=extras)
    assert parse(header + follows) == ProxyHeader(plain_address(source), len(header))


@given(ADDRESSES, st.integers(0, 65535))
def test_v1_gives_the_source_address(source: str, port: int) -> None:
    version = ipaddress.ip_address(source).version
    header = f"PROXY TCP{version} {source} {source} {port} 443\r\n".encode()
    assert parse(header + b"GET / HTTP/1.1") == ProxyHeader(plain_address(source), len(header))


@pytest.mark.parametrize(
    "header", [v2("203.0.113.7"), v2("2001:db8::7", tail=b"\x04\x00\x01x"), b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"]
)
def test_every_beginning_of_a_header_needs_more(header: bytes) -> None:
    for size in range(len(header)):
        assert parse(header[:size]) is NEED_MORE
    assert isinstance(parse(header), ProxyHeader)


@pytest.mark.parametrize(
    "header",
    [
        v2("203.0.113.7", command=0x20),
        SIGNATURE + struct.pack("!BBH", 0x20, 0, 0),
        SIGNATURE + struct.pack("!BBH", 0x21, 0, 5) + b"extra",
        SIGNATURE + struct.pack("!BBH", 0x21, 0x31, 216) + bytes(216),
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
    ],
)
def test_a_proxy_that_connects_for_itself_names_no_client(header: bytes) -> None:
    assert parse(header) == ProxyHeader(None, len(header))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x00\x00\x00\x10",
        b"\x16\x03\x01",
        b"\r\n\r\n\x00\r\nQUIX",
        SIGNATURE + struct.pack("!BBH", 0x11, 0x11, 12) + bytes(12),  # version 1 after the signature of version 2
        SIGNATURE + struct.pack("!BBH", 0x22, 0x11, 12) + bytes(12),  # no such command
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 11) + bytes(11),  # too short for its family
        SIGNATURE + struct.pack("!BBH", 0x21, 0x41, 300) + bytes(300),  # no such family
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_BYTES - 15),  # longer than we hold
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 0xFFFF),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 -2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 02\r\n",
        b"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 fe80::1 1 2\r\n",
        b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 \xd9\xa1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4 " + b"1" * MAX_V1_BYTES,
    ],
)
def test_anything_else_is_malformed(data: bytes) -> None:
    assert parse(data) is MALFORMED


@given(st.one_of(st.binary(max_size=600), st.binary(max_size=600).map(lambda rest: SIGNATURE + b"\x21" + rest)))
def test_no_bytes_raise_and_no_parser_waits_for_more_than_the_cap(data: bytes) -> None:
    found = parse(data)
    if found is NEED_MORE:
        assert len(data) < MAX_BYTES
    elif isinstance(found, ProxyHeader):
        assert 0 < found.consumed <= min(len(data), MAX_BYTES)
        assert found.address is None or ipaddress.ip_address(found.address)
        for size in range(0, found.consumed, 7):
            assert parse(data[:size]) is NEED_MORE, "a split changed the verdict"


def test_an_ipv4_address_mapped_into_ipv6_is_the_same_address() -> None:
    assert plain_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain_address("fe80::1%eth0") == "fe80::1"
    assert plain_address("2001:db8::1") == "2001:db8::1"
    assert plain_address("not:an:address") == "not:an:address"
    assert parse(v2("::ffff:192.0.2.1")) == ProxyHeader("192.0.2.1", 52)


def test_only_addresses_inside_the_networks_are_trusted() -> None:
    networks = Networks(["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"])
    assert networks
    for address in ("10.255.0.1", "::ffff:10.0.0.1", "2001:db8::5%eth0", "192.0.2.1"):
        assert address in networks, address
    for address in ("11.0.0.1", "192.0.2.2", "2001:db9::1", "", "10.0.0", "10.0.0.1.evil.example", "::1"):
        assert address not in networks, address
    assert not Networks()
    assert "10.0.0.1" not in Networks()


@pytest.mark.parametrize("cidr", ["10.0.0.1/8", "10.0.0.0/33", "example.com", ""])
def test_what_is_no_network_is_refused(cidr: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Networks([cidr])
