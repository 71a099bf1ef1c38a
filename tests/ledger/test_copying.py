"""A copy that is filled page by page with what another one holds goes on as that one does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.ledger import (
    BatchRedacted,
    Committed,
    CopyCleared,
    CopyFilled,
    DirectAcked,
    DirectEntry,
    DirectsCancelled,
    DirectsRemoved,
    Reader,
    RecordPut,
    RecordRemoved,
    Repeated,
    database_path,
    make_key,
)
from broker.ledger.copying import (
    LOG_KEY,
    CopyCursor,
    changes_inboxes,
    key_mark,
    read_changed,
    read_copy,
    read_key_marks,
)
from broker.ledger.entries import Item, Submission
from broker.ledger.store import Store
from tests.support.examples import examples
from tests.support.faulty_disk import quick_directory

KINDS = ("alone", "of.user", LOG_KEY)

users = st.sampled_from(["ann", "bob"])
items: st.SearchStrategy[Item] = st.one_of(
    st.builds(
        DirectEntry, users, st.just(4), st.integers(1, 99), st.just(2**50), st.binary(max_size=9),
        st.sampled_from(["", "b1"]), st.booleans(),
    ),
    st.builds(DirectAcked, users, st.integers(0, 6), st.integers(1, 99)),
    st.builds(DirectsCancelled, st.just(""), users, st.integers(0, 6), st.booleans()),
    st.builds(DirectsCancelled, st.just("b1")),
    st.builds(DirectsRemoved, users),
    st.builds(BatchRedacted, st.just("b1"), st.binary(max_size=9)),
    st.builds(RecordPut, st.sampled_from(KINDS[:2]), st.sampled_from(["", "ann"]), st.sampled_from(["", "x"]),
              st.integers(1, 99), st.binary(max_size=9)),
    st.builds(RecordRemoved, st.sampled_from(KINDS[:2]), st.sampled_from(["", "ann"]), st.sampled_from(["", "x"])),
)  # fmt: skip
facts = st.tuples(st.lists(items, min_size=1, max_size=3), st.sampled_from(["", "k1", "k2", "k3"]))
logs = st.lists(facts, max_size=20)


def submission(content: Sequence[Item], key: str) -> Submission:
    """Return a fact of the log as a copy takes it: its key is marked."""
    keys = (make_key("k", key),) if key else ()
    marks = [key_mark(each.digest) for each in keys]
    return Submission((*content, *marks), keys)


def pages_of(path: Path, max_bytes: int = 10) -> list[tuple[Item, ...]]:
    """Return all pages of a copy."""
    reader, pages = Reader(path), []
    cursor: CopyCursor | None = CopyCursor()
    while cursor is not None:
        page, cursor = read_copy(reader, KINDS, cursor, max_bytes)
        pages.append(page)
    reader.close()
    return pages


def fill(store: Store, pages: Sequence[tuple[Item, ...]]) -> None:
    for page in pages:
        if page:
            store.commit([Submission(page)])


def by_user(path: Path) -> list[Any]:
    """Return all that a copy holds, in an order that does not depend on when it came."""
    found: list[Any] = []
    for item in whole(path):
        if isinstance(item, CopyFilled):
            found += [*item.inboxes, *item.keys, *item.directs]
        else:
            found.append(item)
    return sorted(map(repr, found))


def whole(path: Path) -> list[Item]:
    """Return all that a copy holds."""
    return [item for page in pages_of(path, 1 << 20) for item in page]


@examples(60)
@given(logs, logs, logs, st.integers(1, 30))
def test_a_filled_copy_answers_what_follows_as_the_first_does(
    before: list[tuple[list[Item], str]],
    other: list[tuple[list[Item], str]],
    after: list[tuple[list[Item], str]],
    max_bytes: int,
) -> None:
    with quick_directory() as directory:
        names = [directory / name for name in ("first", "fresh", "late")]
        for name in names:
            name.mkdir()
        first, fresh, late = (Store(database_path(name)) for name in names)
        for fact in before:
            first.commit([submission(*fact)])
        for fact in other:  # this one had begun with another log
            late.commit([submission(*fact)])
        pages = pages_of(first.path, max_bytes)
        fill(fresh, pages)
        late.commit([Submission((CopyCleared(KINDS),))])
        fill(late, pages)
        assert whole(fresh.path) == whole(first.path)
        assert [item for item in whole(late.path) if isinstance(item, RecordPut) and item.kind != LOG_KEY] == [
            item for item in whole(first.path) if isinstance(item, RecordPut) and item.kind != LOG_KEY
        ]
        for fact in after:
            results = [store.commit([submission(*fact)]) for store in (first, fresh)]
            assert results[0] == results[1]
        assert whole(fresh.path) == whole(first.path)
        for store in (first, fresh, late):
            store.close()
            reader = Reader(store.path)
            reader.verify_all()
            reader.close()


@examples(60)
@given(logs, st.lists(facts, max_size=12), logs, st.integers(1, 30))
def test_a_copy_that_is_filled_while_the_log_goes_on_answers_as_the_first_does(
    before: list[tuple[list[Item], str]],
    between: list[tuple[list[Item], str]],
    after: list[tuple[list[Item], str]],
    max_bytes: int,
) -> None:
    with quick_directory() as directory:
        for name in ("first", "fresh"):
            (directory / name).mkdir()
        first, fresh = (Store(database_path(directory / name)) for name in ("first", "fresh"))
        for fact in before:
            first.commit([submission(*fact)])
        reader = Reader(first.path)
        cursor: CopyCursor | None = CopyCursor()
        users, keys = set[str](), set[bytes]()
        while cursor is not None:
            page, cursor = read_copy(reader, KINDS, cursor, max_bytes)
            fill(fresh, [page])
            if between and cursor is not None:
                content, key = between.pop()
                has_inboxes = any(map(changes_inboxes, content))
                live = submission(content, key if has_inboxes else "")
                (result,) = first.commit([live])
                rest = [item for item in content if not changes_inboxes(item)]
                if rest and isinstance(result, Committed):
                    fresh.commit([submission(rest, "")])
                elif rest:
                    return  # no fact with a key has records too
                if has_inboxes:
                    users |= {item.user for item in content if changes_inboxes(item) and item.user}  # type: ignore[union-attr]
                    users |= {user for user, _ in getattr(result, "cancelled", ())}
                    keys |= {each.digest for each in live.keys}
        fill(fresh, read_changed(reader, sorted(users), sorted(keys), max_bytes))
        reader.close()
        assert by_user(fresh.path) == by_user(first.path)
        for fact in after:
            assert first.commit([submission(*fact)]) == fresh.commit([submission(*fact)])
        for store in (first, fresh):
            store.close()
            reader = Reader(store.path)
            reader.verify_all()
            reader.close()


def test_rows_that_are_there_stay_and_marks_of_keys_that_are_gone_are_found() -> None:
    with quick_directory() as directory:
        store = Store(database_path(directory))
        store.commit([submission([DirectEntry("ann", 4, 1, 2**50, b"one")], "k1")])
        pages = pages_of(store.path)
        store.commit([Submission((DirectAcked("ann", 1, 2),))])
        held = whole(store.path)
        fill(store, pages)
        assert whole(store.path) == held
        (repeated,) = store.commit([submission([DirectEntry("ann", 4, 1, 2**50, b"again")], "k1")])
        assert isinstance(repeated, Repeated)
        gone = "00" * 16
        store.commit([Submission((RecordPut(LOG_KEY, gone, "", 5, b""),))])
        reader = Reader(store.path)
        assert list(read_key_marks(reader)) == [RecordRemoved(LOG_KEY, gone, "")]
        reader.close()
        assert all(not isinstance(item, RecordPut) or item.subject != gone for item in whole(store.path))
        store.close()
