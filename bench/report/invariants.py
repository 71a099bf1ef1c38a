"""What must hold after a run, whatever its speed: the sums of three parties who counted independently.

Publishers know what they sent and how each message was answered. The broker keeps an account per lane and room.
Viewers count what they were shown. The three must agree:

    every POST is answered exactly once
    chat       accepted = shown, merged = merged, sampled_out = sampled, expired = expired, at the broker and in ticks
    paid       accepted + merged gifts = admitted; the counts in the shown events add up to exactly what was sent
    control    as many announcements as were accepted, on every link; commerce likewise
    ambient    the likes counter is exactly the likes that were counted, at the broker and in the last frame
    each lane  admitted = shown + merged + sampled + expired + held, and nothing is held at the end
    each link  event offsets without holes, rising ticks and counters, holes only where the broker owned up to them
    nowhere    a message of another room, or one that is shown twice

Behind a ledger a fourth party counts, the book itself (`kept`): what was acknowledged is in it, once, in order, and
nothing else is.

A violation is one sentence; the first ones are told in full and each of them fails the run. All functions are pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.load.books import LANES

__all__ = ["Findings", "Ledger", "check", "check_crowd", "check_kept"]

CONTROL, COMMERCE, PAID, CHAT, AMBIENT = range(5)
ADMITTED, SHOWN, MERGED, SAMPLED, EXPIRED, HELD = range(6)
_PARTS = ("admitted", "shown", "merged", "sampled", "expired", "held")

Report = Mapping[str, Any]
"""A child's report. Any: plain JSON, see `viewers`, `publishers` and `observed`."""


class Findings(NamedTuple):
    """``checked``: equations looked at; ``violations``: sentences, the first difference first."""

    checked: int
    violations: list[str]

    def plus(self, more: Findings) -> Findings:
        """These and ``more``."""
        return Findings(self.checked + more.checked, self.violations + more.violations)


class Ledger:
    """Collects equations and what breaks them."""

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[str] = []

    def equal(self, what: str, left: str, a: int, right: str, b: int) -> None:
        """``a`` and ``b`` must be the same number."""
        self.checked += 1
        if a != b:
            self.violations.append(f"{what}: {left} {a}, {right} {b} (difference {a - b:+d})")

    def holds(self, sentence: str, condition: bool) -> None:
        """``sentence`` says what is wrong unless ``condition``."""
        self.checked += 1
        if not condition:
            self.violations.append(sentence)

    def findings(self) -> Findings:
        """What was found."""
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
    """Hold the three parties against each other.

    ``publisher``, ``broker`` (its ``stats`` after everything has settled) and ``viewers`` are their reports;
    ``full_tier``: the viewers see the widest tier, whose account is the room's own. Rooms are ``bench-0`` and up.
    """
    ledger = Ledger()
    for report in viewers:
        for sentence in report["violations"]:
            ledger.holds(sentence, False)
        hidden = report["violated"] - len(report["violations"])
        ledger.holds(f"and {hidden} more of the kind", hidden <= 0)
    for problem in publisher["problems"]:
        ledger.holds(f"publishers: {problem}", False)
    unanswered = publisher["unanswered"]
    ledger.holds(
        f"{unanswered} requests were never answered, the first are {', '.join(publisher['first_unanswered'])}",
        unanswered == 0,
    )
    ledger.equal("rooms", "crashed", broker["rooms_crashed"], "allowed", 0)
    answers = _Answers(publisher)
    by_name = {room["name"]: room for room in broker["rooms"]}
    seen: dict[str, list[Report]] = {}
    for report in viewers:
        for book in report["rooms"]:
            seen.setdefault(book["name"], []).append(book)
    for index in range(rooms):
        name = f"bench-{index}"
        room = by_name.get(name)
        if room is None:
            ledger.holds(f"{name} is gone from the broker", False)
            continue
        _check_room(ledger, answers, index, room, seen.get(name, []), full_tier)
    return ledger.findings()


