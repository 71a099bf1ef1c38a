"""Cards: whatever order and however often their reports come, the state goes forward and ends at the latest one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core.users.cards import CardState, has_status, is_newer
from protocol.activities.cards import CardKind, CardStatus

kinds = st.sampled_from(CardKind)
states = st.builds(CardState, st.sampled_from(CardStatus), st.integers(0, 3))


@given(kinds, st.lists(states, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_repeated_and_shuffled_reports_end_at_the_same_state(
    kind: CardKind, history: list[CardState], rng: object
) -> None:
    reports = [each for each in history if has_status(kind, each.status)] * 3
    ends = set()
    for _ in range(4):
        rng.shuffle(reports)  # type: ignore[attr-defined]  # a random.Random
        shown: list[CardState] = []
        for report in reports:
            before = shown[-1] if shown else None
            if is_newer(kind, before, report):
                assert before is None or not is_newer(kind, report, before)
                shown.append(report)
        assert len(shown) == len(set(shown))
        ends.update(shown[-1:])
    assert len(ends) == bool(reports)


@given(states, states, states)
def test_later_is_a_strict_order_of_the_states_of_a_kind(a: CardState, b: CardState, c: CardState) -> None:
    for kind in CardKind:
        if all(has_status(kind, each.status) for each in (a, b, c)):
            assert is_newer(kind, a, b) + is_newer(kind, b, a) == (a != b)
            assert not (is_newer(kind, a, b) and is_newer(kind, b, c)) or is_newer(kind, a, c)


def test_a_payment_that_has_failed_may_be_paid_and_one_that_is_paid_does_not_fail() -> None:
    paid, failed = CardState(CardStatus.PAID, 0), CardState(CardStatus.FAILED, 9)
    assert is_newer(CardKind.PAYMENT, failed, paid)
    assert not is_newer(CardKind.PAYMENT, paid, failed)
    assert not has_status(CardKind.PAYMENT, CardStatus.SHIPPED)
