"""The registry of users' sessions, against a model; and the packed body that all sessions of a user share."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from broker.users.inbox import packed_direct
from broker.users.registry import UserRegistry
from protocol.codes import Lane
from protocol.frames import pack_body
from protocol.messages import Direct, Message
from tests.support.strategies import free_values

USERS = ["ann", "bob", "eva"]


class FakeSession:
    is_remote = False

    def __init__(self, heard_at: float = 0.0) -> None:
        self.heard_at = heard_at

    def replace(self) -> None:
        raise AssertionError("the registry ends no session")

    def send(
        self, message: Message, room: int = 0, sequence: int = 0, lane: Lane | None = None, packed: bytes | None = None
    ) -> None:
        raise AssertionError("the registry sends nothing")


@given(st.integers(1, 3), st.lists(st.tuples(st.booleans(), st.sampled_from(USERS), st.integers(0, 4))))
def test_the_registry_holds_what_was_added_and_not_removed(
    max_per_user: int, steps: list[tuple[bool, str, int]]
) -> None:
    registry = UserRegistry(max_per_user)
    sessions = [FakeSession() for _ in range(5)]
    model: dict[str, list[FakeSession]] = {user: [] for user in USERS}
    for is_added, user, number in steps:
        session = sessions[number]
        if not is_added:
            registry.remove(user, session)
            model[user] = [each for each in model[user] if each is not session]
        elif session not in model[user]:
            assert registry.add(user, session) == (len(model[user]) < max_per_user)
            if len(model[user]) < max_per_user:
                model[user].append(session)
        for each in USERS:
            assert list(registry.sessions(each)) == model[each], "the oldest first"
            assert (each in registry) == bool(model[each])
        assert len(registry) == sum(map(bool, model.values()))
        assert registry.session_count == sum(map(len, model.values()))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=5))
def test_the_session_that_was_heard_least_recently_is_known(times: list[float]) -> None:
    registry = UserRegistry(5)
    sessions = [FakeSession(at) for at in times]
    for session in sessions:
        registry.add("ann", session)
    assert registry.longest_silent("ann") is sessions[times.index(min(times))], "the oldest of several"


@given(st.integers(0, 2**53 - 1), st.integers(0, 65535), st.integers(0, 2**50), free_values)
def test_the_ledgers_packed_payload_makes_the_packed_message(
    direct_id: int, kind: int, at_ms: int, payload: object
) -> None:
    packed = packed_direct(direct_id, kind, at_ms, pack_body((payload,)))
    assert packed == pack_body(Direct(direct_id, kind, at_ms, payload))
