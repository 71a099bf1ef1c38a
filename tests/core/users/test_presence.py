"""Watches of presence: a watcher is sent each change once, and nothing is left of who has gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core.users.presence import PresenceTable

users = st.sampled_from(["ann", "bob", "cem"])
steps: st.SearchStrategy[tuple[str, str, set[str]]] = st.one_of(
    st.tuples(st.just("watch"), users, st.sets(users)),
    st.tuples(st.just("end"), users, st.just(set())),
    st.tuples(st.sampled_from(["on", "off"]), users, st.just(set())),
)


@given(st.lists(steps, max_size=40))
def test_watchers_know_what_they_were_sent(taken: list[tuple[str, str, set[str]]]) -> None:
    table = PresenceTable()
    watched: dict[str, set[str]] = {}
    sent: dict[tuple[str, str], bool] = {}
    for kind, user, others in taken:
        if kind in ("watch", "end"):
            for other in watched.pop(user, set()):
                del sent[user, other]
            if kind == "watch":
                table.watch(user, others)
                watched[user] = others
                sent |= {(user, other): False for other in others}
            else:
                table.end(user)
        else:
            for watcher in table.watchers(user):
                is_news = sent[watcher, user] is not (kind == "on")
                assert table.must_send(user, watcher, is_online=kind == "on") is is_news
                assert not table.must_send(user, watcher, is_online=kind == "on")
                sent[watcher, user] = kind == "on"
        assert table.watches == len(sent)
        for each in ("ann", "bob", "cem"):
            assert set(table.watchers(each)) == {watcher for watcher, other in sent if other == each}
            assert table.is_watched(each) is bool(table.watchers(each))


def test_who_goes_on_watching_is_sent_how_each_is_whatever_it_was_sent_before() -> None:
    table = PresenceTable()
    table.resume("ann", ["bob", "cem"])
    assert table.must_send("bob", "ann", is_online=False)
    assert not table.must_send("bob", "ann", is_online=False)
    assert table.must_send("cem", "ann", is_online=True)
    assert table.watches == 2
