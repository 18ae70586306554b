"""Texts end before the stop sequence that is complete first, as models are stopped, wherever the pieces are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocols.prompts.stops import StopSearch, sequences_of


def fed(pieces: list[str], sequences: list[str]) -> tuple[str, str]:
    search = StopSearch(sequences)
    text = "".join(map(search.feed, pieces))
    return text + search.rest(), search.found


@pytest.mark.parametrize(
    ("pieces", "sequences", "text", "found"),
    [
        (["<block>no</block> since"], ["</block>"], "<block>no", "</block>"),
        (["<block>no<", "/blo", "ck> since", " it"], ["</block>"], "<block>no", "</block>"),
        (["no</bloc", "!"], ["</block>"], "no</bloc!", ""),
        (["no</bloc"], ["</block>"], "no</bloc", ""),
        (["aaab"], ["aab"], "a", "aab"),
        (["aa", "ab"], ["aab"], "a", "aab"),
        (["one END two STOP"], ["STOP", "END"], "one ", "END"),
        (["END"], ["END"], "", "END"),
        (["ENDE"], ["ENDE", "END"], "", "END"),
        (["a", "bb"], ["abb", "b"], "a", "b"),
        ([], ["END"], "", ""),
    ],
)
def test_a_text_ends_before_the_first_sequence(pieces: list[str], sequences: list[str], text: str, found: str) -> None:
    assert fed(pieces, sequences) == (text, found)


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.integers(1, 4))
def test_pieces_end_where_the_whole_ends(text: str, sequences: list[str], size: int) -> None:
    ends = [(place + len(one), place, one) for one in sequences if (place := text.find(one)) >= 0]
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    _, place, found = min(ends, default=(0, len(text), ""))
    assert fed(pieces, sequences) == (text[:place], found)


def test_what_a_request_may_name() -> None:
    assert sequences_of("x") == ["x"] and sequences_of(["x", "", None, "y"]) == ["x", "y"]
    assert sequences_of(None) == sequences_of("") == sequences_of({"x": 1}) == []
