"""Halves of characters and unreadable events where both sides speak one API: bytes pass, unless they are mended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.characters import TextJoiner, read_object, whole_text
from relay.protocols.chat_completions.answer import complete_answer, parse_chat_answer
from relay.protocols.chat_completions.stream import ChatStream
from relay.protocols.responses.answer import parse_responses_answer
from relay.protocols.responses.stream import ResponsesStream
from tests.protocols.codecs import events, fed
from tests.protocols.conversions.tables import DONE, EMOJI, HIGH, LOW, delta, end, event, lines, msg, of, text_delta


def mended(*raw: str) -> tuple[ResponsesStream, list[dict[str, Any]]]:
    """A stream whose first event lacks members, so that all are repaired."""
    stream = ResponsesStream(lambda response: {"repaired": True, **response})
    return stream, events(fed(stream, lines(event("created", '"response":{"id":"r"}'), *raw)))


def test_a_chat_stream_with_halves_passes_byte_for_byte_and_its_usage_is_read() -> None:
    used = '"usage":{"prompt_tokens":9,"completion_tokens":7}}'
    raw = (
        lines(delta(f'{{"content":"{HIGH}"}}'), delta(f'{{"content":"{LOW}{HIGH}"}}', '"stop"')[:-1] + "," + used)
        + DONE
    )
    stream = ChatStream()
    assert fed(stream, raw) == raw
    assert stream.usage is not None and (stream.usage.input, stream.usage.output) == (9, 7)


def test_a_completion_with_half_a_character_is_an_answer() -> None:
    body = f'{{"choices":[{{"message":{{"content":"a{HIGH}"}}}}],"usage":{{"prompt_tokens":9,"completion_tokens":7}}}}'
    found = parse_chat_answer(body.encode())
    assert found is not None and found.usage is not None and found.usage.input == 9
    whole = json.loads(complete_answer(body.encode(), 5))
    assert whole["choices"][0]["message"] == {"content": "a\ufffd", "refusal": None}


def test_a_response_with_half_a_character_is_an_answer() -> None:
    body = (
        f'{{"id":"r","output":[{{"content":[{{"text":"a{HIGH}"}}]}}],"usage":{{"input_tokens":9,"output_tokens":7}}}}'
    )
    found = parse_responses_answer(body.encode())
    assert found is not None and found.id == "r" and found.usage is not None and found.usage.input == 9


@pytest.mark.parametrize(
    ("pieces", "deltas"),
    [
        ([f"ok {HIGH}", f"{LOW} done"], ["ok ", f"{EMOJI} done"]),
        ([f"ok {HIGH}"], ["ok ", "\ufffd"]),
        ([f"ok {HIGH}", "done"], ["ok ", "\ufffddone"]),
    ],
)
def test_halves_in_events_that_are_mended_are_put_together(pieces: list[str], deltas: list[str]) -> None:
    whole = "".join(pieces)
    stream, found = mended(
        *(text_delta(piece, '"item_id":"m"') for piece in pieces),
        event("output_text.done", f'"item_id":"m","text":"{whole}"'),
        event("output_item.done", msg("m", whole)),
        end(msg("m", whole)),
    )
    assert stream.error is None and stream.done and stream.final is not None
    assert [one["delta"] for one in of(found, "output_text.delta")] == deltas
    assert of(found, "output_text.done")[0]["text"] == "".join(deltas)
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "".join(deltas)
    assert [one["sequence_number"] for one in found] == list(range(len(found)))


def test_an_item_with_half_a_character_fills_an_empty_final_output() -> None:
    stream, found = mended(event("output_item.done", msg("m", f"a{HIGH}")), end())
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "a\ufffd" and stream.final is not None


@pytest.mark.parametrize(
    "broken",
    [
        text_delta("b", '"logprobs":[{"logprob":NaN}]'),
        text_delta("b")[:-2],
        event("output_item.done", '"item":{"id":"m","score":Infinity}'),
        end('"item":{"id":"m","score":NaN}'),
        end('"item":{"id":"m","score":1e999}'),
    ],
)
def test_an_event_that_cannot_be_mended_ends_the_answer_with_an_error(broken: str) -> None:
    stream, found = mended(text_delta("a"), broken, end())
    assert stream.error is not None and not stream.done and stream.terminal == b""
    assert [one["delta"] for one in of(found, "output_text.delta")] == ["a"]
    early, _ = mended(broken)
    assert early.error is not None and not early.started  # another channel may be asked


def test_an_item_that_cannot_be_read_is_an_error_only_where_the_end_needs_it() -> None:
    whole = '"id":"r","created_at":1,"tools":[],"metadata":{}'
    begun = event("created", f'"sequence_number":0,"response":{{{whole},"output":[]}}')
    item = event("output_item.done", '"item":{"id":"m","score":NaN}')
    for output, passes in ((msg("m", "Hi").removeprefix('"item":'), True), ("", False)):
        raw = lines(begun, item, event("completed", f'"response":{{{whole},"output":[{output}]}}'))
        stream = ResponsesStream(lambda response: response)
        assert (fed(stream, raw).count(b"data:") == 3) is passes and (stream.error is None) is passes


def test_characters_are_joined_from_surrogates_and_from_bytes() -> None:
    joiner = TextJoiner()
    assert [joiner.join(1, text) for text in ("a\ud83d", "\ude00b\udbff", "\udffd", "c")] == [
        "a",
        f"{EMOJI}b",
        "\U0010fffd",
        "c",
    ]
    pieces = []
    for data in (b"x\xf0\x9f", b"\x98", b"\x80y\xc3", b"z\xff"):
        found, broken = read_object(b'{"t":"' + data + b'"}')
        assert found is not None and broken
        pieces.append(joiner.join(2, str(found["t"])))
    assert pieces == ["x", "", f"{EMOJI}y", "\ufffdz"] and joiner.rest(2) == "\ufffd" and joiner.rest(2) == ""
    # As Java writes pairs in its modified UTF-8.
    found, _ = read_object(b'{"t":"\xed\xa0\xbd\xed\xb8\x80"}')
    assert found is not None and whole_text(str(found["t"])) == EMOJI
