"""The client's address in the header of a trusted web proxy: nothing that a client sends can change it."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from broker.core.net.forwarded import MAX_HOPS, client_address
from broker.core.net.proxy_header import Networks

PROXIES = Networks(["10.0.0.0/8", "2001:db8:ffff::/48"])
PEER = "10.0.0.1"

header_bytes = st.binary(max_size=200)


def element(address: str, *, is_rfc7239: bool, port: int | None = None) -> bytes:
    node = f"[{address}]" if ":" in address and (is_rfc7239 or port is not None) else address
    if port is not None:
        node += f":{port}"
    return (f'for="{node}";proto=https' if is_rfc7239 else node).encode()


@pytest.mark.parametrize("is_rfc7239", [False, True])
@given(st.data())
def test_what_the_nearest_trusted_proxy_wrote_is_the_client_whatever_the_client_sent(
    is_rfc7239: bool, data: st.DataObject
) -> None:
    client = data.draw(st.sampled_from(["203.0.113.9", "2001:db8::7"]))
    hops = data.draw(st.lists(st.sampled_from(["10.1.2.3", "2001:db8:ffff::5"]), max_size=5))
    port = data.draw(st.none() | st.integers(1, 65535))
    elements = [element(each, is_rfc7239=is_rfc7239, port=port) for each in (client, *hops)]
    claimed = data.draw(header_bytes)
    lines = [claimed, b", ".join(elements)] if data.draw(st.booleans()) else [claimed + b"," + b",".join(elements)]
    assert client_address(lines, PEER, PROXIES, is_rfc7239=is_rfc7239) == client


@pytest.mark.parametrize("is_rfc7239", [False, True])
@given(st.lists(header_bytes, max_size=5))
def test_no_header_raises_and_all_of_them_name_an_address(is_rfc7239: bool, lines: list[bytes]) -> None:
    assert client_address(lines, PEER, PROXIES, is_rfc7239=is_rfc7239)


@pytest.mark.parametrize(
    ("lines", "is_rfc7239", "expected"),
    [
        ([], False, PEER),
        ([b""], False, PEER),
        ([b"unknown"], False, PEER),
        ([b"1.2.3.4, unknown, 10.0.0.2"], False, "10.0.0.2"),
        ([b"10.9.9.9, 10.0.0.2"], False, "10.9.9.9"),
        ([b"::ffff:203.0.113.9"], False, "203.0.113.9"),
        ([b"for=_hidden"], True, PEER),
        ([b'proto=https;FOR="[2001:db8::1]:4711";by=10.0.0.1'], True, "2001:db8::1"),
        ([b"for=192.0.2.60;proto=http, for=10.0.0.7"], True, "192.0.2.60"),
        ([b'for="a,for=1.2.3.4'], True, "1.2.3.4"),
    ],
)
def test_elements_that_are_no_address_end_the_search(lines: list[bytes], is_rfc7239: bool, expected: str) -> None:
    assert client_address(lines, PEER, PROXIES, is_rfc7239=is_rfc7239) == expected


def test_a_long_header_is_read_for_a_bounded_number_of_elements() -> None:
    line = b"203.0.113.9," + b",".join([b"10.0.0.2"] * MAX_HOPS)
    assert client_address([line], PEER, PROXIES) == "10.0.0.2"
