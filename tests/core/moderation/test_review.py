"""The review queue: held appears only after approve, in order, once, over any interleaving, refusal and restart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import booleans, data, integers, sampled_from

from broker.core.commerce.activity import ActivityRefusal, AnswerHeld, ReleasedPost, ShowPost
from broker.core.moderation.review import (
    MAX_DONE,
    RELEASES_PER_S,
    RESUME_GRACE_MS,
    ReviewQueue,
)
from broker.core.moderation.review_commands import (
    ClaimItems,
    DecideItems,
    HeldAnswer,
    HoldMessage,
    PutReport,
    ReviewLimits,
)
from protocol.activities.reviews import (
    MAX_REPORTERS,
    AtDeadline,
    ContextMessage,
    HeldBy,
    ReviewFinding,
    ReviewQueueChanged,
    ReviewState,
)
from protocol.codes import ErrorCode, Lane, Role
from protocol.operations.reviews import DecidedItem, DecidedItems, ReportedMessage, Verdict
from tests.support.activities import ActivityDriver, platform, viewer
from tests.support.examples import examples

START = 1_790_000_000_000
APPROVE, REJECT, BAN = Verdict
MOD, OTHER = viewer("mod", Role.MODERATOR), viewer("other", Role.MODERATOR)
LIMITS = ReviewLimits(items=30, user_items=12, nbytes=64 * 1024)


def said(
    text: str,
    *,
    key: str = "",
    lane: Lane = Lane.CHAT,
    review_s: float = 600,
    at_due: AtDeadline = AtDeadline.REJECT,
    address: Any = None,
) -> HoldMessage:
    kind = 1 if lane is Lane.CHAT else 200
    return HoldMessage(
        kind, lane, (text, None), HeldBy.PLATFORM, key, "why", (), round(review_s * 1000), at_due, address
    )


class Reviewed(ActivityDriver):
    """Driver of a queue. ``shown``: texts that are shown, in order; ``told``: how authors are answered."""

    def __init__(self, limits: ReviewLimits = LIMITS) -> None:
        super().__init__(lambda: ReviewQueue("", limits), START)
        self.shown: list[str] = []
        self.told: list[AnswerHeld] = []

    def _deliver(self, batch: Any) -> None:
        super()._deliver(batch)
        if batch.post is not None:
            self.shown.append(batch.post.payload[0])
        for effect in batch.then:
            if isinstance(effect, ShowPost):
                self.shown.append(effect.post.payload[0])
            else:
                self.told.append(effect)

    def decide(self, *ids: int, verdict: Verdict = APPROVE, by: Any = MOD, **fields: Any) -> DecidedItems:
        answer = self.ask(DecideItems(ids, verdict, **fields), by)
        assert isinstance(answer, DecidedItems)
        return answer

    def states(self) -> dict[int, ReviewState]:
        found = [self.activity.items("r", state, 0, 1000, self.now_ms) for state in (None, *ReviewState)]
        return {item.id: item.state for page in found for item in page}


def test_a_held_message_is_shown_after_its_approval_as_its_author_has_posted_it() -> None:
    driver = Reviewed()
    assert driver.ask(said("hello", address="a"), viewer("bob")) == HeldAnswer(1, ReviewState.WAITING)
    (item,) = driver.activity.items("r", None, 0, 10, driver.now_ms)
    assert (item.user, item.name, item.payload, item.reason) == ("bob", "Bob", ("hello", None), "why")
    assert item.due_at_ms == START + 600_000
    assert driver.shown == []
    assert driver.decide(1) == DecidedItems((DecidedItem(1, ReviewState.APPROVED, None, "bob"),), 1)
    assert driver.shown == ["hello"]
    assert driver.told == [AnswerHeld("a", "bob", 1, 1, "", True, "")]
    assert driver.decide(1) == DecidedItems((DecidedItem(1, ReviewState.SHOWN, None, "bob"),), 0)
    assert driver.decide(1, verdict=REJECT).items == (DecidedItem(1, ReviewState.SHOWN, ErrorCode.STALE, "bob"),)
    assert driver.decide(7).items == (DecidedItem(7, code=ErrorCode.UNKNOWN_ACTIVITY),)
    assert [report.name for report in driver.reports] == ["message.held", "message.decided"]


def test_an_event_keeps_author_type_and_lane_and_shares_the_transaction_of_its_release() -> None:
    driver = Reviewed()
    driver.ask(said("news", lane=Lane.COMMERCE), viewer("bob"))
    driver.send(DecideItems((1,), APPROVE), MOD)
    batch = driver.runner.committed()
    assert [fact.name for fact in batch.facts] == ["approved", "released"]
    assert batch.post == ReleasedPost("bob", "Bob", Role.VIEWER, 200, Lane.COMMERCE, ("news", None))
    assert batch.then == (AnswerHeld(None, "bob", 1, 200, "", True, ""),)


def test_approved_messages_wait_for_those_before_them() -> None:
    driver = Reviewed()
    for text in ("a", "b", "c", "d"):
        driver.ask(said(text), viewer("bob"))
    driver.decide(2, 4)
    assert driver.shown == []
    assert driver.activity.counter().data == ReviewQueueChanged(2, 0, 2, START, 4)
    driver.decide(1)
    assert driver.shown == ["a", "b"]
    driver.decide(3, verdict=REJECT, reason="no")
    assert driver.shown == ["a", "b", "d"]
    driver.check()


def test_a_rejected_message_is_never_shown_and_its_author_hears_why() -> None:
    driver = Reviewed()
    driver.ask(said("bad", address="b"), viewer("bob"))
    driver.decide(1, verdict=REJECT, reason="advertising")
    assert (driver.shown, driver.told) == ([], [AnswerHeld("b", "bob", 1, 1, "", False, "advertising")])
    assert driver.states() == {1: ReviewState.REJECTED}


def test_a_post_that_is_repeated_is_held_once_and_has_the_answer_of_its_state() -> None:
    driver = Reviewed()
    driver.ask(said("x", key="k"), viewer("bob"))
    assert driver.ask(said("x", key="k"), viewer("bob")) == HeldAnswer(1, ReviewState.WAITING)
    assert driver.ask(said("x", key="k"), viewer("ann")) == HeldAnswer(2, ReviewState.WAITING)
    driver.decide(1)
    assert driver.ask(said("x", key="k"), viewer("bob")) == HeldAnswer(1, ReviewState.SHOWN)
    driver.decide(2, verdict=REJECT)
    assert driver.ask(said("x", key="k"), viewer("ann")) == HeldAnswer(2, ReviewState.REJECTED)


def test_one_reviewer_has_a_message_at_a_time_until_its_claim_ends() -> None:
    driver = Reviewed()
    for text in ("a", "b", "c"):
        driver.ask(said(text), viewer("bob"))
    first = driver.ask(ClaimItems((), 2, 60_000), MOD)
    assert (first.fence, [item.id for item in first.items]) == (1, [1, 2])
    assert first.items[0].state is ReviewState.CLAIMED
    second = driver.ask(ClaimItems((1, 2, 3), 9, 60_000), OTHER)
    assert (second.fence, [item.id for item in second.items]) == (2, [3])
    assert driver.decide(1, by=OTHER).items == (DecidedItem(1, ReviewState.CLAIMED, ErrorCode.STALE, "bob"),)
    assert driver.decide(1, by=OTHER, fence=2).decided == 0
    assert driver.decide(1).decided == 1
    driver.pass_time(60_000)
    third = driver.ask(ClaimItems((), 9, 60_000), OTHER)
    assert (third.fence, [item.id for item in third.items]) == (3, [2, 3])
    assert driver.decide(2, fence=1).decided == 0  # it has lost its claim
    assert driver.decide(2, by=platform, fence=3).decided == 1
    assert driver.ask(ClaimItems((2, 9), 9, 60_000), OTHER).items == ()


@pytest.mark.parametrize(
    ("at_due", "shown", "state"),
    [(AtDeadline.REJECT, [], ReviewState.REJECTED), (AtDeadline.APPROVE, ["x"], ReviewState.SHOWN)],
)
def test_a_deadline_decides_what_nobody_has(at_due: AtDeadline, shown: list[str], state: ReviewState) -> None:
    driver = Reviewed()
    driver.ask(said("x", review_s=10, at_due=at_due), viewer("bob"))
    driver.ask(said("y", review_s=0, at_due=at_due), viewer("bob"))
    driver.ask(said("z", review_s=10, at_due=AtDeadline.KEEP), viewer("bob"))
    driver.pass_time(9_999)
    assert driver.states()[1] is ReviewState.WAITING
    driver.pass_time(1)
    assert driver.shown == shown
    driver.pass_time(365 * 86_400_000)
    assert driver.states() == {1: state, 2: ReviewState.WAITING, 3: ReviewState.WAITING}


def test_what_fell_due_while_the_broker_was_down_waits_a_minute_for_reviewers() -> None:
    driver = Reviewed()
    driver.ask(said("x", review_s=10, at_due=AtDeadline.APPROVE), viewer("bob"))
    driver.now_ms += 3_600_000
    driver.restart()
    driver.commit_all()
    driver.pass_time(RESUME_GRACE_MS - 1)
    assert driver.shown == []
    driver.pass_time(1)
    assert driver.shown == ["x"]
    driver.check()


def test_every_bound_refuses_as_too_many_and_another_user_still_fits() -> None:
    driver = Reviewed(ReviewLimits(items=3, user_items=2, nbytes=4096))
    for text in ("a", "b"):
        driver.ask(said(text), viewer("bob"))
    refusal = driver.refusal_of(said("c"), viewer("bob"))
    assert (refusal.code, refusal.retry_after_ms > 0) == (ErrorCode.RATE_LIMITED, True)
    assert "of this user" in refusal.rule
    assert "bytes" in driver.refusal_of(said("c" * 4096), viewer("ann")).rule
    driver.ask(said("c"), viewer("ann"))
    assert driver.refusal_of(said("d"), viewer("eve")).rule == "has 3 messages for review"
    driver.decide(1, verdict=REJECT)
    assert isinstance(driver.ask(said("d"), viewer("eve")), HeldAnswer)


def test_a_ban_and_a_decision_about_a_user_cover_all_that_wait_of_it() -> None:
    driver = Reviewed()
    for user in ("bob", "ann", "bob", "eve", "bob"):
        driver.ask(said(f"of {user}"), viewer(user))
    assert driver.activity.authors(DecideItems((1, 4), BAN, user="ann")) == {"bob", "eve", "ann"}
    assert driver.decide(3, verdict=BAN).decided == 3
    assert driver.decide(user="ann", verdict=APPROVE).decided == 1
    assert driver.decide(user="nobody", verdict=APPROVE).items == ()
    assert driver.shown == ["of ann"]
    assert [item.user for item in driver.activity.items("r", None, 0, 9, driver.now_ms)] == ["eve"]


def test_a_second_has_as_many_as_a_viewer_can_read() -> None:
    driver = Reviewed(ReviewLimits())
    for number in range(50):
        driver.ask(said(str(number)), viewer(f"u{number}"))
    driver.decide(*range(1, 51))
    assert len(driver.shown) == RELEASES_PER_S
    driver.pass_time(999)
    assert len(driver.shown) == RELEASES_PER_S
    driver.pass_time(1)
    assert len(driver.shown) == 2 * RELEASES_PER_S
    driver.pass_time(1000)
    assert driver.shown == [str(number) for number in range(50)]


def test_the_end_of_the_room_rejects_what_waits() -> None:
    driver = Reviewed()
    for text in ("a", "b"):
        driver.ask(said(text, address=text), viewer("bob"))
    driver.decide(2)
    driver.end()
    assert [(told.address, told.is_shown) for told in driver.told] == [("a", False), ("b", False)]
    assert driver.activity.items("r", None, 0, 9, driver.now_ms) == []


def test_decided_messages_are_known_up_to_a_bound() -> None:
    driver = Reviewed()
    for number in range(MAX_DONE + 5):
        driver.ask(said(str(number)), viewer("bob"))
        driver.decide(number + 1, verdict=REJECT)
    assert list(driver.states()) == list(range(6, MAX_DONE + 6))
    driver.check()


def test_findings_are_kept_up_to_a_bound_and_a_page_begins_after_an_id() -> None:
    driver = Reviewed()
    found = tuple(ReviewFinding(0, 1, "w", "list", "ads") for _ in range(40))
    driver.ask(said("x")._replace(findings=found, held_by=HeldBy.WORDS), viewer("bob"))
    driver.ask(said("y"), viewer("bob"))
    first, second = driver.activity.items("r", None, 0, 9, driver.now_ms)
    assert first.findings == found[:16]
    assert driver.activity.items("r", None, 0, 1, driver.now_ms) == [first]
    assert driver.activity.items("r", ReviewState.WAITING, 1, 9, driver.now_ms) == [second]
    assert driver.activity.items("r", ReviewState.CLAIMED, 0, 9, driver.now_ms) == []


def test_an_erased_user_is_in_no_message_and_in_no_decision() -> None:
    driver = Reviewed()
    for number, user in enumerate(("bob", "ann", "bob", "eve")):
        driver.ask(said("hello", key=str(number)), viewer(user))
    driver.ask(ClaimItems((4,), 1, 60_000), viewer("bob", Role.MODERATOR))
    driver.decide(1, verdict=REJECT)
    driver.decide(2, verdict=REJECT, by=viewer("bob", Role.MODERATOR))
    assert driver.erase("bob") == []
    assert driver.states() == {2: ReviewState.REJECTED, 4: ReviewState.CLAIMED}
    assert "bob" not in repr(driver.activity.dump())
    driver.check()


def report(
    user: str, text: str = "hi", offset: int | None = None, reason: str = "rude", context: tuple[Any, ...] = ()
) -> PutReport:
    return PutReport(user, user.title(), 1, (text,), START, offset, reason, context)


def test_reports_of_one_message_are_one_item_with_what_was_said_around_it() -> None:
    driver = Reviewed()
    context = (ContextMessage(START - 5, "eve", "Eve", 1, "before"), ContextMessage(START, "bob", "Bob", 1, "hi"))
    assert driver.ask(report("bob", context=context), viewer("ann")) == ReportedMessage(False)
    assert driver.ask(report("bob"), viewer("ann")) == ReportedMessage(True)
    assert driver.ask(report("bob", reason="spam"), viewer("eve")) == ReportedMessage(False)
    assert driver.ask(report("bob", offset=7), viewer("ann")) == ReportedMessage(False)
    driver.ask(said("held"), viewer("bob"))
    first, second, third = driver.activity.items("r", None, 0, 9, driver.now_ms)
    assert [each.held_by for each in (first, second, third)] == [HeldBy.REPORT, HeldBy.REPORT, HeldBy.PLATFORM]
    assert [(each.user, each.reason) for each in first.reports] == [("ann", "rude"), ("eve", "spam")]
    assert (first.context, first.offset, second.offset) == (context, None, 7)
    assert driver.activity.counter().data == ReviewQueueChanged(3, 2, 0, START, 3)
    assert [each.name for each in driver.reports] == ["message.reported"] * 3 + ["message.held"]
    assert driver.reports[1].data.reports == 2
    claimed = driver.ask(ClaimItems((), 2, 60_000), MOD)
    assert [item.id for item in claimed.items] == [1, 2]
    assert driver.activity.reported_events(DecideItems((1, 2), REJECT)) == (7,)
    assert driver.decide(1).items == (DecidedItem(1, ReviewState.APPROVED, None, "bob"),)
    assert driver.decide(2, verdict=REJECT).decided == 1
    assert driver.decide(1).items == (DecidedItem(1, ReviewState.APPROVED, None, "bob"),)
    assert driver.ask(report("bob"), viewer("max")) == ReportedMessage(True)  # it is decided
    driver.decide(3)
    assert driver.shown == ["held"]
    driver.check()


def test_reports_hold_no_message_back_and_are_bounded_for_all_and_for_one() -> None:
    driver = Reviewed(ReviewLimits(user_items=2, reports=3))
    for number in range(2):
        driver.ask(report("bob", offset=number + 1), viewer("ann"))
    assert driver.refusal_of(report("bob", offset=3), viewer("ann")).code is ErrorCode.RATE_LIMITED
    driver.ask(report("bob", offset=3), viewer("eve"))
    assert driver.refusal_of(report("bob", offset=4), viewer("max")).code is ErrorCode.RATE_LIMITED
    assert driver.ask(report("bob", offset=3), viewer("max")) == ReportedMessage(False)
    driver.ask(said("held"), viewer("bob"))
    driver.decide(4)
    assert driver.shown == ["held"]
    for number in range(MAX_REPORTERS + 5):
        driver.ask(report("bob", offset=1), viewer(f"u{number}"))
    first = driver.activity.items("r", None, 0, 1, driver.now_ms)[0]
    assert len(first.reports) == MAX_REPORTERS


def test_an_erased_user_is_in_no_report_and_in_nothing_that_was_said_around_one() -> None:
    driver = Reviewed()
    near = (ContextMessage(START, "bob", "Bob", 1, "secret"),)
    driver.ask(report("ann", context=near), viewer("eve"))
    driver.ask(report("ann", context=near), viewer("bob"))
    driver.ask(report("bob"), viewer("eve"))
    assert driver.erase("bob") == []
    (item,) = driver.activity.items("r", None, 0, 9, driver.now_ms)
    assert [(each.user, each.reason) for each in item.reports] == [("eve", "rude"), ("erased-1", "")]
    assert item.context == (ContextMessage(START, "erased-1", "", 1, ""),)
    assert "bob" not in repr(driver.activity.dump()).lower()
    driver.check()


class Interleaved(RuleBasedStateMachine):
    """Posts, claims, decisions, time, refusals of the ledger, kills and erasures in any order."""

    @initialize()
    def begin(self) -> None:
        self.driver = Reviewed()
        self.number = 0
        self.texts: dict[int, str] = {}

    @rule(user=sampled_from(("bob", "ann", "eve")), is_event=booleans(), due=sampled_from(AtDeadline))
    def hold(self, user: str, is_event: bool, due: AtDeadline) -> None:
        self.number += 1
        lane = Lane.COMMERCE if is_event else Lane.CHAT
        self.driver.send(said(str(self.number), lane=lane, at_due=due, review_s=30), viewer(user))

    @rule(reviewer=sampled_from((MOD, OTHER)), limit=integers(1, 5))
    def claim(self, reviewer: Any, limit: int) -> None:
        self.driver.send(ClaimItems((), limit, 20_000), reviewer)

    @rule(data=data(), verdict=sampled_from(Verdict), reviewer=sampled_from((MOD, OTHER)))
    def decide(self, data: Any, verdict: Verdict, reviewer: Any) -> None:
        most = max(1, self.driver.activity.counter().data.last_id)
        ids = data.draw(integers(1, most)), data.draw(integers(1, most))
        self.driver.send(DecideItems(ids, verdict), reviewer)

    @rule(author=sampled_from(("bob", "ann")), offset=integers(1, 3), by=sampled_from(("eve", "max")))
    def report(self, author: str, offset: int, by: str) -> None:
        self.driver.send(report(author, offset=offset), viewer(by))

    @rule(ms=sampled_from((1, 400, 5_000, 40_000)))
    def time_passes(self, ms: int) -> None:
        self.driver.advance(ms)

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def ledger_commits(self) -> None:
        self.driver.commit()

    @precondition(lambda self: self.driver.is_under_way)
    @rule()
    def ledger_refuses(self) -> None:
        self.driver.refuse()

    @rule()
    def broker_is_killed(self) -> None:
        self.driver.restart()

    @rule(user=sampled_from(("bob", "ann")))
    def user_is_erased(self, user: str) -> None:
        self.driver.commit_all()
        self.shown_in_order_once_and_only_if_approved()
        assert self.driver.erase(user) == []

    @invariant()
    def shown_in_order_once_and_only_if_approved(self) -> None:
        driver = self.driver
        driver.check()
        facts: dict[str, list[int]] = {"approved": [], "rejected": [], "released": []}
        texts = self.texts
        for fact in driver.facts:
            if fact.name == "held":
                texts[fact.data[0]] = fact.data[1]["payload"][0]
            elif fact.name in facts and fact.data[0] in texts:
                facts[fact.name].append(fact.data[0])
        released = facts["released"]
        assert released == sorted(set(released)), "shown twice, or out of order"
        assert set(released) <= set(facts["approved"])
        assert not set(released) & set(facts["rejected"])
        assert driver.shown == [texts[id] for id in released]

    @invariant()
    def bounds_hold(self) -> None:
        items, nbytes = self.driver.activity.size
        assert items <= LIMITS.items
        assert nbytes <= LIMITS.nbytes
        assert not any(isinstance(each, ActivityRefusal) and not each.rule for each in self.driver.answers.values())

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.pass_time(3_600_000)
        last = self.driver.activity.counter().data.last_id
        self.driver.decide(*range(1, last + 1))
        self.driver.pass_time(60_000)
        assert self.driver.activity.size == (0, 0), "something waits for ever"
        self.shown_in_order_once_and_only_if_approved()


Interleaved.TestCase.settings = examples(60, steps=40)
TestInterleaved = Interleaved.TestCase
