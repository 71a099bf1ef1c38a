"""Lotteries: the table of states, proofs that verify, and entries conserved over refusals and restarts."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.commerce.activity import Fact, Requester
from broker.core.commerce.lottery import MAX_PENDING_DRAWS, DrawCommand, EnterCommand, Lottery, VoidCommand
from broker.core.commerce.lottery_config import NewLottery
from protocol.activities.eligibility import Eligibility
from protocol.activities.lotteries import (
    MAX_REPORTED_WINNERS,
    MAX_SHOWN_WINNERS,
    LotteryBonuses,
    LotteryDrawn,
    LotteryEntry,
    LotteryPhase,
    LotteryPrize,
    LotteryView,
    LotteryVoided,
)
from protocol.codes import ErrorCode, Role
from protocol.frames import pack_body
from protocol.json_values import as_json
from protocol.lottery.drand import KNOWN_CHAINS, QUICKNET
from protocol.lottery.proof import verify
from protocol.lottery.terms import LotteryGrade, LotteryTerms
from protocol.lottery.tree import leaf_hash, root_of_path
from protocol.operations.lotteries import LotteryCreated, LotteryProofPage, MyLotteryEntry
from protocol.primitives import digest, pack_text
from tests.support.activities import ActivityDriver, platform, viewer
from tests.support.examples import examples
from tests.support.work import calls_of

START_MS = 1_790_000_000_000
OPEN_MS, CLOSE_MS = START_MS + 10_000, START_MS + 70_000
GRADES = (LotteryGrade("first", 1), LotteryGrade("second", 2))
TERMS = LotteryTerms("bag", "live-1", OPEN_MS, CLOSE_MS, GRADES, 10, "say 福袋")
RANDOM = bytes(range(32))
SIGNATURE = b"\7" * 48
ANN, BOB = viewer("ann"), viewer("bob")
HOST = viewer("host", Role.HOST)
CHAIN = KNOWN_CHAINS[QUICKNET]
ROUND = (CLOSE_MS // 1000 + 60 - CHAIN.genesis_s) // CHAIN.period_s + 1
ROUND_MS = CHAIN.time_ms(ROUND)
BEACON = TERMS._replace(beacon_chain=QUICKNET, beacon_round=ROUND)
OTHER_BEACON = TERMS._replace(beacon_chain="ab" * 32, beacon_round=7)


def make() -> Lottery[int]:
    return Lottery("bag", lambda: RANDOM)


def driver_of(terms: LotteryTerms = TERMS, **more: Any) -> ActivityDriver:
    driver = ActivityDriver(make, START_MS)
    assert isinstance(driver.ask(NewLottery(terms, **more), platform), LotteryCreated)
    return driver


def open_driver(terms: LotteryTerms = TERMS, **more: Any) -> ActivityDriver:
    driver = driver_of(terms, **more)
    until(driver, OPEN_MS)
    return driver


def until(driver: ActivityDriver, at_ms: int) -> None:
    driver.pass_time(max(0, at_ms - driver.now_ms))


def enter(driver: ActivityDriver, *users: str) -> list[LotteryEntry]:
    found: list[LotteryEntry] = [driver.ask(EnterCommand(), viewer(user)) for user in users]
    return found


def hand_in(driver: ActivityDriver, who: Requester = platform, **changed: Any) -> Any:
    ticket = driver.send(DrawCommand(ROUND, SIGNATURE, True)._replace(**changed), who)
    driver.pass_time(100)
    return driver.answers.get(ticket)


def proof_of(driver: ActivityDriver) -> dict[str, Any]:
    """The file that the pages of a proof make."""
    first: LotteryProofPage = driver.activity.proof_page(0, 7, 3, 9)
    proof: dict[str, Any] = as_json(first)
    cursor = first.next
    while cursor is not None:
        page = driver.activity.proof_page(int(cursor), 7, 3, 9)
        proof["entries"] += as_json(page.entries)
        for grade, ids in zip(proof["winners"], as_json(page.winners), strict=True):
            grade += ids
        cursor = page.next
    return proof


def phase(driver: ActivityDriver) -> LotteryPhase:
    found: LotteryPhase = driver.activity.phase
    return found


def names(driver: ActivityDriver) -> list[str]:
    return [event.name.removeprefix("lotteries.") for event in driver.events]


# ---- the way of a lottery


def test_a_lottery_is_announced_opened_closed_and_drawn_and_its_proof_verifies() -> None:
    driver = driver_of()
    announced = driver.events[0].data
    assert driver.activity.next_due() == OPEN_MS
    until(driver, OPEN_MS)
    users = [f"user-{number}" for number in range(20)]
    entries = enter(driver, *users)
    assert len({entry.entry for entry in entries}) == 20
    until(driver, CLOSE_MS + 1000)
    assert names(driver) == ["announced", "opened", "closed", "drawn"]
    assert phase(driver) is LotteryPhase.DRAWN
    proof = proof_of(driver)
    closed, drawn = driver.events[2].data, driver.events[3].data
    result = verify(proof, announced.commitment, closed.root)
    assert (result.failure, result.is_as_seen) == (None, True)
    assert (closed.entries, closed.weight) == (20, 20)
    assert as_json(drawn.winners) == proof["winners"]
    assert drawn.winner_count == 3
    assert proof["committed"] == {"commitment": announced.commitment, "offset": 3, "at_ms": START_MS}
    assert (proof["closed"]["offset"], proof["closed"]["at_ms"]) == (9, closed.at_ms)
    # each winner hears of the prize, the platform of all winners
    by_entry = {entry.entry: user for entry, user in zip(entries, users, strict=True)}
    won = [(id, grade) for grade, ids in enumerate(drawn.winners) for id in ids]
    assert [(message.user, message.name, message.data) for message in driver.messages] == [
        (by_entry[id], "lotteries.won", LotteryPrize("live-1", grade, GRADES[grade].name, id)) for id, grade in won
    ]
    assert [report.name for report in driver.reports] == ["lottery.closed", "lottery.drawn", "lottery.won"]
    assert [(winner.user, winner.entry) for winner in driver.reports[2].data.winners] == [
        (by_entry[id], id) for id, _ in won
    ]
    assert driver.activity.removable_at == drawn.at_ms
    assert driver.activity.next_due() is None


def test_the_seed_is_in_no_event_before_the_draw_and_the_key_of_blind_ids_in_none() -> None:
    driver = open_driver()
    enter(driver, "ann")
    until(driver, CLOSE_MS + 1000)
    drawn = driver.events[3].data
    seed, config = bytes.fromhex(drawn.seed), driver.facts[0].data
    assert config[1] == RANDOM
    before = repr([as_json(event.data) for event in driver.events[:3]])
    assert drawn.seed not in before
    for event in driver.events:
        assert RANDOM.hex() not in repr(as_json(event.data))
    assert seed != RANDOM
    view = driver.activity.view(False)
    assert RANDOM.hex() not in repr(as_json(view))


def test_before_it_opens_it_takes_no_entries_and_says_when_it_does() -> None:
    driver = driver_of()
    refusal = driver.refusal_of(EnterCommand(), ANN)
    assert (refusal.code, refusal.retry_after_ms) == (ErrorCode.NOT_OPEN, 10_000)
    until(driver, OPEN_MS - 1)
    assert driver.refusal_of(EnterCommand(), ANN).retry_after_ms == 1
    assert driver.refusal_of(DrawCommand(0, b"", False), platform).code is ErrorCode.NOT_OPEN
    until(driver, OPEN_MS)
    assert isinstance(driver.ask(EnterCommand(), ANN), LotteryEntry)
    assert driver.refusal_of(DrawCommand(0, b"", False), platform).retry_after_ms == CLOSE_MS - OPEN_MS


def test_intervals_are_half_open() -> None:
    driver = open_driver()
    until(driver, CLOSE_MS - 1)
    enter(driver, "ann")
    driver.now_ms = CLOSE_MS
    ticket = driver.send(EnterCommand(), BOB)
    assert driver.answers[ticket].code is ErrorCode.CLOSED
    driver.pass_time(1000)
    assert driver.refusal_of(EnterCommand(), BOB).code is ErrorCode.CLOSED
    assert driver.refusal_of(EnterCommand(), ANN).code is ErrorCode.CLOSED
    assert driver.events[2].data.entries == 1


def test_what_was_missed_happens_at_once_in_order() -> None:
    driver = driver_of()
    driver.now_ms = CLOSE_MS + 5_000
    driver.restart()
    driver.pass_time(100)
    assert names(driver) == ["announced", "opened", "closed", "drawn"]
    assert proof_of(driver)["entries"] == []


def test_entering_again_gives_the_same_entry_and_one_fact() -> None:
    driver = open_driver()
    (first,) = enter(driver, "ann")
    for _ in range(1000):
        assert driver.ask(EnterCommand(), ANN) == first
    driver.restart()
    assert driver.ask(EnterCommand(), ANN) == first
    assert [fact.name for fact in driver.facts] == ["created", "opened", "entered"]


def test_an_entry_is_blind_and_its_user_can_show_whose_it_is() -> None:
    driver = open_driver()
    (entry,) = enter(driver, "ann")
    salt = bytes.fromhex(entry.salt)
    shown = digest(pack_text("roomcast/lottery/entry/1") + pack_text("bag") + pack_text("ann") + salt)[:16]
    assert entry.entry == shown.hex()
    other = open_driver(is_blind=False)
    assert enter(other, "ann") == [LotteryEntry("ann", "", 1)]


def test_an_entry_gains_no_weight_while_the_room_is_paused() -> None:
    driver = open_driver(bonuses=LotteryBonuses(follow=2))
    first = driver.ask(EnterCommand(), viewer("ann"))
    fan = viewer("ann", follows=True)
    assert driver.ask(EnterCommand(), fan._replace(is_paused=True)) == first
    assert driver.ask(EnterCommand(), fan).weight == 3


def test_bonuses_raise_the_weight_up_to_the_bound_and_never_lower_it() -> None:
    bonuses = LotteryBonuses(follow=2, watch=1, watch_every_s=60, gift=3, gift_every_cents=100)
    driver = open_driver(bonuses=bonuses)

    def weight(**attributes: Any) -> int:
        found: int = driver.ask(EnterCommand(), viewer("ann", **attributes)).weight
        return found

    assert weight() == 1
    assert weight(follows=True) == 3
    assert weight(follows=True, watch_s=119) == 4
    assert weight(watch_s=59) == 4
    assert weight(gift_cents=299) == 7
    assert weight(gift_cents=10**12, watch_s=10**9) == 10
    assert weight() == 10
    assert [fact.name for fact in driver.facts] == ["created", "opened", "entered", *["raised"] * 4]
    until(driver, CLOSE_MS + 1000)
    assert driver.events[2].data.weight == 10
    assert verify(proof_of(driver)).failure is None


def test_a_message_with_the_keyword_enters_and_a_call_without_it_does_not() -> None:
    driver = open_driver(eligibility=Eligibility(keyword=" Ｌｕｃｋｙ 福袋"))
    refusal = driver.refusal_of(EnterCommand(), ANN)
    assert (refusal.code, refusal.field) == (ErrorCode.NOT_ELIGIBLE, "keyword")
    assert driver.refusal_of(EnterCommand("lucky"), ANN).code is ErrorCode.NOT_ELIGIBLE
    (entry, again) = driver.ask(EnterCommand("  lUCKY 福袋\t"), ANN), driver.ask(EnterCommand(), ANN)
    assert entry == again
    assert driver.activity.is_listening
    assert driver.activity.hears("LUCKY 福袋")
    assert not driver.activity.hears("lucky")
    assert not open_driver().activity.hears("")
    until(driver, CLOSE_MS + 1000)
    assert not driver.activity.is_listening
    assert not driver.activity.hears("LUCKY 福袋")


@pytest.mark.parametrize(
    ("conditions", "attributes", "field"),
    [
        (Eligibility(follow=True), {"follows": True}, "follow"),
        (Eligibility(watch_s=60), {"watch_s": 60}, "watch_s"),
        (Eligibility(gift_cents=100), {"gift_cents": 100}, "gift_cents"),
        (Eligibility(tags_any=("fan",)), {"tags": frozenset({"fan"})}, "tags_any"),
        (Eligibility(account_age_s=1), {"account_age_s": 1}, "account_age_s"),
    ],
)
def test_conditions_are_judged_at_the_entry(conditions: Eligibility, attributes: Any, field: str) -> None:
    driver = open_driver(eligibility=conditions)
    refusal = driver.refusal_of(EnterCommand(), ANN)
    assert (refusal.code, refusal.field) == (ErrorCode.NOT_ELIGIBLE, field)
    assert isinstance(driver.ask(EnterCommand(), viewer("ann", **attributes)), LotteryEntry)
    guest = driver.refusal_of(EnterCommand(), viewer("guest", Role.GUEST, **attributes))
    assert (guest.code, guest.field) == (ErrorCode.NOT_ELIGIBLE, "min_role")


def test_a_lottery_has_a_bound_of_entries() -> None:
    driver = open_driver(max_entries=2)
    first, _ = enter(driver, "ann", "bob")
    assert driver.refusal_of(EnterCommand(), viewer("cy")).code is ErrorCode.CLOSED
    assert enter(driver, "ann") == [first]


# ---- creating


def test_creating_again_gives_the_same_answer_and_other_content_is_refused() -> None:
    driver = driver_of()
    first = driver.ask(NewLottery(TERMS), platform)
    until(driver, OPEN_MS + 1)
    driver.restart()
    assert driver.ask(NewLottery(TERMS), platform) == first
    other = driver.refusal_of(NewLottery(TERMS._replace(rule="other")), platform)
    assert (other.code, other.field) == (ErrorCode.KEY_REUSED, "id")
    assert len(driver.events) == 2


BAD = [
    (TERMS._replace(lottery_id="other"), "lottery_id"),
    (TERMS._replace(grades=()), "grades"),
    (TERMS._replace(grades=(GRADES[0], LotteryGrade("first", 5))), "grades"),
    (TERMS._replace(open_at_ms=START_MS - 1), "open_at_ms"),
    (TERMS._replace(close_at_ms=OPEN_MS), "close_at_ms"),
    (TERMS._replace(beacon_round=1), "beacon_round"),
    (TERMS._replace(beacon_chain=QUICKNET), "beacon_round"),
    (BEACON._replace(beacon_round=(CLOSE_MS // 1000 + 9 - CHAIN.genesis_s) // 3), "beacon_round"),
    (BEACON._replace(beacon_round=ROUND + 1201), "beacon_round"),
]


@pytest.mark.parametrize(("terms", "field"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_terms_that_are_refused(terms: LotteryTerms, field: str) -> None:
    driver = ActivityDriver(make, START_MS)
    refusal = driver.refusal_of(NewLottery(terms), platform)
    assert (refusal.code, refusal.field) == (ErrorCode.BAD_FIELD, field)


def test_the_bounds_of_the_round_are_valid() -> None:
    for after_s in (10, 3600):
        close_ms = CHAIN.time_ms(ROUND + 2000) - 1000 * after_s
        driver_of(BEACON._replace(close_at_ms=close_ms, beacon_round=ROUND + 2000))
    driver_of(OTHER_BEACON)
    driver = ActivityDriver(make, START_MS)
    assert driver.ask(NewLottery(TERMS._replace(open_at_ms=START_MS)), platform) == driver.ask(
        NewLottery(TERMS._replace(open_at_ms=START_MS)), platform
    )


def test_a_keyword_has_a_character_that_can_be_seen() -> None:
    refusal = ActivityDriver(make, START_MS).refusal_of(
        NewLottery(TERMS, eligibility=Eligibility(keyword="  ")), platform
    )
    assert refusal.field == "eligibility.keyword"


def test_only_the_platform_creates_one_in_which_gifts_count() -> None:
    driver = ActivityDriver(make, START_MS)
    for new in (
        NewLottery(TERMS, eligibility=Eligibility(gift_cents=1)),
        NewLottery(TERMS, bonuses=LotteryBonuses(gift=1)),
    ):
        assert driver.refusal_of(new, HOST).code is ErrorCode.NOT_ALLOWED
        assert isinstance(ActivityDriver(make, START_MS).ask(new, platform), LotteryCreated)
    assert isinstance(driver.ask(NewLottery(TERMS), HOST), LotteryCreated)


def test_what_was_not_created_knows_no_command() -> None:
    driver = ActivityDriver(make, START_MS)
    for command in (EnterCommand(), DrawCommand(0, b"", True), VoidCommand("x")):
        assert driver.refusal_of(command, platform).code is ErrorCode.UNKNOWN_ACTIVITY
    assert driver.activity.view(False) is None
    assert driver.activity.own_view("ann") is None
    assert driver.activity.next_due() is None


# ---- voiding


@pytest.mark.parametrize("at_ms", [START_MS, OPEN_MS - 1, OPEN_MS, CLOSE_MS - 1])
def test_it_can_be_voided_until_it_closes(at_ms: int) -> None:
    driver = driver_of()
    until(driver, at_ms)
    assert driver.ask(VoidCommand("no time"), HOST) == LotteryVoided("no time", at_ms)
    assert driver.events[-1].data == LotteryVoided("no time", at_ms)
    assert driver.reports[-1].data == ("bag", "no time", 0)
    for command in (EnterCommand(), DrawCommand(0, b"", True), VoidCommand("again")):
        assert driver.refusal_of(command, platform).code is ErrorCode.CLOSED
    driver.restart()
    assert phase(driver) is LotteryPhase.VOIDED
    driver.pass_time(10**8)
    assert names(driver)[-1] == "voided"
    assert driver.activity.removable_at == at_ms
    assert driver.activity.view(False) is None
    assert driver.activity.proof_page(0, 1, 1, 2).code is ErrorCode.CLOSED


def test_without_a_beacon_the_close_is_the_end_of_voiding() -> None:
    driver = open_driver()
    driver.now_ms = CLOSE_MS
    ticket = driver.send(VoidCommand("I do not like it"), HOST)
    assert driver.answers[ticket].code is ErrorCode.CLOSED
    driver.pass_time(1000)
    assert driver.refusal_of(VoidCommand("I do not like it"), HOST).code is ErrorCode.CLOSED
    assert names(driver)[-1] == "drawn"


def test_with_a_beacon_it_can_be_voided_until_the_value_can_be_known() -> None:
    driver = open_driver(BEACON)
    until(driver, ROUND_MS - 1)
    assert phase(driver) is LotteryPhase.CLOSED
    assert driver.ask(VoidCommand("cut"), HOST) == LotteryVoided("cut", ROUND_MS - 1)
    driver = open_driver(BEACON)
    until(driver, ROUND_MS)
    assert driver.refusal_of(VoidCommand("cut"), HOST).code is ErrorCode.CLOSED
    driver = open_driver(OTHER_BEACON)
    until(driver, CLOSE_MS)
    assert driver.refusal_of(VoidCommand("cut"), HOST).code is ErrorCode.CLOSED


def test_the_end_of_the_room_voids_what_is_not_drawn() -> None:
    driver = open_driver()
    enter(driver, "ann")
    driver.end()
    assert driver.reports[-1].data == ("bag", "the room has ended", 1)
    assert phase(driver) is LotteryPhase.VOIDED
    drawn = open_driver()
    until(drawn, CLOSE_MS + 1000)
    drawn.end()
    assert phase(drawn) is LotteryPhase.DRAWN


def test_the_end_of_the_room_sends_the_prizes_that_wait() -> None:
    terms = TERMS._replace(grades=(LotteryGrade("all", 300),))
    driver = open_driver(terms)
    enter(driver, *(f"u{number}" for number in range(300)))
    driver.now_ms = CLOSE_MS
    while names(driver)[-1] != "drawn":
        driver.advance(1)
        if driver.is_under_way:
            driver.commit()
    driver.refuse()  # the first prizes
    assert driver.messages == []
    driver.end()
    assert len({message.user for message in driver.messages}) == len(driver.messages) == 300
    won = [report.data.winners for report in driver.reports if report.name == "lottery.won"]
    assert sum(map(len, won)) == 300
    assert max(map(len, won)) == MAX_REPORTED_WINNERS


# ---- the beacon


def test_a_draw_with_a_beacon_needs_the_signature_of_its_round() -> None:
    driver = open_driver(BEACON)
    enter(driver, *"abcdefgh")
    until(driver, ROUND_MS - 1)
    early = hand_in_at_once(driver)
    assert (early.code, early.retry_after_ms) == (ErrorCode.NOT_OPEN, 1000)
    until(driver, ROUND_MS)
    wrong = driver.refusal_of(DrawCommand(ROUND + 1, SIGNATURE, True), platform)
    assert (wrong.code, wrong.field) == (ErrorCode.BAD_FIELD, "round")
    assert driver.refusal_of(DrawCommand(ROUND, b"", True), platform).field == "signature"
    assert driver.refusal_of(DrawCommand(ROUND, SIGNATURE, False), ANN).code is ErrorCode.NOT_ALLOWED
    drawn = hand_in(driver, ANN)
    assert isinstance(drawn, LotteryDrawn)
    assert drawn.signature == SIGNATURE.hex()
    assert drawn.value == sha256(SIGNATURE).hexdigest()
    assert verify(proof_of(driver), check=lambda *_: None).failure is None
    assert hand_in_at_once(driver) == drawn
    driver.restart()
    assert hand_in_at_once(driver) == drawn
    assert names(driver) == ["announced", "opened", "closed", "drawn"]


def hand_in_at_once(driver: ActivityDriver) -> Any:
    return driver.ask(DrawCommand(ROUND, SIGNATURE, True), platform)


def test_the_platform_may_hand_in_what_cannot_be_checked() -> None:
    driver = open_driver(BEACON)
    until(driver, ROUND_MS)
    assert isinstance(hand_in(driver, is_checked=False), LotteryDrawn)
    other = open_driver(OTHER_BEACON)
    until(other, CLOSE_MS + 10_000)
    assert isinstance(hand_in(other, round=7, is_checked=False), LotteryDrawn)


def test_callers_wait_for_the_draw_together_and_a_second_signature_is_not_drawn_beside_the_first() -> None:
    driver = open_driver(BEACON)
    enter(driver, *"abc")
    until(driver, ROUND_MS)
    tickets = [driver.send(DrawCommand(ROUND, SIGNATURE, True), viewer(f"u{n}")) for n in range(MAX_PENDING_DRAWS)]
    later = driver.ask(DrawCommand(ROUND, SIGNATURE, True), ANN)
    other = driver.ask(DrawCommand(ROUND, b"\1" * 48, True), ANN)
    assert later.code is other.code is ErrorCode.OVERLOADED
    driver.pass_time(100)
    assert len({driver.answers[ticket] for ticket in tickets}) == 1


def test_a_draw_that_the_ledger_refuses_has_not_happened() -> None:
    driver = open_driver(BEACON)
    enter(driver, *"abc")
    until(driver, ROUND_MS)
    ticket = driver.send(DrawCommand(ROUND, SIGNATURE, True), platform)
    while not driver.is_under_way:
        driver.advance(1)
    driver.refuse()
    assert driver.answers[ticket].code is ErrorCode.OVERLOADED
    assert phase(driver) is LotteryPhase.CLOSED
    driver.pass_time(10_000)
    other = hand_in(driver, signature=b"\1" * 48)
    assert other.signature == "01" * 48
    assert verify(proof_of(driver), check=lambda *_: None).failure is None


def test_it_is_void_if_no_value_comes_within_an_hour_of_the_round() -> None:
    driver = open_driver(BEACON)
    until(driver, ROUND_MS + 3_599_999)
    assert phase(driver) is LotteryPhase.CLOSED
    driver.pass_time(1)
    assert driver.events[-1].name == "lotteries.voided"
    other = open_driver(OTHER_BEACON)
    until(other, CLOSE_MS + 7_200_000)
    assert other.events[-1].name == "lotteries.voided"


def test_it_is_void_if_the_root_was_not_public_before_the_round() -> None:
    driver = open_driver(BEACON)
    enter(driver, "ann")
    driver.now_ms = ROUND_MS
    driver.restart()
    driver.pass_time(100)
    assert names(driver) == ["announced", "opened", "voided"]


# ---- what is read


def test_my_entry_leads_to_the_root_after_the_close() -> None:
    driver = open_driver()
    users = [f"u{number}" for number in range(37)]
    enter(driver, *users)
    before: MyLotteryEntry = driver.activity.my_entry("u3")
    assert (before.root, before.index, before.path) == ("", None, ())
    assert driver.activity.my_entry("zoe") is None
    until(driver, CLOSE_MS + 1000)
    root = driver.events[2].data.root
    prizes = 0
    for user in users:
        mine: MyLotteryEntry = driver.activity.my_entry(user)
        assert mine.root == root
        assert mine.index is not None
        path = [bytes.fromhex(each) for each in mine.path]
        found = root_of_path(leaf_hash(mine.entry, mine.weight), mine.index, mine.entries, path)
        assert found is not None
        assert found.hex() == root
        prizes += mine.prize != ""
        assert driver.activity.own_view(user) == mine[:4]
    assert prizes == 3
    driver.restart()
    assert driver.activity.my_entry(users[0]).root == root


def test_the_view_has_what_a_late_joiner_needs_and_fits() -> None:
    grades = tuple(LotteryGrade(f"{number:02}" + "😀" * 62, 10_000) for number in range(20))
    driver = open_driver(TERMS._replace(grades=grades), eligibility=Eligibility(keyword="😀" * 64))
    view: LotteryView = driver.activity.view(False)
    assert (view.phase, view.open_at_ms, view.close_at_ms) == (LotteryPhase.OPEN, OPEN_MS, CLOSE_MS)
    assert (view.grade_count, len(view.grades)) == (20, 1)
    assert len(pack_body(as_json(view))) <= 1024
    assert driver.activity.counter().data.entries == 0
    driver.ask(EnterCommand("😀" * 64), ANN)
    assert driver.activity.counter().data.entries == 1
    until(driver, CLOSE_MS + 1000)
    assert driver.activity.counter() is None
    assert driver.activity.view(False).root == driver.events[2].data.root


def test_the_proof_is_there_after_the_draw() -> None:
    driver = open_driver()
    assert driver.activity.proof_page(0, 1, 1, 2).code is ErrorCode.NOT_OPEN
    until(driver, CLOSE_MS + 1000)
    assert driver.activity.proof_page(0, 1, 1, 2).next is None


def test_many_winners_are_named_in_part_and_all_of_them_hear_of_it() -> None:
    grades = (LotteryGrade("first", 90), LotteryGrade("second", 500))
    driver = open_driver(TERMS._replace(grades=grades))
    users = {f"u{number}" for number in range(400)}
    enter(driver, *users)
    until(driver, CLOSE_MS)
    refused = 0
    while driver.activity.next_due() is not None:
        driver.advance(10)
        while driver.is_under_way:
            refused += 1
            if refused % 2:
                driver.refuse()
                driver.advance(6000)
            else:
                driver.commit()
    drawn = driver.events[-1].data
    assert [len(ids) for ids in drawn.winners] == [90, MAX_SHOWN_WINNERS - 90]
    assert drawn.winner_count == 400
    assert len(driver.messages) == 400
    assert {message.user for message in driver.messages} == users
    won = [winner.user for report in driver.reports if report.name == "lottery.won" for winner in report.data.winners]
    assert sorted(won) == sorted(users)
    assert verify(proof_of(driver)).failure is None


# ---- speed


@pytest.mark.slow
def test_a_hundred_thousand_entries_close_and_draw_in_300_short_steps() -> None:
    count = 100_000
    lottery: Lottery[int] = Lottery("bag", lambda: RANDOM)
    terms = TERMS._replace(grades=(LotteryGrade("first", 1), LotteryGrade("second", 999)))
    step = lottery.decide(NewLottery(terms), platform, 1, START_MS)
    assert step is not None
    for fact in (*step.facts, Fact("opened")):
        lottery.apply(fact)
    for number in range(count):
        made = lottery.decide(EnterCommand(), viewer(f"user-{number}"), 1, OPEN_MS)
        assert made is not None
        lottery.apply(made.facts[0])

    def advance() -> None:
        found = lottery.due(CLOSE_MS + len(steps))
        for fact in found.facts if found is not None else ():
            lottery.apply(fact)

    steps: list[int] = []
    while lottery.phase is not LotteryPhase.DRAWN:
        steps.append(calls_of(advance))
    assert len(steps) < 300, "one a millisecond, together a third of a second"
    assert max(steps) < 30_000, "a step of 24,000 calls takes 5 ms"
    assert sum(steps) < 2_000_000


# ---- any order of things


class LotteryMachine(RuleBasedStateMachine):
    """Commands, commits, refusals, restarts and time, in any order."""

    @initialize(has_beacon=st.booleans(), is_blind=st.booleans(), max_entries=st.sampled_from([3, 200_000]))
    def begin(self, has_beacon: bool, is_blind: bool, max_entries: int) -> None:
        self.driver = ActivityDriver(make, START_MS)
        terms = BEACON if has_beacon else TERMS
        self.new = NewLottery(terms, is_blind, max_entries, Eligibility(), LotteryBonuses(follow=2))
        self.entered: dict[int, str] = {}
        self.driver.send(self.new, platform)

    @rule(user=st.sampled_from("abcdefgh"), follows=st.booleans())
    def enter(self, user: str, follows: bool) -> None:
        ticket = self.driver.send(EnterCommand(), viewer(user, follows=follows))
        self.entered[ticket] = user

    @rule(who=st.sampled_from([platform, ANN]), signature=st.sampled_from([SIGNATURE, b"\1" * 48]))
    def draw(self, who: Requester, signature: bytes) -> None:
        self.driver.send(DrawCommand(self.new.terms.beacon_round, signature, True), who)

    @rule()
    def create_again(self) -> None:
        self.driver.send(self.new, platform)

    @rule(is_meant=st.integers(0, 5))
    def void(self, is_meant: int) -> None:
        if is_meant == 5:
            self.driver.send(VoidCommand("x"), HOST)

    @rule(ms=st.sampled_from([0, 1, 5, 100, 10_000, 30_000, 60_000]))
    def wait(self, ms: int) -> None:
        self.driver.advance(ms)

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def commit(self) -> None:
        self.driver.commit()

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def refuse(self) -> None:
        self.driver.refuse()

    @rule()
    def restart(self) -> None:
        self.driver.restart()

    @invariant()
    def entries_are_conserved(self) -> None:
        driver = self.driver
        driver.check()
        durable = {fact.data[1]: fact.data[0] for fact in driver.facts if fact.name == "entered"}
        assert len(durable) == sum(fact.name == "entered" for fact in driver.facts), "a user has two entries"
        for ticket, user in self.entered.items():
            answer = driver.answers.get(ticket)
            if isinstance(answer, LotteryEntry):
                assert durable[user] == answer.entry
        kinds = names(driver)
        assert kinds == ["announced", "opened", "closed", "drawn"][: len(kinds)] or kinds[-1] == "voided"
        for event in driver.events:
            if event.name == "lotteries.closed":
                assert event.data.entries == len(durable)

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        driver = self.driver
        driver.pass_time(60_000)
        if not driver.activity.exists:
            return
        until(driver, ROUND_MS + 10_000)
        if phase(driver) is LotteryPhase.CLOSED:
            hand_in(driver)
        driver.pass_time(20_000)
        assert phase(driver) in (LotteryPhase.DRAWN, LotteryPhase.VOIDED)
        assert len(driver.answers) + len(driver.lost) == driver.asked
        self.entries_are_conserved()
        if phase(driver) is LotteryPhase.DRAWN:
            proof = proof_of(driver)
            announced, closed = driver.events[0].data, driver.events[2].data
            assert verify(proof, announced.commitment, closed.root, check=lambda *_: None).failure is None
            winners = [id for ids in proof["winners"] for id in ids]
            entries = dict(proof["entries"])
            assert len(set(winners)) == len(winners) == min(3, len(entries))
            assert set(winners) <= set(entries)
            won = {message.user for message in driver.messages}
            assert len(won) == len(driver.messages) == len(winners)
            driver.restart()
            assert proof_of(driver) == proof


LotteryMachine.TestCase.settings = examples(80, steps=40)
TestLotteries = LotteryMachine.TestCase
