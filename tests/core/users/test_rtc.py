"""RTC calls: one a user, answered once, ended once, and never left ringing."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.users.rtc import LOST_S, RING_S, CallEnd, RtcCall, RtcTable
from tests.support.examples import examples

USERS = ("ann", "bob", "cem", "dan")
users = st.sampled_from(USERS)


class Calling(RuleBasedStateMachine):
    """Users who call each other, answer from several devices, and lose their links."""

    def __init__(self) -> None:
        super().__init__()
        self.table = RtcTable(max_calls=2)
        self.now = 0.0
        self.calls: list[RtcCall] = []
        self.ended: set[str] = set()
        self.answers: dict[str, int] = {}

    @rule(caller=users, callee=users)
    def ring(self, caller: str, callee: str) -> None:
        if caller == callee:
            return
        call = RtcCall(f"c-{len(self.calls)}", "pair", caller, callee, "token", self.now)
        is_free = self.table.of_user(caller) is None and self.table.of_user(callee) is None
        assert self.table.ring(call) is (is_free and len(self.open) < 2)
        if is_free and call in list(self.table):
            self.calls.append(call)

    @property
    def open(self) -> list[RtcCall]:
        return [call for call in self.calls if call.id not in self.ended]

    @rule(number=st.integers(0, 9), user=users)
    def accept(self, number: int, user: str) -> None:
        if number >= len(self.calls):
            return
        call = self.calls[number]
        if self.table.accept(call, user, self.now):
            assert user == call.callee
            assert call.id not in self.ended
            self.answers[call.id] = self.answers.get(call.id, 0) + 1

    @rule(number=st.integers(0, 9))
    def end(self, number: int) -> None:
        if number < len(self.calls):
            call = self.calls[number]
            assert self.table.end(call) is (call.id not in self.ended)
            self.ended.add(call.id)

    @rule(user=users, is_online=st.booleans())
    def change(self, user: str, is_online: bool) -> None:
        self.table.set_online(user, self.now, is_online=is_online)

    @rule(seconds=st.sampled_from([1.0, LOST_S, RING_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for call, why in self.table.due(self.now):
            assert why is not CallEnd.TIMEOUT or call.answered_at is None
            assert self.table.end(call)
            self.ended.add(call.id)
        for call in self.open:
            assert call.answered_at is not None or self.now < call.started_at + RING_S

    @invariant()
    def a_user_has_one_call_and_an_answer_is_one(self) -> None:
        assert {call.id for call in self.table} == {call.id for call in self.open}
        for user in USERS:
            own = [call for call in self.open if user in call.users]
            assert len(own) <= 1
            assert self.table.of_user(user) is (own[0] if own else None)
        assert all(count == 1 for count in self.answers.values())


TestCalling = Calling.TestCase
TestCalling.settings = examples(100, steps=40)
