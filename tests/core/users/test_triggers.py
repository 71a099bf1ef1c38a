"""Rules of triggered marketing: what waits, what ends it, and that each offer is due once."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from broker.core.users.triggers import MAX_RULES, OfferId, TriggerTable

USERS, SUBJECTS = ("ann", "acme:bob"), ("mug", "tea", "")


class Rule(NamedTuple):
    id: str
    trigger: str
    cancelled_by: str
    delay_s: int


RULES = (Rule("now", "viewed", "", 0), Rule("soon", "viewed", "bought", 10), Rule("late", "left", "bought", 30))
reports = st.tuples(
    st.sampled_from(USERS), st.sampled_from(["viewed", "left", "bought", "other"]), st.sampled_from(SUBJECTS),
    st.integers(0, 15),
)  # fmt: skip


def table(**bounds: int) -> TriggerTable[Rule]:
    made: TriggerTable[Rule] = TriggerTable(**bounds)
    for tenant in ("", "acme"):
        for rule in RULES:
            made.put(tenant, rule)
    return made


@given(st.lists(reports, max_size=30), st.sampled_from([2, 20]))
def test_an_offer_is_due_once_at_the_time_of_its_last_report_unless_it_is_cancelled(
    history: list[tuple[str, str, str, int]], most: int
) -> None:
    triggers = table(max_of_user=most)
    model: dict[OfferId, int] = {}
    now_ms = 0
    for user, trigger, subject, passed_s in history:
        now_ms += passed_s * 1000
        due = {id for id, due_ms in model.items() if due_ms <= now_ms}
        taken = []
        while (offer := triggers.take_due(now_ms)) is not None:
            taken.append(offer.id)
            triggers.drop(offer.id)
        assert sorted(taken) == sorted(due), "each once"
        for id in due:
            del model[id]
        tenant = user.partition(":")[0] if ":" in user else ""
        decision = triggers.decide(tenant, user, trigger, subject, "", {}, now_ms)
        for id in decision.cancelled:
            triggers.drop(id)
        for later in decision.later:
            triggers.wait(later)
        own = {id for id in model if id.user == user}
        if trigger == "bought":
            expected = {id for id in own if not subject or id.subject == subject}
            assert set(decision.cancelled) == expected
            for id in expected:
                del model[id]
        started = [rule for rule in RULES if rule.trigger == trigger]
        assert [rule.id for rule in decision.now] == [rule.id for rule in started if not rule.delay_s]
        for rule in started:
            id = OfferId(user, rule.id, subject)
            if rule.delay_s and (id in model or len({each for each in model if each.user == user}) < most):
                model[id] = now_ms + rule.delay_s * 1000
            elif rule.delay_s:
                assert decision.refused
        assert len(triggers) == len(model)


def test_bounds_and_removed_rules() -> None:
    triggers = table(max_waiting=1)
    for number in range(MAX_RULES - len(RULES)):
        triggers.put("", Rule(f"r{number}", "x", "", 0))
    assert not triggers.has_room("", "more")
    assert triggers.has_room("", "r1")
    (offer,) = triggers.decide("", "ann", "viewed", "mug", "", {}, 0).later
    triggers.wait(offer)
    assert triggers.decide("", "bob", "viewed", "mug", "", {}, 0).refused == 1
    assert triggers.remove("", "soon")
    assert not triggers.remove("", "soon")
    assert triggers.decide("", "ann", "bought", "mug", "", {}, 0).cancelled == ()
    triggers.forget("ann")
    assert len(triggers) == 0
    assert triggers.take_due(10**9) is None
