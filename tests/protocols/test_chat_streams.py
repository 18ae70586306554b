"""Streams of chat completions, split anywhere."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocols.chat_completions.stream import ChatStream
from relay.protocols.sse import split_events
from tests.support.strategies import TEXT

DELTAS = st.builds(
    lambda text: {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], "usage": None}, TEXT
)


RAW_LINES = st.builds(lambda text: text.replace("\n", " ").replace("\r", " "), TEXT)


def encode(event: dict[str, Any], ascii_only: bool) -> str:
    return json.dumps(event, ensure_ascii=ascii_only)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A stream as an upstream may write it, and the part of it that is the usage chunk."""
    eol = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    space = draw(st.sampled_from(["", " "]))
    ascii_only = draw(st.booleans())
    parts = []
    for kind in draw(st.lists(st.sampled_from(["event", "comment", "id", "two-lines", "blank"]), max_size=8)):
        if kind == "comment":
            parts.append(f":{draw(RAW_LINES)}{eol}{eol}")
        elif kind == "id":
            parts.append(f"id: 1{eol}event: message{eol}data:{space}{encode(draw(DELTAS), ascii_only)}{eol}{eol}")
        elif kind == "two-lines":
            parts.append(f'data:{space}{{"choices":[],{eol}data:{space}"x":1}}{eol}{eol}')
        elif kind == "blank":
            parts.append(eol)
        else:
            parts.append(f"data:{space}{encode(draw(DELTAS), ascii_only)}{eol}{eol}")
    usage = f'data:{space}{{"id":"u","choices":[],"usage":{{"prompt_tokens":3,"completion_tokens":4}}}}{eol}{eol}'
    whole = "".join(parts) + usage + f"data:{space}[DONE]{eol}{eol}"
    return whole.encode(), usage.encode()


@settings(max_examples=150, deadline=None)
@given(streams(), st.data())
def test_bytes_split_anywhere_pass_through_unchanged(stream: tuple[bytes, bytes], data: st.DataObject) -> None:
    whole, usage = stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    for drop in (False, True):
        scanner = ChatStream(drop_usage=drop)
        out = b"".join(scanner.feed(piece) for piece in pieces) + scanner.finish()
        if drop:  # an empty line before the usage chunk, which means nothing, may go with it
            assert re.sub(rb"[\r\n]+", b"\n", b"\n" + out + scanner.terminal) == re.sub(
                rb"[\r\n]+", b"\n", b"\n" + whole.replace(usage, b"")
            )
        else:
            assert out + scanner.terminal == whole
        assert scanner.done and scanner.complete
        assert scanner.usage is not None and (scanner.usage.input, scanner.usage.output) == (3, 4)


@settings(max_examples=60, deadline=None)
@given(streams())
def test_every_single_split_place(stream: tuple[bytes, bytes]) -> None:
    whole, _ = stream
    for place in range(len(whole)):
        scanner = ChatStream()
        assert scanner.feed(whole[:place]) + scanner.feed(whole[place:]) + scanner.terminal == whole


@pytest.mark.parametrize("eol", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("size", [100, 65_536, 65_537, 1_000_003])
def test_line_of_five_megabytes_in_pieces_of_any_size(size: int, eol: bytes) -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"' + "é".encode() * 2_500_000 + b'"}}]}' + eol
    whole = (
        event
        + event
        + b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}'
        + eol
        + b"data: [DONE]"
        + eol
    )
    scanner = ChatStream()
    held = 0
    out = []
    for start in range(0, len(whole), size):
        out.append(scanner.feed(whole[start : start + size]))
        held = max(held, len(scanner._held))
    assert b"".join(out) + scanner.terminal == whole
    assert held <= 65_536 and scanner.done and scanner.usage is not None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_scanner_survives_any_bytes(data: bytes) -> None:
    scanner = ChatStream(drop_usage=True, watch_finish=True)
    out = scanner.feed(data) + scanner.finish()
    assert b"".join(split_events(data)) == data
    # An object without choices is given an empty list of them.
    if not scanner.done and scanner.error is None and scanner.usage is None and b'"choices":[]' not in out:
        assert data.startswith(out)
