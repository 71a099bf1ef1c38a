from __future__ import annotations

import pytest

from bench.floor import c_compiler, c_sweep, python_sweep
from bench.load.sockets import close_all, pairs


@pytest.mark.integration
def test_both_loops_send_the_same_bytes_to_every_socket() -> None:
    senders, receivers = pairs(5)
    try:
        swept = python_sweep(senders, b"floor")
        assert (swept.loop, swept.sends, swept.size_bytes, swept.refused) == ("python", 5, 5, 0)
        assert [sock.recv(64) for sock in receivers] == [b"floor"] * 5
        if c_compiler() is None:
            pytest.skip("there is no C compiler")
        in_c = c_sweep(senders, b"again")
        assert in_c is not None
        assert (in_c.loop, in_c.sends, in_c.refused) == ("c", 5, 0)
        assert in_c.wall_s >= 0
        assert [sock.recv(64) for sock in receivers] == [b"again"] * 5
    finally:
        close_all(senders + receivers)


def test_a_full_socket_is_counted_and_not_waited_for() -> None:
    senders, receivers = pairs(1, send_bytes=4096)
    try:
        large = bytes(60_000)
        refused = sum(python_sweep(senders, large).refused for _ in range(400))
        assert refused > 0
    finally:
        close_all(senders + receivers)
