"""Wherever a connection divides a stream, the client gets the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.apis.pairs import APIS, PAIRS, codec_of, fed, spoken, wire

_CALLS = [("call_0", "run", {"city": "Zürich 🌍", "days": [1, 2]}), ("call_1", "get_weather", {})]
_STREAMS = {api: wire(api, spoken(api, "Hm, 世界.", "Grüße 🌍, yes.", _CALLS)) for api in APIS}


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(("client", "upstream"), PAIRS)
def test_a_stream_byte_by_byte_is_the_whole(client: str, upstream: str, newline: bytes) -> None:
    data = _STREAMS[upstream].replace(b"\n", newline)
    whole, codec = codec_of(client, upstream), codec_of(client, upstream)
    expected = fed(whole, _STREAMS[upstream])
    assert whole.done and whole.error is None and expected
    assert fed(codec, data, 1) == expected
    assert codec.done and codec.usage == whole.usage


@pytest.mark.parametrize("upstream", APIS)
def test_a_stream_in_two_pieces_is_the_whole(upstream: str) -> None:
    """Divided at every byte. Who reads it is behind the division: one client stands for all."""
    client = "messages" if upstream == "chat" else "chat"
    data = wire(upstream, spoken(upstream, "", "é🌍", [("call_0", "run", {"a": "ü"})]))
    expected = fed(codec_of(client, upstream), data)
    for cut in range(1, len(data)):
        codec = codec_of(client, upstream)
        out = codec.feed(data[:cut]) + codec.feed(data[cut:]) + codec.finish() + codec.terminal
        assert out == expected and codec.done, cut


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
@settings(derandomize=True, max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=6))
def test_a_stream_in_any_pieces_is_the_whole(client: str, upstream: str, cuts: list[int]) -> None:
    data = _STREAMS[upstream]
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    codec = codec_of(client, upstream)
    out = b"".join(codec.feed(data[start:end]) for start, end in itertools.pairwise(edges))
    assert out + codec.finish() + codec.terminal == fed(codec_of(client, upstream), data)
