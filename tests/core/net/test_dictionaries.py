"""Which dictionary a link gets: what the client holds, what is in force, and what happens while it changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.core.net.dictionaries import SETTLE_S, DictionaryTable
from protocol.codes import Codec, Feature
from protocol.dictionaries import BUILT_IN, Dictionary, from_text
from protocol.messages import OfferedDictionary

LZ4, BOTH = int(Feature.LZ4), int(Feature.LZ4 | Feature.LZ4_DICT_1)
A, B, C = (Dictionary(text.encode() * 20) for text in ("链接在哪", "多少钱", "来了来了"))


def offer(codec: Codec, dictionary: Dictionary) -> OfferedDictionary:
    return OfferedDictionary(codec, dictionary.name, len(dictionary.data))


def test_without_a_dictionary_of_the_deployment_a_link_has_what_its_features_say() -> None:
    table = DictionaryTable()
    assert table.choose(BOTH, (), 0) is Codec.LZ4_DICT_1
    assert table.choose(LZ4, (), 0) is Codec.LZ4
    assert table.choose(0, (BUILT_IN.name,), 0) is Codec.PLAIN
    assert table.offered(BOTH, ()) == table.offered(0, (A.name,)) == ()


def test_a_client_without_the_built_in_dictionary_may_get_it_and_then_has_it() -> None:
    table = DictionaryTable()
    assert table.offered(LZ4, ()) == (offer(Codec.LZ4_DICT_1, BUILT_IN),)
    assert table.choose(LZ4, (BUILT_IN.name,), 0) is Codec.LZ4_DICT_1
    found = table.text_of(BUILT_IN.name)
    assert found is not None
    assert from_text(found[1], BUILT_IN.name).data == BUILT_IN.data


def test_the_dictionary_in_force_is_offered_first_and_used_where_the_client_holds_it() -> None:
    table = DictionaryTable()
    assert table.use(A, 0) is None
    assert table.offered(BOTH, ()) == (offer(Codec.LZ4_DICT_2, A),)
    assert table.offered(LZ4, ()) == (offer(Codec.LZ4_DICT_2, A), offer(Codec.LZ4_DICT_1, BUILT_IN))
    assert table.choose(BOTH, (), 0) is Codec.LZ4_DICT_1
    assert table.choose(BOTH, (B.name, A.name), 0) is Codec.LZ4_DICT_2
    assert table.data[Codec.LZ4_DICT_2] == A.data


def test_two_dictionaries_are_in_use_during_a_change_and_the_third_takes_the_place_of_the_oldest() -> None:
    table = DictionaryTable()
    table.use(A, 0)
    assert table.use(B, 1) is None
    assert table.choose(BOTH, (A.name,), 1) is Codec.LZ4_DICT_2, "a client that has only the old one begins with it"
    assert table.offered(BOTH, (A.name,)) == (offer(Codec.LZ4_DICT_3, B), offer(Codec.LZ4_DICT_2, A))
    assert table.use(C, 2) is Codec.LZ4_DICT_2
    assert table.text_of(A.name) is None
    assert table.codec_of(A.name, 2) is None
    assert table.choose(BOTH, (A.name,), 2) is Codec.LZ4_DICT_1


def test_a_place_is_not_given_out_while_frames_with_the_dictionary_before_are_on_their_way() -> None:
    table = DictionaryTable()
    for now, dictionary in enumerate((A, B, C)):
        table.use(dictionary, now)
    assert table.codec_of(C.name, 2) == (Codec.LZ4_DICT_2, SETTLE_S)
    assert table.choose(BOTH, (C.name,), 2) is Codec.LZ4_DICT_1
    assert table.choose(BOTH, (C.name, B.name), 2) is Codec.LZ4_DICT_3
    assert table.codec_of(C.name, 2 + SETTLE_S) == (Codec.LZ4_DICT_2, 0.0)
    assert table.choose(BOTH, (C.name,), 2 + SETTLE_S) is Codec.LZ4_DICT_2


def test_one_that_is_too_large_to_be_sent_changes_nothing() -> None:
    table = DictionaryTable()
    table.use(A, 0)
    noise = Dictionary(bytes((n * n * 2654435761 >> 13) & 255 for n in range(64_000)))
    with pytest.raises(ValueError, match="fit a frame"):
        table.use(noise, 1)
    assert table.in_force is A
    assert Codec.LZ4_DICT_3 not in table.data


def test_without_a_dictionary_again_links_keep_theirs_and_new_ones_are_offered_none() -> None:
    table = DictionaryTable()
    table.use(A, 0)
    assert table.use(None, 1) is None
    assert table.in_force is None
    assert table.offered(BOTH, ()) == ()
    assert table.choose(BOTH, (A.name,), 1) is Codec.LZ4_DICT_2
    assert table.use(A, 2) is None
    assert table.in_force is A


class Changes(RuleBasedStateMachine):
    """Links come while dictionaries change: what a codec means on a link never changes."""

    @initialize()
    def start(self) -> None:
        self.table = DictionaryTable()
        self.now = 0.0
        self.links: list[tuple[dict[Codec, str], set[str], list[Codec]]] = []
        """What each link has been told of codecs, the names that its client holds, and the codec it has."""

    @rule(dictionary=st.sampled_from([A, B, C, None]), later=st.sampled_from([0.0, 1.0, SETTLE_S]))
    def change(self, dictionary: Dictionary | None, later: float) -> None:
        self.now += later
        left = self.table.use(dictionary, self.now)
        for _, _, codec in self.links:
            if codec[0] is left:
                codec[0] = Codec.LZ4_DICT_1

    @rule(held=st.sets(st.sampled_from([A.name, B.name, C.name])))
    def come(self, held: set[str]) -> None:
        told = {Codec(each.codec): each.sha256 for each in self.table.offered(BOTH, held)}
        self.links.append((told, held, [self.table.choose(BOTH, held, self.now)]))

    @rule(later=st.sampled_from([0.0, SETTLE_S]))
    def fetch(self, later: float) -> None:
        self.now += later
        for told, held, codec in self.links:
            for place, name in list(told.items())[:1]:
                found = self.table.codec_of(name, self.now)
                if found == (place, 0.0):
                    held.add(name)
                    codec[0] = place

    @invariant()
    def a_link_can_read_what_it_gets(self) -> None:
        for told, held, (codec,) in getattr(self, "links", ()):
            if codec is not Codec.LZ4_DICT_1:
                name = told[codec]
                assert name in held
                assert Dictionary(self.table.data[codec]).name == name


TestChanges = Changes.TestCase


@given(st.permutations([A, B, C]))
def test_a_dictionary_that_is_put_in_force_again_keeps_its_codec(order: list[Dictionary]) -> None:
    table = DictionaryTable()
    table.use(order[0], 0)
    table.use(order[1], 0)
    first = table.codec_of(order[0].name, 0)
    assert table.use(order[0], 1) is None
    assert table.codec_of(order[0].name, 1) == first
