"""Users of all nodes, as the node that decides sees them, against a model."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.users.registry import UserRegistry
from broker.users.shared_users import SharedUsers
from protocol.codes import Lane, MessageType
from protocol.messages import Direct, Message

DIRECT = Direct(0, MessageType.ACTIVITY, 1, ("x",))
NAMES = ["ann", "bob", "eva"]
users = st.sampled_from(NAMES)
nodes = st.sampled_from(["b", "c"])


class FakeSession:
    heard_at = 0.0

    def __init__(self, *, is_remote: bool) -> None:
        self.is_remote = is_remote
        self.sent: list[Message] = []

    def replace(self) -> None:
        raise AssertionError("the registry ends no session")

    def send(
        self, message: Message, room: int = 0, sequence: int = 0, lane: Lane | None = None, packed: bytes | None = None
    ) -> None:
        self.sent.append(message)


class SharedUsersMachine(RuleBasedStateMachine):
    """Links here, relayed ones that do not count, and reports of two other nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = UserRegistry(10)
        self.shared = SharedUsers(self.registry)
        self.links: list[tuple[str, FakeSession]] = []
        self.reported: dict[str, set[str]] = {"b": set(), "c": set()}
        self.online: set[str] = set()
        self.shown: list[tuple[str, str]] = []
        self.shared.on_change = self.on_change
        self.shared.show = lambda node, user, *rest: self.shown.append((node, user))

    def on_change(self, user: str, is_online: bool) -> None:
        assert (user in self.online) is not is_online, "each change once"
        (self.online.add if is_online else self.online.discard)(user)

    @rule(user=users, is_remote=st.booleans())
    def link(self, user: str, is_remote: bool) -> None:
        session = FakeSession(is_remote=is_remote)
        self.registry.attach(user, session)
        self.shared.look(user)
        self.links.append((user, session))

    @rule(data=st.data())
    def end_link(self, data: st.DataObject) -> None:
        if self.links:
            user, session = self.links.pop(data.draw(st.integers(0, len(self.links) - 1)))
            self.registry.remove(user, session)
            self.shared.look(user)

    @rule(node=nodes, online=st.lists(users, unique=True), data=st.data())
    def report(self, node: str, online: list[str], data: st.DataObject) -> None:
        offline = [user for user in NAMES if user not in online and data.draw(st.booleans())]
        self.shared.report(node, online, offline)
        self.reported[node] = (self.reported[node] | set(online)) - set(offline)

    @rule(node=nodes)
    def node_gone(self, node: str) -> None:
        self.shared.drop(node)
        self.reported[node] = set()

    @rule()
    def another_node_decides(self) -> None:
        self.shared.drop_all()
        self.reported = {"b": set(), "c": set()}

    @rule(user=users)
    def send(self, user: str) -> None:
        self.shown.clear()
        self.shared.send(user, DIRECT, Lane.COMMERCE)
        assert sorted(self.shown) == [(node, user) for node in "bc" if user in self.reported[node]]
        for name, session in self.links:
            assert len(session.sent) == (name == user and not session.is_remote)
            session.sent.clear()

    @rule(user=users)
    def watch(self, user: str) -> None:
        self.shared.watched(user, ["eva"])

    @invariant()
    def is_as_the_model(self) -> None:
        here = {user for user, session in self.links if not session.is_remote}
        assert self.shared.here == here
        assert self.online == here | self.reported["b"] | self.reported["c"]
        assert {user for user in NAMES if user in self.shared} == self.online
        assert self.shared.watches.keys() <= here


TestSharedUsers = SharedUsersMachine.TestCase