def _check_room(
    ledger: Ledger, answers: _Answers, index: int, room: Report, books: Sequence[Report], full_tier: bool
) -> None:
    name = room["name"]
    accounts: list[list[int]] = room["accounts"]
    for lane, account in enumerate(accounts):
        where = f"{name}, lane {LANES[lane]}"
        ledger.equal(where, "the broker admitted", account[ADMITTED], "and accounts for", sum(account[1:]))
        ledger.equal(where, "the broker still holds", account[HELD], "and should hold", 0)
    for kind in ("danmaku", "like", "gift", "announcement", "commerce"):
        sent = answers.sent[kind, index]
        ledger.equal(f"{name}, {kind}", "publishers sent", sent, "and were answered", answers.answered(kind, index))

    chat = accounts[CHAT]
    where = f"{name}, lane chat"
    for part, outcome in ((SHOWN, "accepted"), (MERGED, "merged"), (SAMPLED, "sampled_out"), (EXPIRED, "expired")):
        told = answers.of("danmaku", index, outcome)
        ledger.equal(where, f"publishers were told {outcome} for", told, f"the broker has {_PARTS[part]}", chat[part])
    paid = accounts[PAID]
    where = f"{name}, lane paid"
    taken = answers.of("gift", index, "accepted", "merged")
    ledger.equal(where, "gifts acknowledged", taken, "the broker admitted", paid[ADMITTED])
    ledger.equal(where, "gifts accepted", answers.of("gift", index, "accepted"), "the broker has shown", paid[SHOWN])
    control = accounts[CONTROL]
    announced = answers.of("announcement", index, "accepted")
    ledger.equal(f"{name}, lane control", "announcements accepted", announced, "the broker has shown", control[SHOWN])
    told = answers.of("commerce", index, "accepted")
    shown = accounts[COMMERCE][SHOWN]
    ledger.equal(f"{name}, lane commerce", "commerce events accepted", told, "the broker has shown", shown)
    likes = answers.amounts["like", index, "accepted"]
    ledger.equal(f"{name}, likes", "counted for publishers", likes, "the broker's total", room["likes"])

    gifts = answers.amounts["gift", index, "accepted"] + answers.amounts["gift", index, "merged"]
    for book in books:
        if full_tier:
            for part in (ADMITTED, SHOWN, MERGED, SAMPLED, EXPIRED):
                where = f"{name}, lane chat, {_PARTS[part]}"
                ledger.equal(where, "viewers counted", book["account"][part], "the broker has", chat[part])
        for lane in (CONTROL, COMMERCE, PAID):
            where = f"{name}, lane {LANES[lane]}, events"
            seen = book["events_by_lane"][lane]
            ledger.equal(where, "viewers saw", seen, "the broker has shown", accounts[lane][SHOWN])
        ledger.equal(f"{name}, offsets", "viewers saw", book["last_offset"], "the broker gave", room["last_offset"])
        ledger.equal(f"{name}, gifts", "viewers added up", book["gifts"], "publishers sent", gifts)
        ledger.equal(f"{name}, likes", "viewers last saw", book["likes"], "the broker's total", room["likes"])


def check_crowd(
    broker: Report, viewers: Sequence[Report], *, viewer_count: int, room_count: int, socket_count: int
) -> Findings:
    """In a crowd: every copy of every frame has arrived, or the broker has counted that it did not send it.

    Viewer v sits in room v mod rooms on socket v mod sockets; ``viewers``' reports come in the order of their sockets.
    """
    ledger = Ledger()
    crowd = broker["crowd"]
    ledger.equal("the crowd", "viewers closed", crowd["closed"], "allowed", 0)
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
            ledger.holds(f"bench-{index}: {-missing} copies more than viewers", missing >= 0)
            if missing and not first[stream]:
                first[stream] = f" (first in bench-{index}: {missing} of {frames * members})"
            short[stream] += missing
    owned = ("nothing", crowd["missed_chat_frames"], crowd["missed_ambient_frames"])
    ledger.equal("the crowd, events", f"copies missing{first[0]}", short[0], "allowed", 0)
    ledger.equal("the crowd, ticks", f"copies missing{first[1]}", short[1], "the broker owned up to", owned[1])
    ledger.holds(
        f"the crowd, counters: {short[2]} copies missing{first[2]}, the broker owned up to {owned[2]}",
        short[2] <= owned[2],
    )
    if not any(short):
        _check_sockets(ledger, viewers, distinct, viewer_count, room_count, socket_count)
    return ledger.findings()


def _check_sockets(
    ledger: Ledger,
    viewers: Sequence[Report],
    distinct: Mapping[int, Sequence[int]],
    viewer_count: int,
    room_count: int,
    socket_count: int,
) -> None:
    """Each socket has exactly the frames of the viewers that share it: no leak from one to another."""
    sockets = [marks for report in viewers for marks in report["per_socket"]]
    for index, marks in enumerate(sockets):
        rooms = [viewer % room_count for viewer in range(index, viewer_count, socket_count)]
        for stream, kind in ((0, "events"), (1, "ticks")):
            expected = sum(distinct.get(room, (0, 0, 0))[stream] for room in rooms)
            ledger.equal(f"socket {index}, {kind}", "arrived", marks[stream], "its viewers' rooms sent", expected)


def check_kept(publisher: Report, broker: Report, kept: Report, *, rooms: int) -> Findings:
    """The ledger, verified and added up after the broker has ended (`kept.read_back`), against what was acknowledged.

    Exact in both directions: an acknowledged gift that is not in the book is lost, one in the book that nobody was told
    of would be sent again by its sender.
    """
    ledger = Ledger()
    ledger.holds(f"the ledger does not verify: {kept['damage']}", not kept["damage"])
    if kept["damage"]:
        return ledger.findings()
    answers = _Answers(publisher)
    by_name = {room["name"]: room for room in broker["rooms"]}
    for index in range(rooms):
        name = f"bench-{index}"
        book = kept["rooms"].get(name, {})
        acknowledged = answers.amounts["gift", index, "accepted"] + answers.amounts["gift", index, "merged"]
        ledger.equal(
            f"{name}, ledger, gifts", "the book adds up to", book.get("gifts", 0), "acknowledged", acknowledged
        )
        for kind in ("gift", "announcement", "commerce"):
            told = answers.of(kind, index, "accepted")
            where = f"{name}, ledger, {kind} events"
            ledger.equal(where, "the book has", book.get(kind, 0), "were accepted", told)
        last_offset = by_name.get(name, {}).get("last_offset", 0)
        where = f"{name}, ledger, offsets"
        ledger.equal(where, "the book ends at", book.get("last_offset", 0), "the broker gave", last_offset)
        ledger.equal(where, "the book has", book.get("events", 0), "events up to its last offset", last_offset)
        for part in ("holes", "unreadable", "out_of_order"):
            ledger.equal(f"{name}, ledger", part.replace("_", " "), book.get(part, 0), "allowed", 0)
    return ledger.findings()
