"""What relays got wrong between Gemini and other APIs, by public reports of December 2025 to September 2026."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.codec import NameRestoring
from relay.protocols.contract import Dialect
from relay.protocols.gemini.answer import Framing
from relay.protocols.gemini.client import GeminiClient, hub_request, response_of
from relay.protocols.gemini.contents.signatures import BYPASS
from relay.protocols.gemini.stream import GeminiStream
from relay.protocols.gemini.upstream import GeminiUpstream, gemini_request
from relay.protocols.naming.tool_names import restore_in_completion
from tests.protocols.codecs import events
from tests.protocols.gemini.frames import GEMINI, NEW, OLD, USAGE, chat_codec, completion_of, frame, message_of, sse

USER = {"role": "user", "content": "x"}


def call(name: str, arguments: str = "{}", call_id: str = "a", **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def result(call_id: str, content: Any = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def said(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def contents_of(
    *messages: dict[str, Any], model: str = NEW, dialect: Dialect = GEMINI, **more: Any
) -> list[dict[str, Any]]:
    body: dict[str, Any] = gemini_request({"model": model, "messages": list(messages), **more}, dialect).body
    found: list[dict[str, Any]] = body["contents"]
    return found


def declared(schema: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    form = gemini_request({"model": NEW, "messages": [USER], "tools": [tool]}, GEMINI)
    tools: Any = form.body["tools"]
    return tools[0]["functionDeclarations"][0]["parametersJsonSchema"], form.dropped


# -- 12: a call in one frame, its finishReason in a later one ----------------------------------------------------------


def test_a_call_that_came_before_the_finish_reason_is_not_forgotten() -> None:
    frames = (frame({"functionCall": {"name": "f", "args": {}}}), frame({"text": ""}, finish="STOP"))
    codec = chat_codec()
    out = codec.feed(sse(*frames)) + codec.finish() + codec.terminal
    assert [choice["finish_reason"] for one in events(out) for choice in one["choices"]][-1] == "tool_calls"
    assert completion_of(*frames)["choices"][0]["finish_reason"] == "tool_calls"


def test_a_call_that_is_sent_once_more_is_made_once() -> None:
    """Gemini 3 repeats a call without its signature; another call may have the same name and arguments."""
    one = {"name": "f", "args": {"a": 1}}
    frames = (
        frame({"functionCall": {**one, "id": "q"}, "thoughtSignature": "c2ln"}),
        frame({"functionCall": {**one, "id": "q"}}, {"functionCall": {**one, "id": "r"}}, finish="STOP"),
    )
    codec = chat_codec()
    out = codec.feed(sse(*frames)) + codec.finish() + codec.terminal
    made = [made for one in events(out) for choice in one["choices"] for made in choice["delta"].get("tool_calls", ())]
    assert [(call["index"], call["id"]) for call in made] == [(0, "q"), (1, "r")]
    assert made[0]["extra_content"]["google"]["thought_signature"] == "c2ln"


# -- 31: thoughts are part of the completion ---------------------------------------------------------------------------


def test_the_total_is_the_sum_of_prompt_and_completion() -> None:
    usage = completion_of(frame({"text": "a"}, finish="STOP", usageMetadata=USAGE))["usage"]
    assert usage["completion_tokens"] == 7 and usage["completion_tokens_details"]["reasoning_tokens"] == 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] == 16


# -- 32: signatures of calls -------------------------------------------------------------------------------------------


def test_the_signature_of_a_call_goes_back_with_it() -> None:
    message = message_of(frame({"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"}, finish="STOP"))
    told = {name: value for name, value in message.items() if name != "hub_thinking"}
    told["tool_calls"][0]["id"] = "a"
    assert contents_of(USER, told, result("a"))[1]["parts"][0]["thoughtSignature"] == "c2ln"
    # Through an API that has no place for it, it is packed into the signature of a thought.
    packed = {**told, "tool_calls": [call("f")], "hub_thinking": message["hub_thinking"]}
    assert contents_of(USER, packed, result("a"))[1]["parts"][0]["thoughtSignature"] == "c2ln"


def test_a_signature_of_another_vendor_is_not_sent_to_google() -> None:
    message = message_of(frame({"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"}, finish="STOP"))
    packed = {**said(call("f")), "hub_thinking": message["hub_thinking"]}
    parts = contents_of(USER, packed, result("a"), dialect=Dialect(vendor="other"))[1]["parts"]
    assert parts[0]["thoughtSignature"] == BYPASS


def test_only_the_first_of_parallel_calls_without_signatures_is_let_pass() -> None:
    calls = said(call("f"), call("g", call_id="b"))
    parts = contents_of(USER, calls, result("a"), result("b"))[1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [BYPASS, None]
    parts = contents_of(USER, calls, result("a"), result("b"), model=OLD)[1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, None]


def test_a_signed_call_among_parallel_ones_needs_no_bypass() -> None:
    signed = call("f", extra_content={"google": {"thought_signature": "c2ln"}})
    parts = contents_of(USER, said(signed, call("g", call_id="b")), result("a"), result("b"))[1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["c2ln", None]


def test_what_is_no_signature_is_not_sent_as_one() -> None:
    signed = call("f", extra_content={"google": {"thought_signature": "<script>"}})
    assert contents_of(USER, said(signed), result("a"))[1]["parts"][0]["thoughtSignature"] == BYPASS


# -- 33, 42: results of parallel calls ---------------------------------------------------------------------------------


def test_results_of_parallel_calls_are_one_content_in_the_order_of_the_calls() -> None:
    calls = said(call("f"), call("g", call_id="b"))
    found = contents_of(USER, calls, result("b", "2"), USER, result("a", "1"))
    assert [content["role"] for content in found] == ["user", "model", "user", "user"]
    answered = [part["functionResponse"] for part in found[2]["parts"]]
    assert [(one["name"], one["response"]["result"], one["id"]) for one in answered] == [
        ("f", "1", "a"),
        ("g", "2", "b"),
    ]


def test_every_call_has_a_result_and_every_result_a_call() -> None:
    found = contents_of(USER, said(call("f"), call("g", call_id="b")), result("a"), result("lost", "what"))
    assert len([part for part in found[2]["parts"] if "functionResponse" in part]) == 2
    assert "what" in found[3]["parts"][0]["text"]


# -- 34, 35, 36, 52: schemas -------------------------------------------------------------------------------------------


def test_keywords_that_google_refuses_are_told_in_words() -> None:
    schema, dropped = declared(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {"a": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}},
            "propertyNames": {"pattern": "^a"},
            "additionalProperties": False,
            "required": ["a"],
        }
    )
    assert not {"$schema", "propertyNames"} & schema.keys() and schema["additionalProperties"] is False
    assert schema["properties"]["a"] == {
        "type": "array",
        "items": {"type": "string"},
        "description": "uniqueItems: true",
    }
    assert "propertyNames" in schema["description"]
    assert dropped == ["tools[].function.parameters.propertyNames", "tools[].function.parameters.uniqueItems"]


def test_choices_and_constants_are_kept() -> None:
    schema, dropped = declared(
        {
            "type": "object",
            "properties": {"a": {"anyOf": [{"const": "x"}, {"type": "null"}]}, "b": {"oneOf": [{"type": "integer"}]}},
        }
    )
    assert schema["properties"] == {
        "a": {"anyOf": [{"enum": ["x"]}, {"type": "null"}]},
        "b": {"oneOf": [{"type": "integer"}]},
    }
    assert dropped == []


def test_references_are_unfolded_with_what_stands_beside_them() -> None:
    schema, dropped = declared(
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/List", "description": "of names"}},
            "$defs": {"List": {"type": "array", "items": {"$ref": "#/$defs/Name"}}, "Name": {"type": "string"}},
        }
    )
    assert schema["properties"]["a"] == {"type": "array", "items": {"type": "string"}, "description": "of names"}
    assert "$defs" not in schema and dropped == []


def test_a_schema_that_contains_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "value": {"type": "string"}}}
    schema, dropped = declared(
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}}
    )
    inner = schema["properties"]["a"]
    assert inner["properties"]["value"] == {"type": "string"}
    assert inner["properties"]["next"]["type"] == "object"
    assert dropped == ["tools[].function.parameters.$ref"]


def test_an_array_without_items_has_some() -> None:
    schema, _ = declared({"type": "object", "properties": {"a": {"type": "array"}}})
    assert schema["properties"]["a"] == {"type": "array", "items": {}}


def test_references_in_a_result_are_text() -> None:
    content = json.dumps({"schema": {"$ref": "#/$defs/A"}})
    found = contents_of(USER, said(call("f")), result("a", content))
    assert found[2]["parts"][0]["functionResponse"]["response"] == {"result": content}


def test_a_type_that_may_be_null_stays_one() -> None:
    schema, dropped = declared({"type": "object", "properties": {"a": {"type": ["string", "null"]}}})
    assert schema["properties"]["a"] == {"type": ["string", "null"]} and dropped == []
    tool = {
        "functionDeclarations": [
            {"name": "f", "parameters": {"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": True}}}}
        ]
    }
    tools: Any = hub_request({"contents": [{"parts": [{"text": "x"}]}], "tools": [tool]}, "m").body["tools"]
    assert tools[0]["function"]["parameters"]["properties"]["a"] == {"type": ["string", "null"]}


# -- 37: end markers ---------------------------------------------------------------------------------------------------


def test_googles_clients_are_never_sent_an_end_marker_or_a_comment() -> None:
    native = GeminiStream(Framing(sse=True))
    data = sse(frame({"text": "a"}), frame({"text": ""}, finish="STOP", usageMetadata=USAGE))
    out = native.feed(b": keep-alive\n\n" + data + b"data: [DONE]\n\n") + native.finish() + native.terminal
    assert out == data
    encoder = GeminiClient({"contents": []}, "m", "made").encoder()
    encoder.chunk({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]})
    assert b"[DONE]" not in b"".join(encoder.end())


# -- 44, 45: system messages -------------------------------------------------------------------------------------------


def test_a_system_message_in_the_middle_is_the_users_text() -> None:
    system = {"role": "system", "content": "be brief"}
    form = gemini_request(
        {"model": NEW, "messages": [system, USER, {"role": "assistant", "content": "y"}, system, USER]}, GEMINI
    )
    assert form.body["systemInstruction"] == {"parts": [{"text": "be brief"}]}
    contents: Any = form.body["contents"]
    assert [content["role"] for content in contents] == ["user", "model", "user"]
    assert "be brief" in contents[2]["parts"][0]["text"]


def test_a_developers_message_is_the_system_instruction() -> None:
    form = gemini_request({"model": NEW, "messages": [{"role": "developer", "content": "d"}, USER]}, GEMINI)
    assert form.body["systemInstruction"] == {"parts": [{"text": "d"}]}


def test_a_system_message_alone_is_asked_as_the_user() -> None:
    form = gemini_request({"model": NEW, "messages": [{"role": "system", "content": "s"}]}, GEMINI)
    assert form.body["contents"] == [{"role": "user", "parts": [{"text": "s"}]}]
    assert "systemInstruction" not in form.body


# -- 50: names of functions --------------------------------------------------------------------------------------------


def test_names_that_google_refuses_are_others_there_and_the_clients_own_in_the_answer() -> None:
    long = "n" * 70
    tools = [{"type": "function", "function": {"name": name}} for name in ("a.b/c", long, "1st", "plain")]
    form = gemini_request({"model": NEW, "messages": [USER], "tools": tools}, GEMINI)
    told: Any = form.body["tools"]
    names = [one["name"] for one in told[0]["functionDeclarations"]]
    assert names[0] == "a_b_c" and names[2:] == ["_1st", "plain"] and len(names[1]) <= 64
    completion = completion_of(frame(*({"functionCall": {"name": name, "args": {}}} for name in names), finish="STOP"))
    restore_in_completion(completion, form.names)
    called = [one["function"]["name"] for one in completion["choices"][0]["message"]["tool_calls"]]
    assert called == ["a.b/c", long, "1st", "plain"]
    decoder = NameRestoring(GeminiUpstream().decoder(GEMINI), form.names)
    chunks: Any = decoder.chunks(sse(frame({"functionCall": {"name": "a_b_c", "args": {}}}, finish="STOP")))
    assert chunks[0]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "a.b/c"
    decoder.finish(True)
    assert decoder.done and decoder.error is None


def test_two_names_that_become_one_stay_two() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("a.b", "a/b", "a_b")]
    form = gemini_request({"model": NEW, "messages": [USER], "tools": tools}, GEMINI)
    told: Any = form.body["tools"]
    names = [one["name"] for one in told[0]["functionDeclarations"]]
    assert len(set(names)) == 3 and names[2] == "a_b"
    assert [form.names.get(name, name) for name in names] == ["a.b", "a/b", "a_b"]


# -- 2, 4, 5, 7, 10, 11, 13, 18, 19, 57, 58, as they occur here --------------------------------------------------------


def test_one_stop_sequence_is_a_list() -> None:
    config: Any = gemini_request({"model": NEW, "messages": [USER], "stop": "q"}, GEMINI).body["generationConfig"]
    assert config["stopSequences"] == ["q"]


def test_thoughts_of_earlier_turns_never_become_visible_text() -> None:
    thought = {"role": "assistant", "content": "y", "reasoning_content": "secret"}
    parts = contents_of(USER, thought, USER)[1]["parts"]
    assert [part for part in parts if not part.get("thought")] == [{"text": "y"}]
    hub: Any = hub_request(
        {"contents": [{"role": "model", "parts": [{"text": "t", "thought": True}, {"text": "y"}]}]}, "m"
    ).body
    assert hub["messages"][0]["content"] == "y" and hub["messages"][0]["reasoning_content"] == "t"


def test_a_thought_and_its_text_are_apart_in_the_stream() -> None:
    codec = chat_codec()
    out = codec.feed(sse(frame({"text": "t", "thought": True}, {"text": "y"}, finish="STOP")))
    deltas = [choice["delta"] for one in events(out) for choice in one["choices"]]
    assert [delta for delta in deltas if set(delta) <= {"content", "reasoning_content"}] == [
        {"reasoning_content": "t"},
        {"content": "y"},
    ]


@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION"])
def test_a_filtered_answer_does_not_look_complete(reason: str) -> None:
    assert completion_of(frame({"text": "a"}, finish=reason))["choices"][0]["finish_reason"] == "content_filter"
    shown = response_of(completion_of(frame({"text": "a"}, finish=reason)), "m", "made")
    assert shown["candidates"][0]["finishReason"] == "SAFETY"  # type: ignore[index]


def test_blank_texts_which_google_refuses_are_left_out() -> None:
    blank = {"role": "assistant", "content": " \n", "tool_calls": [call("f")]}
    found = contents_of(USER, blank, result("a", ""))
    assert [list(part) for part in found[1]["parts"]] == [["functionCall", "thoughtSignature"]]
    assert found[2]["parts"][0]["functionResponse"]["response"] == {"result": ""}
    user = {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "x"}]}
    assert contents_of(user)[0]["parts"] == [{"text": "x"}]


def test_a_choice_of_tools_without_tools_is_not_sent() -> None:
    hub = {"model": NEW, "messages": [USER], "tools": [], "tool_choice": "required", "parallel_tool_calls": False}
    form = gemini_request(hub, GEMINI)
    assert not {"tools", "toolConfig"} & form.body.keys() and form.dropped == []


def test_arguments_that_are_no_object_are_carried_in_one() -> None:
    found = contents_of(USER, said(call("f", "[1]")), result("a"))
    assert found[1]["parts"][0]["functionCall"]["args"] == {"arguments": "[1]"}
    shown: Any = response_of(
        {"choices": [{"index": 0, "finish_reason": "tool_calls", "message": said(call("f", "{oops"))}]}, "m", "made"
    )
    assert shown["candidates"][0]["finishReason"] == "MALFORMED_FUNCTION_CALL"
    assert "f" in shown["candidates"][0]["finishMessage"]


def test_a_tools_result_that_is_a_list_is_text_with_its_images_beside() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    answered = result("a", [{"type": "text", "text": "seen"}, image])
    part = contents_of(USER, said(call("f")), answered)[2]["parts"][0]["functionResponse"]
    assert part["response"] == {"result": "seen"} and part["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    ]
    parts = contents_of(USER, said(call("f")), answered, model=OLD)[2]["parts"]
    assert [list(one) for one in parts] == [["functionResponse"], ["text"], ["inlineData"]]


def test_parallel_calls_that_are_not_wanted_are_disclosed() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    form = gemini_request({"model": NEW, "messages": [USER], "tools": tools, "parallel_tool_calls": False}, GEMINI)
    assert form.dropped == ["parallel_tool_calls"]


# -- 47, 53, 54 in the other direction: ends without a reason, calls without ids ---------------------------------------


def test_a_call_without_an_id_is_given_one_that_stays() -> None:
    codec = chat_codec()
    out = codec.feed(sse(frame({"functionCall": {"name": "f", "args": {"a": 1}}}, finish="STOP")))
    calls = [
        one for chunk in events(out) for choice in chunk["choices"] for one in choice["delta"].get("tool_calls", ())
    ]
    assert [one["id"] for one in calls] == ["call_made_0"]


def test_two_calls_with_one_id_are_two() -> None:
    frames = frame(*({"functionCall": {"id": "x", "name": name, "args": {}}} for name in "fg"), finish="STOP")
    calls = message_of(frames)["tool_calls"]
    assert [one.get("id") for one in calls] == ["x", None]


def test_a_stream_that_ends_without_a_reason_is_not_complete() -> None:
    codec = chat_codec()
    codec.feed(sse(frame({"text": "a"})))
    codec.finish()
    assert not codec.complete and codec.terminal == b""
    native = GeminiStream(Framing(sse=True))
    native.feed(sse(frame({"text": "a"}, finish="STOP")))
    native.finish(clean=False)
    assert not native.complete


def test_a_finish_reason_on_every_frame_ends_the_answer_once() -> None:
    frames = (frame({"text": "a"}, finish="STOP"), frame({"text": "b"}, finish="STOP"))
    native = GeminiStream(Framing(sse=True))
    assert native.feed(sse(frames[0])) == b"" and native.feed(sse(frames[1])) == sse(frames[0])
    assert native.finish() == b"" and native.terminal == sse(frames[1])
    codec = chat_codec()
    out = codec.feed(sse(*frames)) + codec.finish() + codec.terminal
    texts = [choice["delta"].get("content", "") for one in events(out) for choice in one["choices"]]
    assert "".join(texts) == "ab"
    assert [choice["finish_reason"] for one in events(out) for choice in one["choices"] if choice["finish_reason"]] == [
        "stop"
    ]
