"""Quotas of tenants: what each uses now, what it may use, and the refusal with the time to wait.

Where several nodes share an engine, each reports what its tenants use (`Tenants.reports`) and counts what the others
have reported: connections and rooms are sums, and messages and calls of other nodes take from the same rate. So a quota
holds over all nodes, but for what they admit between two reports.

The default tenant has no entry and no quota: the limits of the whole broker are its own. Bounded by the tenants that
are configured; one that is removed is kept until its last connection and room have ended, and takes no new ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from broker.core.limits.rate_limit import UNLIMITED, Rate, SingleGcra

__all__ = ["MAX_LABELS", "OTHERS", "Quotas", "TenantUse", "Tenants", "UseReport"]

MAX_LABELS = 100
"""Tenants with a label of their own in metrics; all others share `OTHERS`."""
OTHERS = "(others)"


class Quotas(NamedTuple):
    """What a tenant may use; 0 = no limit. Rates are in the long run, twice as many may come at once.

    ``masks_guests``: whether guests get masks in place of names and ids of viewers in its rooms; None = as in those of
    the broker.
    """

    connections: int = 0
    rooms: int = 0
    messages_per_s: float = 0.0
    calls_per_s: float = 0.0
    masks_guests: bool | None = None


class UseReport(NamedTuple):
    """What a tenant uses at one node; ``messages`` and ``calls`` since it was configured there."""

    tenant: str
    connections: int
    rooms: int
    messages: int
    calls: int


class TenantUse:
    """What one tenant uses here. Counters ``messages``, ``calls`` and ``refused`` (by what was refused) only grow."""

    __slots__ = (
        "_call_limit",
        "_call_tat",
        "_message_limit",
        "_message_tat",
        "calls",
        "connections",
        "connections_elsewhere",
        "is_configured",
        "messages",
        "quotas",
        "refused",
        "rooms",
        "rooms_elsewhere",
    )

    def __init__(self, quotas: Quotas) -> None:
        self.connections = 0
        self.rooms = 0
        self.connections_elsewhere = self.rooms_elsewhere = 0
        """At other nodes, as these have reported."""
        self.messages = 0
        self.calls = 0
        self.refused: Counter[str] = Counter()
        self._message_tat = self._call_tat = 0.0
        self.use(quotas)

    def use(self, quotas: Quotas) -> None:
        """Apply other quotas from now on; open connections and rooms stay."""
        self.is_configured = True
        self.quotas = quotas
        self._message_limit = _limit(quotas.messages_per_s)
        self._call_limit = _limit(quotas.calls_per_s)

    def try_connect(self) -> bool:
        """Count one more connection that has logged in; False, and nothing is counted, above the quota."""
        if not self.is_configured or 0 < self.quotas.connections <= self.connections + self.connections_elsewhere:
            self.refused["connections"] += 1
            return False
        self.connections += 1
        return True

    def try_open_room(self, *, goes_on: bool = False) -> bool:
        """Count one more open room; likewise. ``goes_on``: it was open at another node, so it is within the quota."""
        is_above = not goes_on and 0 < self.quotas.rooms <= self.rooms + self.rooms_elsewhere
        if not self.is_configured or is_above:
            self.refused["rooms"] += 1
            return False
        self.rooms += 1
        return True

    def message_wait_s(self, now: float, count: int = 1) -> float:
        """Take ``count`` messages: 0.0 = they may pass, else the seconds to wait, and none is taken.

        Messages that come together pass together, above the quota too; the next ones wait for them.
        """
        wait_s = self._message_limit.wait_s(self._message_limit.charge(self._message_tat, now), now)
        if wait_s:
            self.refused["messages"] += count
            return wait_s
        self._message_tat = self._message_limit.charge(self._message_tat, now, count)
        self.messages += count
        return 0.0

    def call_wait_s(self, now: float) -> float:
        """Take one call: 0.0 = it may pass, else the seconds to wait."""
        tat = self._call_limit.charge(self._call_tat, now)
        wait_s = self._call_limit.wait_s(tat, now)
        if wait_s:
            self.refused["calls"] += 1
            return wait_s
        self._call_tat = tat
        self.calls += 1
        return 0.0

    def take_elsewhere(self, messages: int, calls: int, now: float) -> None:
        """Take messages and calls that other nodes have admitted: the next ones here wait for them too."""
        if messages:
            self._message_tat = self._message_limit.charge(self._message_tat, now, messages)
        if calls:
            self._call_tat = self._call_limit.charge(self._call_tat, now, calls)


class Tenants:
    """All tenants of one broker but the default one, by name."""

    def __init__(self, quotas: Mapping[str, Quotas] | None = None) -> None:
        self._uses: dict[str, TenantUse] = {}
        self._reported: dict[str, UseReport] = {}
        """What this node has reported last."""
        self._elsewhere: dict[str, dict[str, UseReport]] = {}
        """What other nodes have reported last, by node."""
        self.use(quotas or {})

    def __len__(self) -> int:
        return len(self._uses)

    def use(self, quotas: Mapping[str, Quotas]) -> None:
        """Take over a configuration: new tenants are there at once, removed ones take nothing new."""
        for name, each in quotas.items():
            known = self._uses.get(name)
            if known is None:
                self._uses[name] = TenantUse(each)
            else:
                known.use(each)
            self._add_up(name, self._uses[name])
        for name in [name for name in self._uses if name not in quotas]:
            known = self._uses[name]
            known.is_configured = False
            if not known.connections and not known.rooms:
                del self._uses[name]
                for reports in self._elsewhere.values():
                    reports.pop(name, None)

    def find(self, name: str) -> TenantUse | None:
        """Return what a tenant uses; None for one that is not configured, and for the default one."""
        known = self._uses.get(name)
        return known if known is not None and known.is_configured else None

    def try_open_room(self, name: str, *, goes_on: bool = False) -> bool:
        """Count one more open room of a tenant, see `TenantUse.try_open_room`; the default one may open any number."""
        use = self.find(name)
        return not name if use is None else use.try_open_room(goes_on=goes_on)

    def disconnect(self, name: str) -> None:
        """Count off a connection for which `TenantUse.try_connect` has returned True."""
        known = self._uses.get(name)
        if known is not None:
            known.connections -= 1

    # ---- the other nodes

    def reports(self, *, all_of_them: bool) -> list[UseReport]:
        """Return what this node has to report to the others: what has changed since the last call, or everything."""
        found = [
            UseReport(name, use.connections, use.rooms, use.messages, use.calls) for name, use in self._uses.items()
        ]
        changed = [each for each in found if all_of_them or self._reported.get(each.tenant) != each]
        self._reported = {each.tenant: each for each in found}
        return changed

    def take_reports(self, node: str, reports: Iterable[UseReport], now: float) -> None:
        """Take what another node has reported. The first report of a tenant says what was used before: no message
        and no call of it is counted."""
        of_node = self._elsewhere.setdefault(node, {})
        for report in reports:
            use = self._uses.get(report.tenant)
            if use is None:
                continue
            before = of_node.get(report.tenant)
            of_node[report.tenant] = report
            if before is not None:
                messages, calls = report.messages - before.messages, report.calls - before.calls
                use.take_elsewhere(max(0, messages), max(0, calls), now)
            self._add_up(report.tenant, use)

    def forget_node(self, node: str) -> None:
        """Take that a node is gone, with the connections and rooms that it had."""
        for name in self._elsewhere.pop(node, {}):
            use = self._uses.get(name)
            if use is not None:
                self._add_up(name, use)

    def _add_up(self, name: str, use: TenantUse) -> None:
        found = [reports[name] for reports in self._elsewhere.values() if name in reports]
        use.connections_elsewhere = sum(each.connections for each in found)
        use.rooms_elsewhere = sum(each.rooms for each in found)

    def by_name(self) -> list[tuple[str, TenantUse]]:
        """Return all tenants with what they use, by name; also those that are removed and not yet gone."""
        return sorted(self._uses.items())

    # ---- metrics, by tenant

    @property
    def connections(self) -> Mapping[str, int]:
        """Connections that are logged in."""
        return self._labelled((name, use.connections) for name, use in self.by_name())

    @property
    def rooms(self) -> Mapping[str, int]:
        """Open rooms."""
        return self._labelled((name, use.rooms) for name, use in self.by_name())

    @property
    def messages(self) -> Mapping[str, int]:
        """Messages that passed the quota."""
        return self._labelled((name, use.messages) for name, use in self.by_name())

    @property
    def calls(self) -> Mapping[str, int]:
        """Calls that passed the quota."""
        return self._labelled((name, use.calls) for name, use in self.by_name())

    @property
    def refused(self) -> Mapping[str, int]:
        """Connections, rooms, messages and calls above the quota."""
        return self._labelled((name, use.refused.total()) for name, use in self.by_name())

    @staticmethod
    def _labelled(values: Iterable[tuple[str, int]]) -> dict[str, int]:
        found: dict[str, int] = {}
        for number, (name, value) in enumerate(values):
            if number < MAX_LABELS:
                found[name] = value
            else:
                found[OTHERS] = found.get(OTHERS, 0) + value
        return found


def _limit(per_s: float) -> SingleGcra:
    return SingleGcra(Rate(per_s, max(1, round(2 * per_s))) if per_s else UNLIMITED)
