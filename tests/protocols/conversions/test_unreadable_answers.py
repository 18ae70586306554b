"""What cannot be read ends an answer with an error: going on would hide that something is missing."""

from __future__ import annotations

import pytest

from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.responses.upstream import ResponsesUpstream
from tests.protocols.codecs import chat_codec, codec, events, fed
from tests.protocols.conversions.tables import (
    DIALECT,
    DONE,
    calls,
    delta,
    end,
    event,
    fc,
    lines,
    of,
    shown_chat,
    text_delta,
)

UNREADABLE_CHAT = {
    "NaN": delta('{"content":"b"},"logprobs":{"content":[{"token":"b","logprob":NaN}]}'),
    "Infinity": delta('{"content":"b"},"logprobs":{"content":[{"token":"b","logprob":-Infinity}]}'),
    "a number beyond all": delta('{"content":"b","score":1e999}'),
    "JSON that was cut off": delta('{"content":"b"}')[:-9],
    "content of another type": delta('{"content":{"text":"b"}}'),
    "a number as content": delta('{"content":7}'),
    "a part of an unknown type": delta('{"content":[{"type":"hologram","data":"b"}]}'),
    "calls of another type": delta('{"tool_calls":{"id":"a"}}'),
    "a list of strings as calls": delta('{"tool_calls":["f"]}'),
    "a name of another type": calls('{"index":0,"id":"a","function":{"name":7}}'),
    "a delta of another type": delta('"b"'),
    "choices of another type": '{"choices":{"0":{"delta":{"content":"b"}}}}',
    "a choice of another type": '{"choices":["b"]}',
    "reasoning of another type": delta('{"reasoning_content":7}'),
    "a refusal of another type": delta('{"refusal":["b"]}'),
    "a list": '[{"choices":[{"delta":{"content":"b"}}]}]',
    "text of a proxy": "upstream connect error or disconnect/reset before headers. reset reason: overflow",
}


@pytest.mark.parametrize("name", UNREADABLE_CHAT)
def test_a_chunk_that_cannot_be_read_ends_the_answer_with_an_error(name: str) -> None:
    stream = codec()
    out = fed(stream, lines(delta('{"content":"a"}'), UNREADABLE_CHAT[name], delta('{"content":"c"}', '"stop"')) + DONE)
    assert stream.error is not None and not stream.done, out
    assert [event["delta"] for event in of(events(out), "output_text.delta")] == ["a"]


def test_arguments_of_a_call_that_is_never_named_are_an_error() -> None:
    stream = codec()
    fed(stream, lines(calls('{"index":0,"id":"a","function":{"arguments":"{}"}}'), delta("{}", '"tool_calls"')) + DONE)
    assert stream.error is not None and not stream.done
    silent = codec()
    fed(silent, lines(delta('{"content":"a"}'), calls('{"index":0,"function":{"arguments":""}}')) + DONE)
    assert silent.error is None and silent.done  # nothing was lost


@pytest.mark.parametrize(
    "choice",
    [
        '{"message":{"content":7}}',
        '{"message":{"content":{"text":"b"}}}',
        '{"message":{"content":"b","tool_calls":["f"]}}',
        '{"message":{"content":"b","tool_calls":[{"id":"a","function":{"arguments":"{}"}}]}}',
        '{"message":"b"}',
        '{"finish_reason":"stop"}',
        '"b"',
        '{"message":{"content":"b"},"logprobs":{"content":[{"logprob":NaN}]}}',
    ],
)
def test_a_completion_that_cannot_be_read_is_none(choice: str) -> None:
    assert ChatUpstream().completion(f'{{"id":"c","choices":[{choice}]}}'.encode(), DIALECT) is None


UNREADABLE_EVENTS = {
    "NaN": text_delta("b", '"logprobs":[{"logprob":NaN}]'),
    "an event that was cut off": text_delta("b")[:-2],
    "a delta of another type": event("output_text.delta", '"delta":{"text":"b"}'),
    "an item of another type": event("output_item.done", '"item":"b"'),
    "no item": event("output_item.done"),
    "a chunk of chat": delta('{"content":"b"}'),
    "a final response of another type": event("completed", '"response":"b"'),
    "a final output of another type": event("completed", '"response":{"output":["b"]}'),
    "a call without a name": end(fc("fc_1", "c1", "")),
}


@pytest.mark.parametrize("name", UNREADABLE_EVENTS)
def test_an_event_that_cannot_be_read_ends_the_answer_with_an_error(name: str) -> None:
    stream = chat_codec()
    out = fed(stream, lines(text_delta("a"), UNREADABLE_EVENTS[name], text_delta("c"), end()))
    assert stream.error is not None and not stream.done and b"[DONE]" not in out
    assert shown_chat(events(out)) == {"text": "a"}


@pytest.mark.parametrize(
    "output",
    ['"b"', '["b"]', '[{"type":"message","content":7}]', '[{"type":"message","content":[{"text":7}]}]',
     '[{"type":"function_call","call_id":"c"}]', '[{"type":"message","content":[{"text":"b","logprobs":[NaN]}]}]'],
)  # fmt: skip
def test_a_response_that_cannot_be_read_is_none(output: str) -> None:
    assert ResponsesUpstream().completion(f'{{"id":"r","output":{output}}}'.encode(), DIALECT) is None
