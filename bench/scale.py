"""Arithmetic of one large room over many processes: cores, bandwidth, hosts and the engine's share.

``python -m bench.scale [VIEWERS...]`` prints the tables of ``broker/guides/scale.md``. Every figure follows from the
constants below, each of which was measured or chosen; change one, and read what becomes of the plan.
"""

from __future__ import annotations

import sys
from math import ceil
from typing import NamedTuple

__all__ = ["DESIGN", "POINTS", "Plan", "Point", "cores_table", "hosts_table", "plan"]

SEND_S = 5e-6
"""CPU of one send on loopback (`python -m bench.micro fanout`): the kernel's part is nearly all of it."""
SHARE_FOR_SENDS = 0.6
"""Part of a core that sends may take; the rest is reading, encoding, and room for bursts."""
PACKET_BYTES = 110
"""What a packet has beside its danmaku: frame, state, TLS, TCP, IP, Ethernet."""
EVENTS_PER_S = 1.0
"""Gifts, phases and the like, each in a packet of its own."""
SPARE = 0.25
"""Viewers that the others take over when processes are replaced or lost."""
CORES_A_HOST = 4
TICK_BYTES = 1100
"""A tick of 20 danmaku as it goes over the engine to every process."""
ENGINE_DELIVERY_S = 4e-6
"""CPU of the engine for one message to one process."""


class Point(NamedTuple):
    """How a room is shown: ticks a second, danmaku a second, bytes of one danmaku on the wire."""

    ticks: float
    shown: float
    entry_bytes: float

    @property
    def packets(self) -> float:
        """Packets a second and viewer."""
        return self.ticks + EVENTS_PER_S

    @property
    def bytes_per_s(self) -> float:
        """Bytes a second and viewer."""
        return self.shown * self.entry_bytes + self.packets * PACKET_BYTES

    @property
    def viewers_a_core(self) -> int:
        """Viewers that one core can send to."""
        return int(SHARE_FOR_SENDS / SEND_S / self.packets + 1e-9)


POINTS = (
    Point(10, 20, 61.1), Point(10, 20, 51.5), Point(2, 20, 61.1), Point(2, 20, 51.5), Point(1, 20, 48.1),
    Point(1, 20, 36.8), Point(1, 5, 61.1), Point(1, 5, 51.5),
)  # fmt: skip
"""Bytes of a danmaku: those of ``broker/guides/egress.md``, plain and with the dictionary, for the next smaller tick
that was measured."""
DESIGN = POINTS[3]
"""What the second table is for."""


class Plan(NamedTuple):
    """What a room of ``viewers`` needs, with spare."""

    viewers: int
    processes: int
    hosts: int
    gbit_a_host: float
    engine_deliveries_per_s: float
    engine_cpu: float
    """Share of one core of the engine."""
    engine_mbit: float


def plan(point: Point, viewers: int) -> Plan:
    """Return what a room of ``viewers`` needs at a design point: one process a core."""
    processes = ceil(viewers / point.viewers_a_core * (1 + SPARE))
    hosts = ceil(processes / CORES_A_HOST)
    deliveries = processes * point.packets
    return Plan(
        viewers,
        processes,
        hosts,
        viewers * point.bytes_per_s * 8 / 1e9 / hosts,
        deliveries,
        deliveries * ENGINE_DELIVERY_S,
        processes * point.ticks * TICK_BYTES * 8 / 1e6,
    )


def cores_table(viewers: list[int]) -> str:
    """Return cores and bandwidth of each design point as a table, without spare."""
    columns = " | ".join(f"{each:,}: cores, Gbit/s" for each in viewers)
    lines = [
        f"| ticks/s | shown/s | B a danmaku | B/s a viewer | viewers a core | {columns} |",
        "| --- " * (5 + len(viewers)) + "|",
    ]
    for point in POINTS:
        needs = " | ".join(
            f"{ceil(each / point.viewers_a_core):,}, {each * point.bytes_per_s * 8 / 1e9:,.1f}" for each in viewers
        )
        lines.append(
            f"| {point.ticks:g} | {point.shown:g} | {point.entry_bytes:g} | {point.bytes_per_s:,.0f}"
            f" | {point.viewers_a_core:,} | {needs} |"
        )
    return "\n".join(lines)


def hosts_table(point: Point, viewers: list[int]) -> str:
    """Return processes, hosts and the engine's share at one design point as a table, with spare."""
    lines = [
        "| viewers | processes | hosts | Gbit/s a host | engine: messages/s | its core | its Mbit/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in viewers:
        need = plan(point, each)
        lines.append(
            f"| {need.viewers:,} | {need.processes} | {need.hosts} | {need.gbit_a_host:.1f}"
            f" | {need.engine_deliveries_per_s:,.0f} | {need.engine_cpu:.1%} | {need.engine_mbit:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    asked = [int(each) for each in sys.argv[1:]] or [1_000_000, 15_000_000]
    print(cores_table(asked), hosts_table(DESIGN, asked), sep="\n\n")
