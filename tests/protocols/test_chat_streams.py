"""Properties that hold for every input."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.protocols.chat_completions.answer import parse_chat_answer
from relay.protocols.chat_completions.request import parse_chat_request
from relay.protocols.chat_completions.stream import ChatStream
from relay.protocols.fields import BadRequest
from relay.protocols.sse import split_events
from tests.conftest import Portal
from tests.support.server import Server

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
DELTAS = st.builds(lambda text: {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], "usage": None}, TEXT)
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
            assert re.sub(rb"[\r\n]+", b"\n", b"\n" + out + scanner.terminal) == re.sub(rb"[\r\n]+", b"\n", b"\n" + whole.replace(usage, b""))
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
    whole = event + event + b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}' + eol + b"data: [DONE]" + eol
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
    if not scanner.done and scanner.error is None and scanner.usage is None:
        assert data.startswith(out)


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["model", "messages", "stream", "stream_options", "n", "tools", "temperature", "max_tokens"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(FIELDS | TEXT, JSON_VALUES, max_size=8))
def test_request_is_understood_or_refused_and_its_other_fields_survive(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    try:
        request = parse_chat_request(body)
    except BadRequest as bad:
        assert bad.message and (bad.param is None or bad.param in {"model", "messages", "stream", "stream_options", "n"})
        return
    sent = json.loads(request.upstream_body("other-name", True))
    expected = {**json.loads(body), "model": "other-name"}
    if request.stream and not request.include_usage:
        expected["stream_options"] = {**(expected.get("stream_options") or {}), "include_usage": True}
    assert sent == expected


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), JSON_VALUES))
def test_answer_parser_survives_anything(body: bytes) -> None:
    parse_chat_answer(body)
    try:
        parse_chat_request(body)
    except BadRequest:
        pass


@pytest.fixture
def fuzzed(server: Server, live: Portal) -> Any:
    model, token = live.model(), live.token()
    server.catch_up()
    client = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=20)
    yield client, model
    client.close()


def test_random_bodies_never_give_a_500(fuzzed: Any) -> None:
    client, model = fuzzed

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=100) | st.builds(lambda value: json.dumps(value).encode(), st.dictionaries(FIELDS | TEXT, JSON_VALUES | st.just(model), max_size=6)))
    def attack(body: bytes) -> None:
        response = client.post("/v1/chat/completions", content=body)
        assert response.status_code in {200, 400, 404}, response.text
        if response.status_code != 200:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    attack()


def test_random_paths_and_methods_never_give_a_500_or_html(fuzzed: Any) -> None:
    client, _ = fuzzed
    segments = st.sampled_from(["v1", "models", "chat", "completions", "", "%2F", "é", "x" * 300, "messages", "responses"])

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(segments, max_size=6), st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]))
    def attack(path: list[str], method: str) -> None:
        response = client.request(method, "/v1/" + "/".join(path))
        assert response.status_code in {200, 204, 400, 404, 405, 501}, (method, path, response.status_code)
        assert "html" not in response.headers.get("content-type", "")

    attack()
