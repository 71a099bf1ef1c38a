"""Invariants of a run, whatever its speed: three parties count independently, and their totals must agree.

Publishers count what they sent and how each message was answered. The broker keeps an account for each lane and room.
Viewers count what they received. These equations must hold:

    every POST is answered exactly once
    chat       accepted = shown, merged = merged, sampled_out = sampled, expired = expired, at the broker and in ticks
    paid       accepted + merged gifts = admitted; the counts in the shown events sum to exactly what was sent
    control    as many announcements as were accepted, on every link; commerce likewise
    ambient    the likes counter is exactly the likes that were counted, at the broker and in the last frame
    each lane  admitted = shown + merged + sampled + expired + held, and nothing is held at the end
    each link  event offsets without holes, rising ticks and counters, holes only where the broker reported them
    nowhere    a message of another room, or one that is shown twice

With a ledger there is a fourth count (`bench.ledger_check`): exactly what was acknowledged is in it, once, in order.

A violation is one sentence. Each one fails the run; the first ones are reported in full. All functions are pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.load.accounting import LANES

__all__ = ["Checks", "Findings", "check", "check_ledger", "check_shared"]

CONTROL, COMMERCE, PAID, CHAT, AMBIENT = range(5)
ADMITTED, SHOWN, MERGED, SAMPLED, EXPIRED, HELD = range(6)
_PARTS = ("admitted", "shown", "merged", "sampled", "expired", "held")

Report = Mapping[str, Any]
"""A child's report. Any: plain JSON, see `viewers`, `publishers` and `broker_process`."""


class Findings(NamedTuple):
    """``checked``: number of equations; ``violations``: sentences, the first difference first."""

    checked: int
    violations: list[str]

    def combined(self, more: Findings) -> Findings:
        """Return these findings and ``more`` as one."""
        return Findings(self.checked + more.checked, self.violations + more.violations)


class Checks:
    """Collector of equations and of the violations among them."""

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[str] = []

    def equal(self, what: str, left: str, a: int, right: str, b: int) -> None:
        """Check that ``a`` and ``b`` are the same number."""
        self.checked += 1
        if a != b:
            self.violations.append(f"{what}: {left} {a}, {right} {b} (difference {a - b:+d})")

    def holds(self, sentence: str, condition: bool) -> None:
        """Check ``condition``; ``sentence`` is the violation if it is false."""
        self.checked += 1
        if not condition:
            self.violations.append(sentence)

    def findings(self) -> Findings:
        """Return all findings."""
        return Findings(self.checked, self.violations)


class _Answers:
    """A publisher's report, by kind and room."""

    def __init__(self, report: Report) -> None:
        self.sent: Counter[tuple[str, int]] = Counter()
        self.messages: Counter[tuple[str, int, str]] = Counter()
        self.amounts: Counter[tuple[str, int, str]] = Counter()
        for kind, room, count in report["sent"]:
            self.sent[kind, room] += count
        for kind, room, outcome, count, amount in report["answers"]:
            self.messages[kind, room, outcome] += count
            self.amounts[kind, room, outcome] += amount

    def of(self, kind: str, room: int, *outcomes: str) -> int:
        return sum(self.messages[kind, room, outcome] for outcome in outcomes)

    def answered(self, kind: str, room: int) -> int:
        return sum(count for (k, r, _), count in self.messages.items() if k == kind and r == room)


def check(publisher: Report, broker: Report, viewers: Sequence[Report], *, full_tier: bool, rooms: int) -> Findings:
    """Compare the counts of the three parties.

    ``publisher``, ``broker`` (its ``stats`` after draining) and ``viewers`` are their reports; ``full_tier``: the
    viewers receive the widest tier, whose account is the room's own. Rooms are ``bench-0`` and up.
    """
    checks = Checks()
    for report in viewers:
        for sentence in report["violations"]:
            checks.holds(sentence, False)
        hidden = report["violation_count"] - len(report["violations"])
        checks.holds(f"and {hidden} more of the kind", hidden <= 0)
    for problem in publisher["problems"]:
        checks.holds(f"publishers: {problem}", False)
    unanswered = publisher["unanswered"]
    checks.holds(
        f"{unanswered} requests were never answered, first {', '.join(publisher['first_unanswered'])}",
        unanswered == 0,
    )
    checks.equal("rooms", "crashed", broker["rooms_crashed"], "allowed", 0)
    answers = _Answers(publisher)
    by_name = {room["name"]: room for room in broker["rooms"]}
    seen: dict[str, list[Report]] = {}
    for report in viewers:
        for totals in report["rooms"]:
            seen.setdefault(totals["name"], []).append(totals)
    for index in range(rooms):
        name = f"bench-{index}"
        room = by_name.get(name)
        if room is None:
            checks.holds(f"{name} does not exist in the broker", False)
            continue
        _check_room(checks, answers, index, room, seen.get(name, []), full_tier)
    return checks.findings()


