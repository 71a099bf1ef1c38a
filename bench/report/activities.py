"""Sums of the activities of a run: what their users were answered against what the platform and the broker have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.report.invariants import Checks, Findings

__all__ = ["check_lottery", "check_packets", "check_sale", "with_activities"]

SALE_ANSWERS = frozenset({"RESERVED", "WAITING", "ALREADY_HAVE", "ALL_RESERVED", "SOLD_OUT", "OVERLOADED"})
"""What a claim of a buyer may hear after the opening. OVERLOADED: more than eight of one user wait for a commit."""

Report = Mapping[str, Any]
"""Report of a process. Any: plain JSON, see `bench.load.callers`."""


def with_activities(publisher: Report, activities: Iterable[Report]) -> dict[str, Any]:
    """Return a publisher's report with the events of activities, which are commerce of the first room."""
    count = sum(each["events"] for each in activities)
    return {
        **publisher,
        "sent": [*publisher["sent"], ["commerce", 0, count]],
        "answers": [*publisher["answers"], ["commerce", 0, "accepted", count, count]],
    }


def check_sale(sale: Report, *, claims: int, stock: int) -> Findings:
    """Compare what buyers of a sale were answered with what the platform confirmed and the broker counts."""
    checks = Checks()
    codes, view = sale["codes"], sale["view"]
    checks.equal("sale, claims", "were sent", claims, "and were answered once", sale["answered_once"])
    checks.equal("sale, claims", "were sent", claims, "answers", sum(codes.values()))
    reserved = codes.get("RESERVED", 0)
    checks.equal("sale, units", "buyers were promised", reserved, "there are", min(stock, reserved))
    confirmed = sale["confirmations"].get("confirmed", 0)
    checks.equal("sale, units", "the platform has confirmed", confirmed, "buyers were promised", reserved)
    checks.equal("sale, units", "the broker has sold", view["confirmed"], "the platform has confirmed", confirmed)
    left = view["available"] + view["reserved"] + view["confirmed"]
    checks.equal("sale, units", "available, reserved and sold are", left, "the stock is", view["stock"])
    checks.holds(f"sale: refused with {sorted(codes)}", codes.keys() <= SALE_ANSWERS)
    return checks.findings()


def check_packets(report: Report, *, takers: int, packets: int) -> Findings:
    """Compare the shares that takers of packets were answered with what the broker counts."""
    checks = Checks()
    codes, views = report["codes"], report["views"]
    taken = codes.get("taken", 0)
    checks.equal("packets, grabs", "were sent", takers * packets, "and were answered once", report["answered_once"])
    checks.equal("packets, shares", "takers were answered", taken, "different ones", report["shares"])
    checks.equal("packets", "were created", packets, "are listed", len(views))
    counted = sum(view["taken"] for view in views.values())
    checks.equal("packets, shares", "the broker has given", counted, "takers were answered", taken)
    for id, view in views.items():
        cents = report["cents"].get(id, 0)
        checks.equal(f"{id}, cents", "takers were answered", cents, "the broker has given", view["taken_cents"])
        if view["taken"] == view["count"]:
            checks.equal(f"{id}, cents", "its shares hold", cents, "its total is", view["total_cents"])
    checks.holds(f"packets: refused with {sorted(codes)}", codes.keys() <= {"taken", "OVERLOADED"})
    return checks.findings()


def check_lottery(report: Report, *, entered: int, winners: int) -> Findings:
    """Compare the entries that were answered with those of the close and of the proof, which must verify.

    ``entered``: entries made in the broker's process; ``winners``: prizes.
    """
    checks = Checks()
    codes = report["codes"]
    entries = codes.get("entered", 0) + entered
    checks.equal("lottery, entries", "were answered", entries, "were closed", report["closed_entries"])
    checks.equal("lottery, entries", "were closed", report["closed_entries"], "are in the proof", report["entries"])
    checks.equal("lottery, winners", "were drawn", report["winners"], "there are", min(winners, entries))
    checks.equal("lottery, calls", "were answered once", report["answered_once"], "answers", sum(codes.values()))
    checks.holds(f"lottery: the proof fails: {report['verdict']}", not report["verdict"])
    checks.holds(f"lottery: refused with {sorted(codes)}", codes.keys() <= {"entered", "OVERLOADED"})
    return checks.findings()
