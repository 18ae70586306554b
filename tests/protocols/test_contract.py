"""What the contract asks of an API for text: limits, usage, errors and the end of a stream, whichever API it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols import events as module
from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.contract import Dialect
from relay.protocols.responses.upstream import ResponsesUpstream
from relay.protocols.usage import Usage
from tests.protocols.codecs import USAGE, chat_codec, chunk, codec, events, fed, sse

HUB: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 50}


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_chat_upstream_is_told_the_limit_once_and_in_its_own_field(field: str) -> None:
    dialect = Dialect(output_field=field)
    body = ChatUpstream().request(HUB, dialect).body
    assert {name: body[name] for name in body if name.startswith("max_")} == {field: 50}
    ChatUpstream().limit(body, 20, dialect)
    assert {name: body[name] for name in body if name.startswith("max_")} == {field: 20}


def test_a_responses_upstream_is_never_asked_for_less_than_it_takes() -> None:
    dialect = Dialect(least_output=16)
    body = ResponsesUpstream().request({**HUB, "max_completion_tokens": 5}, dialect).body
    assert body["max_output_tokens"] == 16
    for tokens, asked in ((20, 16), (16, 16), (3, 16)):
        ResponsesUpstream().limit(body, tokens, dialect)
        assert body["max_output_tokens"] == asked


@pytest.mark.parametrize(
    ("stream", "ask_usage", "added"),
    [
        (False, True, {}),
        (True, False, {"stream": True}),
        (True, True, {"stream": True, "stream_options": {"include_usage": True}}),
    ],
)
def test_usage_is_asked_of_upstreams_that_take_the_option(stream: bool, ask_usage: bool, added: dict[str, Any]) -> None:
    sent = ChatUpstream().encode({"model": "m"}, stream, Dialect(ask_usage=ask_usage))
    assert json.loads(sent) == {"model": "m", **added}


def test_parallel_tool_calls_without_tools_are_not_sent_to_a_responses_upstream() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    hub = {**HUB, "parallel_tool_calls": False}
    assert "parallel_tool_calls" not in ResponsesUpstream().request(hub, Dialect()).body
    assert ResponsesUpstream().request({**hub, "tools": [tool]}, Dialect()).body["parallel_tool_calls"] is False


# -- usage -------------------------------------------------------------------------------------------------------------


def test_usage_inside_a_choice_is_read_and_reaches_the_client() -> None:
    """As Moonshot reports it."""
    last: dict[str, Any] = chunk({}, "stop")
    last["choices"][0]["usage"] = USAGE
    stream = codec()
    found = events(fed(stream, sse(chunk({"content": "Hi"}), last)))
    assert stream.usage == Usage(9, cached_input=4, output=7, reasoning=3)
    assert found[-1]["response"]["usage"]["total_tokens"] == 16


def test_a_usage_object_without_counts_is_no_usage() -> None:
    stream = codec()
    found = events(fed(stream, sse(chunk({"content": "Hi"}, "stop", usage={"cost": 1}))))
    assert stream.usage is None and stream.delivered_units() > 0
    assert found[-1]["response"]["usage"] is None


def test_tokens_from_the_cache_are_shown_under_whichever_name_a_vendor_gives_them() -> None:
    counted = {"prompt_tokens": 9, "completion_tokens": 7}
    for cached in (
        {"prompt_tokens_details": {"cached_tokens": 4}},
        {"cached_tokens": 4},
        {"prompt_cache_hit_tokens": 4},
    ):
        found = events(fed(codec(), sse(chunk({"content": "Hi"}, "stop"), chunk({}, usage={**counted, **cached}))))
        shown = found[-1]["response"]["usage"]
        assert shown["input_tokens_details"]["cached_tokens"] == 4 and shown["total_tokens"] == 16, cached


@pytest.mark.parametrize("asked", [True, False])
def test_a_chat_client_is_shown_usage_in_the_last_chunk_if_it_asked_for_it(asked: bool) -> None:
    used = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    stream = chat_codec(include_usage=asked)
    found = events(
        fed(
            stream,
            sse(
                {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"},
                {"type": "response.completed", "response": {"status": "completed", "output": [], "usage": used}},
            ),
        )
    )
    assert stream.usage == Usage(3, output=4)
    if asked:
        assert [event["usage"] and event["usage"]["total_tokens"] for event in found] == [None] * (len(found) - 1) + [7]
        assert found[-1]["choices"] == []
    else:
        assert not any("usage" in event for event in found)


# -- errors ------------------------------------------------------------------------------------------------------------

FAILED = {
    "id": "resp_1",
    "status": "failed",
    "output": [],
    "error": {"code": "server_error", "message": "The model is overloaded."},
}


def test_a_response_that_failed_is_an_error_and_no_completion() -> None:
    found = ResponsesUpstream().completion(json.dumps(FAILED).encode(), Dialect())
    assert found is not None and found.completion is None and b"overloaded" in (found.error or b"")


def test_a_response_that_fails_in_its_stream_ends_it_with_the_upstreams_error() -> None:
    stream = chat_codec()
    used = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    said = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"}
    out = fed(stream, sse(said, {"type": "response.failed", "response": {**FAILED, "usage": used}}, done=False))
    assert stream.error is not None and json.loads(stream.error)["error"]["message"] == "The model is overloaded."
    assert not stream.done and b"[DONE]" not in out and b'finish_reason":"' not in out


def test_an_event_larger_than_anything_sensible_ends_the_stream_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_EVENT", 1000)
    for stream in (codec(), chat_codec()):
        assert stream.feed(b'data: {"id":"' + b"x" * 2000) == b""
        assert stream.error is not None and "larger" in json.loads(stream.error)["error"]["message"]
        assert stream.feed(b'"}\n\ndata: [DONE]\n\n') == b"" and not stream.done


# -- the end of a stream -----------------------------------------------------------------------------------------------


def test_nothing_comes_out_after_the_end_or_an_error_though_it_came_in_one_piece() -> None:
    late = sse(chunk({"content": "late"}), done=False)
    stream = codec()
    assert b"late" not in fed(stream, sse(chunk({"content": "Hi"}, "stop")) + late) and stream.done
    stream = codec()
    error = sse({"error": {"message": "boom"}}, done=False)
    assert b"late" not in fed(stream, sse(chunk({"content": "Hi"}), done=False) + error + late)
    assert stream.error is not None and not stream.done


@pytest.mark.parametrize(
    ("finish", "watch", "clean", "complete"),
    [
        ("stop", True, False, True),
        (None, True, True, False),
        ("stop", False, True, True),
        ("stop", False, False, False),
    ],
)
def test_a_closed_connection_is_an_end_where_the_body_ended_cleanly_or_no_marker_is_sent(
    finish: str | None, watch: bool, clean: bool, complete: bool
) -> None:
    stream = codec(watch_finish=watch)
    said = stream.feed(sse(chunk({"content": "Hi"}), chunk({}, finish), done=False))
    found = events(said + stream.finish(clean) + stream.terminal)
    assert stream.complete is complete and stream.error is None
    assert (found[-1]["type"] == "response.completed") is complete


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_short_ends_as_an_incomplete_response(finish: str, reason: str) -> None:
    stream = codec()
    found = events(fed(stream, sse(chunk({"content": "Hi"}), chunk({}, finish))))
    assert found[-1]["type"] == "response.incomplete" and found[-1]["response"] == stream.encoder.final
    final = found[-1]["response"]
    assert (final["status"], final["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert final["completed_at"] is None and final["output"][0]["status"] == "incomplete"


# -- calls and choices -------------------------------------------------------------------------------------------------


def test_pieces_of_calls_without_an_index_go_to_the_call_with_their_id_or_to_the_newest() -> None:
    def piece(**call: Any) -> dict[str, Any]:
        return chunk({"tool_calls": [call]})

    parts = [
        piece(id="a", function={"name": "f", "arguments": '{"n"'}),
        piece(function={"arguments": ":1}"}),
        piece(id="b", function={"name": "g", "arguments": '{"n"'}),
        piece(function={"arguments": ":2}"}),
        piece(id="a", function={"arguments": " "}),
    ]
    final = events(fed(codec(), sse(*parts, chunk({}, "tool_calls"))))[-1]["response"]
    called = [(item["call_id"], item["name"], item["arguments"]) for item in final["output"]]
    assert called == [("a", "f", '{"n":1}'), ("b", "g", '{"n":2}')], "what comes after the whole of one says nothing"


def test_a_response_has_all_choices_one_after_another() -> None:
    other: dict[str, Any] = chunk({"content": "other"}, "stop")
    other["choices"][0]["index"] = 1
    final = events(fed(codec(), sse(chunk({"content": "H"}), other, chunk({"content": "i"}, "stop"))))[-1]["response"]
    assert [item["content"][0]["text"] for item in final["output"]] == ["Hi", "other"]
    assert final["status"] == "completed"


def test_usage_of_a_response_that_fails_in_its_stream_is_kept_for_a_chat_client() -> None:
    stream = chat_codec()
    failed = {"status": "failed", "output": [], "error": {"code": "x", "message": "y"}}
    usage = {"input_tokens": 9, "output_tokens": 7}
    fed(
        stream,
        sse(
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"},
            {"type": "response.failed", "response": {**failed, "usage": usage}},
            done=False,
        ),
    )
    assert stream.error is not None and stream.usage == Usage(input=9, output=7)


def test_an_empty_usage_object_is_not_shown_as_one_of_zero_tokens() -> None:
    shown = events(fed(codec(), sse(chunk({"content": "Hi"}, usage={}), chunk({}, "stop"))))[-1]["response"]["usage"]
    assert shown is None
    later = events(fed(codec(), sse(chunk({"content": "Hi"}, "stop", usage=USAGE), chunk({}, usage={}))))
    assert later[-1]["response"]["usage"]["input_tokens"] == 9


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 9, "output_tokens": 7, "total_tokens": 16}, Usage(9, output=7)),
        (
            {
                "input_tokens": 64,
                "output_tokens": 135,
                "total_tokens": 277,
                "output_tokens_details": {"reasoning_tokens": 78},
            },
            Usage(64, output=135, reasoning=78),
        ),
        ({"input_tokens": 9, "output_tokens": 7, "input_tokens_details": []}, Usage(9, output=7)),
        (
            {"input_tokens": 9, "output_tokens": 7, "input_tokens_details": {"image_tokens": 4}},
            Usage(9, output=7, image_input=4),
        ),
        ({}, None),
        ({"input_tokens": None, "output_tokens": None}, None),
    ],
)
def test_usage_of_a_whole_response_is_read_in_its_own_form(usage: Any, expected: Usage | None) -> None:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "So."}]}
    body = {"id": "resp_1", "object": "response", "status": "completed", "output": [item], "usage": usage}
    found = ResponsesUpstream().completion(json.dumps(body).encode(), Dialect())
    assert found is not None
    assert found.usage == expected