def _check_room(
    checks: Checks, answers: _Answers, index: int, room: Report, viewer_totals: Sequence[Report], full_tier: bool
) -> None:
    name = room["name"]
    accounts: list[list[int]] = room["accounts"]
    for lane, account in enumerate(accounts):
        where = f"{name}, lane {LANES[lane]}"
        checks.equal(
            where, "the broker admitted", account[ADMITTED], "the parts of its account sum to", sum(account[1:])
        )
        checks.equal(where, "the broker still holds", account[HELD], "allowed", 0)
    for kind in ("danmaku", "like", "gift", "announcement", "commerce"):
        sent = answers.sent[kind, index]
        checks.equal(f"{name}, {kind}", "publishers sent", sent, "and were answered", answers.answered(kind, index))

    chat = accounts[CHAT]
    where = f"{name}, lane chat"
    for part, outcome in ((SHOWN, "accepted"), (MERGED, "merged"), (SAMPLED, "sampled_out"), (EXPIRED, "expired")):
        reported = answers.of("danmaku", index, outcome)
        checks.equal(
            where, f"publishers received {outcome} for", reported, f"the broker has {_PARTS[part]}", chat[part]
        )
    paid = accounts[PAID]
    where = f"{name}, lane paid"
    acknowledged = answers.of("gift", index, "accepted", "merged")
    checks.equal(where, "gifts acknowledged", acknowledged, "the broker admitted", paid[ADMITTED])
    checks.equal(where, "gifts accepted", answers.of("gift", index, "accepted"), "the broker showed", paid[SHOWN])
    control = accounts[CONTROL]
    announced = answers.of("announcement", index, "accepted")
    checks.equal(f"{name}, lane control", "announcements accepted", announced, "the broker showed", control[SHOWN])
    reported = answers.of("commerce", index, "accepted")
    shown = accounts[COMMERCE][SHOWN]
    checks.equal(f"{name}, lane commerce", "commerce events accepted", reported, "the broker showed", shown)
    likes = answers.amounts["like", index, "accepted"]
    checks.equal(f"{name}, likes", "publishers received", likes, "the broker counted", room["likes"])

    gifts = answers.amounts["gift", index, "accepted"] + answers.amounts["gift", index, "merged"]
    for totals in viewer_totals:
        if full_tier:
            for part in (ADMITTED, SHOWN, MERGED, SAMPLED, EXPIRED):
                where = f"{name}, lane chat, {_PARTS[part]}"
                checks.equal(where, "viewers counted", totals["account"][part], "the broker has", chat[part])
        for lane in (CONTROL, COMMERCE, PAID):
            where = f"{name}, lane {LANES[lane]}, events"
            seen = totals["events_by_lane"][lane]
            checks.equal(where, "viewers received", seen, "the broker showed", accounts[lane][SHOWN])
        checks.equal(
            f"{name}, offsets", "viewers received", totals["last_offset"], "the broker assigned", room["last_offset"]
        )
        checks.equal(f"{name}, gifts", "viewers received", totals["gifts"], "publishers sent", gifts)
        checks.equal(f"{name}, likes", "viewers last received", totals["likes"], "the broker counted", room["likes"])


