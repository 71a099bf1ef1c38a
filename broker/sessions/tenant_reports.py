"""What tenants use at this node, reported to the other nodes, and what these report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from broker.core.tenants.quotas import Tenants, UseReport
from broker.rooms.node_messages import NodeMessage, TenantsUsed

__all__ = ["TenantReports"]

REPORT_S = 0.25
"""Time between two reports: what the nodes admit meanwhile may go beyond a quota."""
ALL_EVERY = 8
"""Of so many reports one has all tenants: for nodes that are new, or have lost one."""
MAX_REPORTED = 200
"""Tenants of one record."""


class TenantReports:
    """The reports of one node. ``others``: returns the other nodes that are alive; ``send``: sends a record to one."""

    def __init__(
        self,
        tenants: Tenants,
        others: Callable[[], Sequence[str]],
        send: Callable[[str, NodeMessage], None],
        clock: Callable[[], float],
    ) -> None:
        self._tenants = tenants
        self._others = others
        self._send = send
        self._clock = clock
        self._count = 0

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await trio.sleep(REPORT_S)
            self.report()

    def report(self) -> None:
        """Report what has changed, or all."""
        reports = self._tenants.reports(all_of_them=self._count % ALL_EVERY == 0)
        self._count += 1
        for first in range(0, len(reports), MAX_REPORTED):
            record = TenantsUsed(tuple(map(tuple, reports[first : first + MAX_REPORTED])))
            for node in self._others():
                self._send(node, record)

    def take(self, node: str, record: TenantsUsed) -> None:
        """Take what another node has reported."""
        self._tenants.take_reports(node, (UseReport(*each) for each in record.reports), self._clock())
