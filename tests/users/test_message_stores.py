"""Messages in memory: pages are those of a list, the oldest go at the bounds, a key has its first answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.ledger import Committed, LedgerResult, Repeated, make_key
from broker.users.conversation_records import message_item, message_removal
from broker.users.message_stores import MemoryMessages
from protocol.activities.conversations import ConversationMessage
from tests.support.examples import examples

steps = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([None, "ann", "bob"]), st.booleans()), max_size=25
)


def message(offset: int) -> ConversationMessage:
    return ConversationMessage(offset, "ann", "Ann", 1000 + offset, f"text {offset}")


@examples(60)
@given(steps, st.integers(0, 26), st.integers(0, 26), st.integers(1, 9), st.sampled_from([None, "ann", "bob"]))
async def test_pages_are_those_of_a_list(
    history: list[tuple[str, str | None, bool]], after: int, before: int, limit: int, viewer: str | None
) -> None:
    store = MemoryMessages()
    model: dict[str, dict[int, str | None]] = {"a": {}, "b": {}}
    results: list[LedgerResult] = []
    for offset, (id, shadowed, is_kept) in enumerate(history, 1):
        store.record((message_item(id, message(offset), shadowed),), results.append)
        model[id][offset] = shadowed
        if not is_kept:
            store.record((message_removal(id, offset, shadowed),), results.append)
            del model[id][offset]
    for id, kept in model.items():
        seen = [
            offset
            for offset, shadowed in kept.items()
            if offset > after and (not before or offset < before) and (viewer is None or shadowed in (None, viewer))
        ]
        items, more = await store.messages(id, viewer, after, before, limit)
        assert [each.offset for each in items] == (seen[-limit:] if before else seen[:limit])
        assert more == (len(seen) > limit)
    assert len(store) == sum(map(len, model.values()))
    assert all(isinstance(each, Committed) for each in results)


async def test_the_oldest_go_at_each_bound() -> None:
    def ignore(result: LedgerResult) -> None:
        pass

    store = MemoryMessages(max_messages=3, max_keys=2)
    for offset in range(1, 6):
        store.record((message_item("a", message(offset)),), ignore, (make_key("send", str(offset)),))
    assert [each.offset for each in (await store.messages("a", None, 0, 0, 9))[0]] == [3, 4, 5]
    results: list[LedgerResult] = []
    for name in ("5", "1"):
        store.record((message_item("a", message(6)),), results.append, (make_key("send", name, content=b"x"),))
    assert isinstance(results[0], Repeated)
    assert results[0].reused
    assert isinstance(results[1], Committed)
    one = store.nbytes // len(store)
    small = MemoryMessages(max_bytes=2 * one)
    for offset in range(1, 6):
        small.record((message_item("a", message(offset)),), ignore)
    assert len(small) == 2
    assert small.nbytes <= 2 * one
