"""Links between brokers and a real Redis that a firewall cuts, or that are slow; and the checker of what came of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio

from broker.engine.base import StoredLogItem
from broker.ledger import Entry
from broker.rooms.submissions import pack_submission
from tests.support.partitions import FAULTS, Acknowledged, in_own_namespace, violations
from tests.support.programs import needs

LAID = """
PATH="$PATH:/usr/sbin"
ip link set lo up
ip link add one type veth peer name two
nft add table inet faults
tc qdisc add dev one root tbf rate 1mbit burst 16kb latency 400ms
"""
"""What `tests.support.partitions` needs of a machine; a container may refuse it to root too."""


def needs_namespaces() -> None:
    """Skip where they are refused."""
    for program in ("redis", "nft", "tc"):
        needs(program)
    laid = subprocess.run(in_own_namespace("sh", "-ec", LAID), capture_output=True, text=True, check=False)
    if laid.returncode:
        pytest.skip(f"network namespaces are refused here: {laid.stderr.strip()}")


@pytest.mark.integration
@pytest.mark.slow
async def test_a_rain_is_exact_and_what_was_acknowledged_is_kept_when_the_owner_is_cut_off() -> None:
    """Three partitions and a slow link, one after the other over the same two processes."""
    needs_namespaces()
    command = [sys.executable, "-m", "tests.support.partitions", *FAULTS]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    lines = [line for line in done.stdout.decode().splitlines() if ": 40 shares, 10000 cents" in line]
    assert [line.partition(":")[0] for line in lines] == list(FAULTS), lines
    assert all("owned the room after" in line for line in lines[:3]), lines


def marker(fence: int) -> StoredLogItem:
    """Return the entry with which an owner began."""
    return StoredLogItem(fence, fence, 0, 0, 0, 1, b"")


def written(number: int, fence: int, *texts: str, epoch: int = 1) -> StoredLogItem:
    """Return a fact with announcements."""
    items = [Entry("live", epoch, 0, 4, 1, text.encode()) for text in texts]
    return StoredLogItem(fence, 1, number, None, 1100, 1, pack_submission(items, ()))


def test_the_checker_finds_what_two_owners_would_do() -> None:
    owners = [marker(5), marker(8)]
    facts = [written(1, 5, "one|"), written(2, 5, "two|", "three|"), written(4, 8, "four|")]
    acknowledged = [Acknowledged("one|", 1), Acknowledged("four|", 4)]
    assert violations(facts, owners, acknowledged) == []
    for bad_facts, bad_owners, bad_acknowledged, words in (
        ([*facts, written(5, 5)], owners, acknowledged, "an owner has written after the next one had begun"),
        ([*facts, written(5, 9)], owners, acknowledged, "a fence wrote that no owner had"),
        ([*facts, written(4, 8)], owners, acknowledged, "a number is given twice"),
        (facts, [marker(5), marker(5), marker(8)], acknowledged, "a fence is given twice"),
        (facts, [marker(8), marker(5)], acknowledged, "the fence of an owner falls"),
        ([*facts, written(5, 8, "five|", epoch=2)], owners, acknowledged, "the stream has begun anew"),
        (facts[1:], owners, acknowledged, "acknowledged at 1, and in the log at []: one|"),
        ([*facts, written(5, 8, "four|")], owners, acknowledged, "acknowledged at 4, and in the log at [4, 5]: four|"),
    ):
        assert words in violations(bad_facts, bad_owners, bad_acknowledged)
