"""TCP connections to one host, whose name is looked up by threads that serve nothing else.

A lookup is a blocking call of the C library that cannot be cancelled: with a resolver that hangs, its thread remains
for as long as the resolver waits. Trio's 40 threads serve all of the program, so lookups have their own few.
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

import trio

__all__ = ["MAX_LOOKUPS", "Connector"]

MAX_LOOKUPS = 8
"""Threads that look up the name of one host; while all of them hang, connecting to it waits, up to its deadline."""
MAX_ADDRESSES = 8
STAGGER_S = 0.25
"""Time after which the next address of a host is tried beside the ones before, as RFC 8305 says."""


class _Address(NamedTuple):
    """An address as `socket.getaddrinfo` gives it. Any: its parts depend on the family."""

    family: int
    kind: int
    protocol: int
    address: Any


class Connector:
    """Opens connections. Its deadline is the caller's: cancelling `open` ends it at once, a hanging lookup included."""

    def __init__(self) -> None:
        self._lookups = trio.CapacityLimiter(MAX_LOOKUPS)

    async def open(self, host: str, port: int) -> trio.SocketStream:
        """Return a connection to the first address of a host that accepts one. OSError.

        :param host: name or address, in ASCII.
        """
        opened: list[trio.SocketStream] = []
        failures: list[OSError] = []
        try:
            addresses = await self._addresses(host, port)
            async with trio.open_nursery() as nursery:

                async def attempt(address: _Address, ended: trio.Event) -> None:
                    try:
                        opened.append(await _connect(address))
                        nursery.cancel_scope.cancel()
                    except OSError as error:
                        failures.append(error)
                        ended.set()

                for address in addresses:
                    ended = trio.Event()
                    nursery.start_soon(attempt, address, ended)
                    with trio.move_on_after(STAGGER_S):
                        await ended.wait()
        except BaseException:
            _close(opened)
            raise
        if not opened:
            raise failures[0]
        _close(opened[1:])  # two addresses may accept in the same turn of the loop
        return opened[0]

    async def _addresses(self, host: str, port: int) -> list[_Address]:
        """Return the addresses of a host in the order of the system, but the second of another family. OSError."""
        name = host.encode("ascii")  # as text, Python would encode it as IDNA and refuse some names with a ValueError

        def look_up(flags: int) -> list[_Address]:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
            return [_Address(family, kind, protocol, address) for family, kind, protocol, _, address in found]

        try:
            return look_up(socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await trio.to_thread.run_sync(look_up, 0, abandon_on_cancel=True, limiter=self._lookups)
        others = [each for each in found if each.family != found[0].family]
        if others:
            found.remove(others[0])
            found.insert(1, others[0])
        return found[:MAX_ADDRESSES]


async def _connect(address: _Address) -> trio.SocketStream:
    made = trio.socket.socket(address.family, address.kind, address.protocol)
    try:
        await made.connect(address.address)
        return trio.SocketStream(made)
    except BaseException:
        made.close()
        raise


def _close(streams: list[trio.SocketStream]) -> None:
    for stream in streams:
        stream.socket.close()