def check_shared(
    broker: Report, viewers: Sequence[Report], *, viewer_count: int, room_count: int, socket_count: int
) -> Findings:
    """Check that every copy of every frame arrived on shared sockets, or was counted as missed by the broker.

    Viewer v is in room v mod rooms on socket v mod sockets; the reports of ``viewers`` are in the order of sockets.
    """
    checks = Checks()
    shared = broker["shared"]
    checks.equal("shared sockets", "viewers closed", shared["closed"], "allowed", 0)
    numbers = {room["number"]: int(room["name"].rpartition("-")[2]) for room in broker["rooms"]}
    distinct: dict[int, list[int]] = {}
    copies: dict[int, list[int]] = {}
    for report in viewers:
        for number, streams in report["per_record"].items():
            index = numbers[int(number)]
            known = distinct.setdefault(index, [0, 0, 0])
            arrived = copies.setdefault(index, [0, 0, 0])
            for stream, (frames, count) in enumerate(streams):
                known[stream] = max(known[stream], frames)
                arrived[stream] += count
    short = [0, 0, 0]
    first = ["", "", ""]
    for index in range(room_count):
        members = len(range(index, viewer_count, room_count))
        for stream, frames in enumerate(distinct.get(index, (0, 0, 0))):
            missing = frames * members - copies[index][stream]
            checks.holds(f"bench-{index}: {-missing} copies more than viewers", missing >= 0)
            if missing and not first[stream]:
                first[stream] = f" (first in bench-{index}: {missing} of {frames * members})"
            short[stream] += missing
    reported = ("nothing", shared["missed_chat_frames"], shared["missed_ambient_frames"])
    checks.equal("shared sockets, events", f"copies missing{first[0]}", short[0], "allowed", 0)
    checks.equal("shared sockets, ticks", f"copies missing{first[1]}", short[1], "the broker reported", reported[1])
    checks.holds(
        f"shared sockets, counters: {short[2]} copies missing{first[2]}, the broker reported {reported[2]}",
        short[2] <= reported[2],
    )
    if not any(short):
        _check_sockets(checks, viewers, distinct, viewer_count, room_count, socket_count)
    return checks.findings()


def _check_sockets(
    checks: Checks,
    viewers: Sequence[Report],
    distinct: Mapping[int, Sequence[int]],
    viewer_count: int,
    room_count: int,
    socket_count: int,
) -> None:
    """Check that each socket received exactly the frames of its viewers: no leak from one to another."""
    sockets = [positions for report in viewers for positions in report["per_socket"]]
    for index, positions in enumerate(sockets):
        rooms = [viewer % room_count for viewer in range(index, viewer_count, socket_count)]
        for stream, kind in ((0, "events"), (1, "ticks")):
            expected = sum(distinct.get(room, (0, 0, 0))[stream] for room in rooms)
            checks.equal(f"socket {index}, {kind}", "arrived", positions[stream], "its viewers' rooms sent", expected)


def check_ledger(publisher: Report, broker: Report, ledger: Report, *, rooms: int) -> Findings:
    """Compare the ledger (`bench.ledger_check.read_ledger`) with what was acknowledged.

    In both directions: an acknowledged gift that is not in the ledger is lost, and one in the ledger without an
    acknowledgement would be sent again by its sender.
    """
    checks = Checks()
    checks.holds(f"the ledger does not verify: {ledger['damage']}", not ledger["damage"])
    if ledger["damage"]:
        return checks.findings()
    answers = _Answers(publisher)
    by_name = {room["name"]: room for room in broker["rooms"]}
    for index in range(rooms):
        name = f"bench-{index}"
        totals = ledger["rooms"].get(name, {})
        acknowledged = answers.amounts["gift", index, "accepted"] + answers.amounts["gift", index, "merged"]
        checks.equal(
            f"{name}, ledger, gifts", "the ledger sums to", totals.get("gifts", 0), "acknowledged", acknowledged
        )
        for kind in ("gift", "announcement", "commerce"):
            accepted = answers.of(kind, index, "accepted")
            where = f"{name}, ledger, {kind} events"
            checks.equal(where, "the ledger has", totals.get(kind, 0), "were accepted", accepted)
        last_offset = by_name.get(name, {}).get("last_offset", 0)
        where = f"{name}, ledger, offsets"
        checks.equal(where, "the ledger ends at", totals.get("last_offset", 0), "the broker assigned", last_offset)
        checks.equal(where, "the ledger has", totals.get("events", 0), "events up to its last offset", last_offset)
        for part in ("holes", "unreadable", "out_of_order"):
            checks.equal(f"{name}, ledger", part.replace("_", " "), totals.get(part, 0), "allowed", 0)
    return checks.findings()
