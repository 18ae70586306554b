"""Answers in one API for clients of the other: nothing is lost, and nothing told twice, wherever the bytes are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocols.chat_completions.client import ChatClient
from relay.protocols.responses.tools import CUSTOM, Tool, ToolNames
from relay.protocols.responses.upstream import ResponsesUpstream
from tests.protocols.codecs import chat_codec, chunk, codec, events, fed, sse
from tests.protocols.conversions.tables import (
    CHAT_MESSAGES,
    CHAT_STREAMS,
    DIALECT,
    DONE,
    EMOJI,
    FN,
    HIGH,
    LOW,
    RESPONSE_STREAMS,
    arguments_delta,
    calls,
    delta,
    end,
    event,
    fc,
    lines,
    msg,
    of,
    plain_response,
    shown_chat,
    shown_items,
    streamed_response,
    text_delta,
)


@pytest.mark.parametrize("name", CHAT_STREAMS)
def test_a_chat_stream_becomes_a_response(name: str) -> None:
    chunks, expected = CHAT_STREAMS[name]
    assert shown_items(streamed_response(lines(*chunks) + DONE)["output"]) == expected


def test_half_a_character_in_utf8_is_put_together_as_well() -> None:
    """As servers write them that decode each token by itself (llama.cpp in 2024)."""
    first, second = EMOJI.encode()[:2], EMOJI.encode()[2:]
    raw = lines(
        b'{"choices":[{"index":0,"delta":{"content":"ok ' + first + b'"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"' + second + b'!"},"finish_reason":"stop"}]}',
    )
    assert shown_items(streamed_response(raw + DONE)["output"]) == [("text", f"ok {EMOJI}!")]


def test_usage_beside_half_a_character_is_read() -> None:
    stream = codec()
    used = '"usage":{"prompt_tokens":9,"completion_tokens":7,"note":"\\ud83d"}'
    fed(stream, lines(delta(f'{{"content":"ok {HIGH}"}}', '"stop"')[:-1] + f",{used}}}") + DONE)
    assert stream.usage is not None and (stream.usage.input, stream.usage.output) == (9, 7)


@pytest.mark.parametrize("name", CHAT_MESSAGES)
def test_a_chat_completion_becomes_a_response(name: str) -> None:
    message, expected = CHAT_MESSAGES[name]
    assert shown_items(plain_response({"role": "assistant", **message})["output"]) == expected


@pytest.mark.parametrize("name", RESPONSE_STREAMS)
def test_events_of_a_response_become_chunks(name: str) -> None:
    raw, expected = RESPONSE_STREAMS[name]
    stream = chat_codec()
    found = events(fed(stream, lines(*raw)))
    assert stream.error is None and stream.done, stream.error
    assert shown_chat(found) == expected
    assert found[-1]["choices"][0]["finish_reason"] == ("tool_calls" if "calls" in expected else "stop")


def test_a_plain_response_tells_a_chat_client_everything_once() -> None:
    item = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": ""}
    parts = [{"type": "output_text", "text": "ok \ud83d"}, {"type": "output_text", "text": "\ude00"}]
    output = [{"id": "msg_1", "type": "message", "content": parts}, item, item]
    body = {"id": "resp_1", "status": "completed", "output": output}
    found = ResponsesUpstream().completion(json.dumps(body).encode(), DIALECT)
    assert found is not None and found.completion is not None
    answer: Any = ChatClient({"model": "m"}, False, "chatcmpl-fallback").answer(found.completion)
    message = answer["choices"][0]["message"]
    assert message["content"] == f"ok {EMOJI}"
    assert message["tool_calls"] == [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_a_client_of_the_deprecated_functions_is_told_one_call() -> None:
    raw = [end(fc("fc_1", "c1", "f", '{"n":1}'), fc("fc_2", "c2", "g", '{"n":2}'))]
    found = events(fed(chat_codec(legacy=True), lines(*raw)))
    given = [choice["delta"].get("function_call", {}) for one in found for choice in one["choices"]]
    assert "".join(call.get("name", "") for call in given) == "f"
    assert "".join(call.get("arguments", "") for call in given) == '{"n":1}'
    request: dict[str, Any] = {"functions": [{"name": "f"}], "messages": [{"role": "user", "content": "x"}]}
    assert ChatClient(request, False, "").hub_request().body["parallel_tool_calls"] is False


CITED: dict[str, Any] = {
    "citations": ["https://a.example", "https://b.example"],
    "search_results": [{"url": "https://a.example", "title": "A"}],
}


def cited(output: Any) -> list[tuple[str, str]]:
    return [(entry["url"], entry["title"]) for part in output[0]["content"] for entry in part["annotations"]]


def test_sources_beside_the_choices_are_annotations_once() -> None:
    """Perplexity repeats them in every chunk."""
    expected = [("https://a.example", "A"), ("https://b.example", "https://b.example")]
    assert cited(plain_response({"content": "so"}, **CITED)["output"]) == expected
    stream = codec()
    found = events(fed(stream, sse(chunk({"content": "s"}, **CITED), chunk({"content": "o"}, "stop", **CITED))))
    assert cited(found[-1]["response"]["output"]) == expected
    added = of(found, "output_text.annotation.added")
    assert [event["annotation"]["url"] for event in added] == [url for url, _ in expected]
    assert [event["annotation_index"] for event in added] == [0, 1]


def test_annotations_that_come_before_the_text_are_told_with_it() -> None:
    cite = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}
    found = events(fed(codec(), sse(chunk({"annotations": [cite]}), chunk({"content": "so"}, "stop"))))
    assert len(of(found, "output_text.annotation.added")) == 1
    assert cited(found[-1]["response"]["output"]) == [("u", "t")]


def test_logprobs_are_kept_in_both_directions() -> None:
    entry = {"token": "so", "logprob": -0.1, "bytes": None, "top_logprobs": []}
    begun: Any = chunk({"content": "so"}, "stop")
    begun["choices"][0]["logprobs"] = {"content": [entry]}
    there = fed(codec(), sse(begun))
    assert events(there)[-1]["response"]["output"][0]["content"][0]["logprobs"] == [entry]
    assert of(events(there), "output_text.delta")[0]["logprobs"] == [entry]
    back = [choice["logprobs"] for event in events(fed(chat_codec(), there)) for choice in event["choices"]]
    assert [shown for shown in back if shown] == [{"content": [entry], "refusal": None}]


# -- cut anywhere ----------------------------------------------------------------------------------------------------

BIG_CHAT = (
    b": OPENROUTER PROCESSING\r\n\r\n"
    + lines(
        delta('{"role":"assistant","content":"","reasoning":"hm \\ud83d"}'),
        delta('{"reasoning":"\\ude00","reasoning_details":[{"type":"reasoning.text","text":"hm","signature":"s"}]}'),
        delta(f'{{"content":"ok {HIGH}"}}'),
        b'{"choices":[{"index":0,"delta":{"content":"\\ude00 d\xc3"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"\xb6ne"}}]}',
    ).replace(b"\n\n", b"\r\n\r\n")
    + lines(
        calls(f'{{"index":0,"id":"a",{FN}{{"name":"get_"}}}}'),
        calls('{"index":0,"function":{"name":"weather","arguments":"{\\"x\\":\\"\\ud83d"}}'),
        calls(f'{{"index":0,"id":"b",{FN}{{"name":"g","arguments":""}}}}'),
        calls('{"id":"a","function":{"arguments":"\\ude00\\"}"}}'),
        delta("{}", '"tool_calls"')[:-1] + ',"usage":{"prompt_tokens":9,"completion_tokens":7}}',
    )
    + DONE
)
BIG_RESPONSE = lines(
    event("created", '"response":{"id":"resp_1"}'),
    event("reasoning_summary_text.delta", '"item_id":"rs_1","delta":"hm \\ud83d"'),
    event("reasoning_summary_text.delta", '"item_id":"rs_1","delta":"\\ude00"'),
    text_delta(f"ok {HIGH}", '"output_index":2'),
    text_delta(f"{LOW} done", '"output_index":2'),
    event("output_item.added", fc("fc_1", "c1", "f")),
    event("output_item.added", fc("fc_2", "c2", "g")),
    arguments_delta('{"n":1}', '"item_id":"fc_1"'),
    end(msg("msg_1", f"ok {HIGH}{LOW} done"), fc("fc_1", "c1", "f", '{"n":1}'), fc("fc_2", "c2", "g")),
)


def test_a_big_stream_is_the_same_wherever_it_is_cut() -> None:
    there, back = fed(codec(), BIG_CHAT), fed(chat_codec(), BIG_RESPONSE)
    assert shown_items(streamed_response(BIG_CHAT)["output"]) == [
        ("reasoning", f"hm {EMOJI}"),
        ("text", f"ok {EMOJI} d\N{LATIN SMALL LETTER O WITH DIAERESIS}ne"),
        ("a", "get_weather", f'{{"x":"{EMOJI}"}}'),
        ("b", "g", "{}"),
    ]
    assert shown_chat(events(back)) == {
        "reasoning": f"hm {EMOJI}",
        "text": f"ok {EMOJI} done",
        "calls": [("c1", "f", '{"n":1}'), ("c2", "g", "{}")],
    }
    for cut in range(len(BIG_CHAT)):
        assert fed(codec(), BIG_CHAT, [cut]) == there
    for cut in range(len(BIG_RESPONSE)):
        assert fed(chat_codec(), BIG_RESPONSE, [cut]) == back


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_stream_of_the_tables_depends_on_where_it_is_cut(data: st.DataObject) -> None:
    make: Any
    if data.draw(st.booleans()):
        make, raw = codec, lines(*CHAT_STREAMS[data.draw(st.sampled_from(sorted(CHAT_STREAMS)))][0]) + DONE
    else:
        make, raw = chat_codec, lines(*RESPONSE_STREAMS[data.draw(st.sampled_from(sorted(RESPONSE_STREAMS)))][0])
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=12))
    assert fed(make(), raw, cuts) == fed(make(), raw)


def test_a_call_that_was_cut_off_before_its_arguments_is_not_made_with_none() -> None:
    final = events(fed(codec(), lines(*CHAT_STREAMS["empty arguments"][0], delta("{}", '"length"')) + DONE))[-1][
        "response"
    ]
    assert [(item["arguments"], item["status"]) for item in final["output"]] == [("", "incomplete")]
    item = fc("fc_1", "c1", "f").replace('"call_id"', '"status":"incomplete","call_id"')
    for raw in (
        [end(item, kind="incomplete")],
        [event("output_item.added", fc("fc_1", "c1", "f")), end(kind="incomplete")],
    ):
        found = events(fed(chat_codec(), lines(*raw)))
        assert shown_chat(found) == {"calls": [("c1", "f", "")]}
        assert found[-1]["choices"][0]["finish_reason"] == "length"


def test_a_custom_tool_is_called_with_its_input_although_it_ends_in_half_a_character() -> None:
    names = ToolNames()
    assert names.offer(Tool(CUSTOM, "apply", "")) == "apply"
    call = calls(f'{{"index":0,"id":"a",{FN}{{"name":"apply","arguments":"{{\\"input\\":\\"a\\\\ud83d\\"}}"}}}}')
    final = events(fed(codec(names=names), lines(call) + DONE))[-1]["response"]
    assert final["output"][0]["input"] == "a\ufffd"
