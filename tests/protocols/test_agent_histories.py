"""Conversations of coding agents on the Responses API, as an upstream of chat completions is told them."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocols.contract import Dialect
from relay.protocols.fields import BadRequest
from relay.protocols.responses.client import response_of
from relay.protocols.responses.tools import ToolNames
from tests.protocols.chat_rules import refusal
from tests.protocols.codecs import chat_form, chunk, codec, events, fed, fresh, responses_form, sse

USER: dict[str, Any] = {"role": "user", "content": "x"}


def call(call_id: str = "c", name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": "{}", **more}


def output(call_id: str = "c", text: Any = "r") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": {"type": "object"}, **more}


def names_of(form: Any) -> list[str]:
    return [tool["function"]["name"] for tool in form.body.get("tools", [])]


def answers(names: ToolNames, function: str, arguments: str = "{}") -> list[dict[str, Any]]:
    """The item that a client gets for a call of a function: in a plain answer, and in a stream."""
    made = {"id": "c1", "type": "function", "function": {"name": function, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [made]}
    completion: Any = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    plain: Any = response_of(completion, {"model": "m"}, {"id": "r"}, names, fresh())["output"]
    found = events(fed(codec(names=names), sse(chunk({"tool_calls": [{**made, "index": 0}]}, "tool_calls"))))
    streamed = found[-1]["response"]["output"]
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert done == streamed
    return [{**item, "id": item["id"].partition("_")[0]} for item in (*plain, *streamed)]


# -- tools -----------------------------------------------------------------------------------------------------------


def test_tools_that_the_input_adds_are_offered_and_known_in_the_answer() -> None:
    added = {
        "type": "additional_tools",
        "role": "developer",
        "tools": [
            {"type": "namespace", "name": "functions", "tools": [function("wait"), {"type": "custom", "name": "exec"}]},
            function("plan"),
            {"type": "web_search"},
        ],
    }
    form = chat_form({"model": "m", "tools": [function("plan", description="old")]}, [added, USER])
    assert names_of(form) == ["plan", "functions__wait", "functions__exec"]
    assert "old" not in json.dumps(form.body) and form.dropped == ["tools[web_search]"]
    for item in answers(form.names, "functions__wait"):
        assert (item["type"], item["namespace"], item["name"]) == ("function_call", "functions", "wait")
    for item in answers(form.names, "functions__exec", '{"input":"ls"}'):
        kind = (item["id"], item["type"], item["namespace"], item["name"], item["input"])
        assert kind == ("ctc", "custom_tool_call", "functions", "exec", "ls")


def test_a_tool_search_of_the_client_is_a_function_and_what_it_found_is_offered() -> None:
    search = {"type": "tool_search", "execution": "client", "description": "Finds tools."}
    found = {"type": "namespace", "name": "mcp__cal", "tools": [function("add", defer_loading=True)]}
    asked = {"type": "tool_search_call", "call_id": "c", "execution": "client", "arguments": {"query": "calendar"}}
    told = {"type": "tool_search_output", "call_id": "c", "execution": "client", "status": "completed"}
    form = chat_form({"model": "m", "tools": [search]}, [USER, asked, {**told, "tools": [found]}])
    assert names_of(form) == ["tool_search", "mcp__cal__add"] and form.dropped == []
    assert form.body["tools"][0]["function"]["parameters"]["required"] == ["query"]
    assert "defer_loading" not in json.dumps(form.body)
    made = {"name": "tool_search", "arguments": '{"query":"calendar"}'}
    assert form.body["messages"][1]["tool_calls"][0]["function"] == made
    assert "mcp__cal__add" in form.body["messages"][2]["content"] and not refusal(form.body)
    for item in answers(form.names, "tool_search", '{"query":"mail","limit":3}'):
        assert item["type"] == "tool_search_call" and item["execution"] == "client" and item["id"] == "tsc"
        assert item["arguments"] == {"query": "mail", "limit": 3} and item["call_id"] == "c1" and "name" not in item
    chosen = chat_form({"model": "m", "tools": [search], "tool_choice": {"type": "tool_search"}}, [USER])
    assert chosen.body["tool_choice"] == {"type": "function", "function": {"name": "tool_search"}}


def test_where_the_upstream_would_search_every_tool_is_offered_at_once() -> None:
    tools = [{"type": "tool_search"}, {"type": "namespace", "name": "n", "tools": [function("a", defer_loading=True)]}]
    asked = {"type": "tool_search_call", "call_id": None, "execution": "server", "arguments": {"paths": ["n"]}}
    told = {"type": "tool_search_output", "call_id": None, "execution": "server", "tools": [function("b")]}
    form = chat_form({"model": "m", "tools": tools}, [USER, asked, told])
    assert names_of(form) == ["b", "n__a"] or names_of(form) == ["n__a", "b"]
    assert form.dropped == ["tools[tool_search]", "input[tool_search_call]", "input[tool_search_output]"]
    assert not refusal(form.body)


LONG = "find_references_in_the_whole_workspace_including_depend"


def test_long_and_odd_names_fit_and_come_back_exactly() -> None:
    tools = [
        {"type": "namespace", "name": "mcp__workspace", "tools": [function(f"{LONG}encies"), function(f"{LONG}ents")]},
        {"type": "namespace", "name": "a", "tools": [function("b__c")]},
        {"type": "namespace", "name": "a__b", "tools": [function("c")]},
        {"type": "namespace", "name": "n", "tools": [{"type": "custom", "name": "ünïcode.tool/1"}, function("x")]},
        function("n__x"),
        {"type": "custom", "name": "n__x"},
    ]
    form = chat_form({"model": "m", "tools": tools}, [USER])
    names = names_of(form)
    assert not refusal(form.body) and len(names) == 8
    assert "a__b__c" in names and "n__x" in names, "names that fit stay readable"
    back = {(item["type"], item.get("namespace"), item["name"]) for name in names for item in answers(form.names, name)}
    assert back == {
        ("function_call", "mcp__workspace", f"{LONG}encies"),
        ("function_call", "mcp__workspace", f"{LONG}ents"),
        ("function_call", "a", "b__c"),
        ("function_call", "a__b", "c"),
        ("custom_tool_call", "n", "ünïcode.tool/1"),
        ("function_call", "n", "x"),
        ("function_call", None, "n__x"),
        ("custom_tool_call", None, "n__x"),
    }
    assert answers(form.names, "n__x")[0]["type"] == "function_call", "the client's own function keeps its name"
    again = chat_form({"model": "m", "tools": [function("new"), *reversed(tools)]}, [USER])
    assert set(names_of(again)) - {"new"} >= {name for name in names if name.startswith("mcp__workspace")}


def test_a_call_in_the_history_has_the_name_under_which_its_tool_is_offered() -> None:
    tools = [{"type": "namespace", "name": "mcp__workspace", "tools": [function(f"{LONG}encies")]}]
    items = [USER, call(name=f"{LONG}encies", namespace="mcp__workspace"), output(), call("d", "gone"), output("d")]
    form = chat_form({"model": "m", "tools": tools}, items)
    assert form.body["messages"][1]["tool_calls"][0]["function"]["name"] == names_of(form)[0]
    gone = [USER, call(name=f"{LONG}encies", namespace="mcp__workspace"), output()]
    assert not refusal(chat_form({"model": "m"}, gone).body)


def test_allowed_tools_are_found_by_namespace_too() -> None:
    tools = [function("a"), {"type": "namespace", "name": "n", "tools": [function("a"), function("b")]}]
    for allowed, left in (
        ([{"type": "function", "name": "a"}], ["a"]),
        ([{"type": "namespace", "name": "n"}], ["n__a", "n__b"]),
        ([{"type": "function", "name": "b", "namespace": "n"}], ["n__b"]),
    ):
        choice = {"type": "allowed_tools", "mode": "required", "tools": allowed}
        assert names_of(chat_form({"model": "m", "tools": tools, "tool_choice": choice}, [USER])) == left


def test_what_a_namespace_says_of_its_tools_is_told_once() -> None:
    tools = [{"type": "namespace", "name": "n", "description": "Mail.", "tools": [function("a"), function("b")]}]
    assert json.dumps(chat_form({"model": "m", "tools": tools}, [USER]).body).count("Mail.") == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [('{"input":"*** Begin"}', "*** Begin"), ('{"patch":"*** Begin"}', "*** Begin"), ("*** Begin", "*** Begin")],
)
def test_the_input_of_a_custom_tool_is_understood_as_models_write_it(arguments: str, text: str) -> None:
    form = chat_form({"model": "m", "tools": [{"type": "custom", "name": "apply_patch"}]}, [USER])
    assert [item["input"] for item in answers(form.names, "apply_patch", arguments)] == [text, text]


# -- messages --------------------------------------------------------------------------------------------------------


def test_instructions_and_leading_items_are_one_system_message() -> None:
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "b"}]},
        {"role": "system", "content": "c"},
        USER,
        {"role": "developer", "content": "Now in French."},
        USER,
    ]
    body = chat_form({"model": "m", "instructions": "a"}, items).body
    assert body["messages"][0] == {"role": "system", "content": "a\n\nb\n\nc"} and not refusal(body)
    assert body["messages"][2]["role"] == "user" and "Now in French." in body["messages"][2]["content"]
    late = chat_form({"model": "m", "instructions": "a"}, items, Dialect(late_system=True)).body
    assert [message["role"] for message in late["messages"]] == ["system", "user", "system", "user"]
    assert late["messages"][2]["content"] == "Now in French."


@pytest.mark.parametrize("role", ["user", "developer", "assistant"])
def test_results_stand_right_behind_their_calls(role: str) -> None:
    between = {"role": role, "content": "between"}
    items = [USER, call("a"), call("b"), between, output("b", "rb"), USER, output("a", "ra")]
    body = chat_form({"model": "m"}, items).body
    assert not refusal(body)
    assert [message.get("content") for message in body["messages"][1:4]] == [None, "ra", "rb"]
    assert "between" in body["messages"][4]["content"] and body["messages"][5]["content"] == "x"


def test_interrupted_calls_and_lost_results_are_told() -> None:
    items = [
        output("old", "r0"),
        USER,
        call("a"),
        call("b"),
        output("b", "rb"),
        USER,
        call("a", "g"),
        output("a", "new"),
    ]
    body = chat_form({"model": "m"}, items).body
    assert not refusal(body)
    said = [(message["role"], message["content"]) for message in body["messages"]]
    assert said[0][0] == "user" and "r0" in str(said[0][1])
    assert said[3][0] == "tool" and "interrupted" in str(said[3][1]) and said[4] == ("tool", "rb")
    assert said[-1] == ("tool", "new"), "a result belongs to the newest call of its id"


def test_a_call_may_have_more_than_one_result() -> None:
    """Codex' code mode: `notify` injects an extra output for the call that is running."""
    body = chat_form({"model": "m"}, [USER, call(), output(text="half"), USER, output(text="done")]).body
    assert not refusal(body) and body["messages"][2]["content"] == "half\ndone"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [('{"a":', {"arguments": '{"a":'}), ("[1]", {"arguments": "[1]"}), ("", {}), (" ", {}), ('{"a":1}', {"a": 1})],
)
def test_arguments_that_are_no_object_do_not_end_the_conversation(arguments: str, told: Any) -> None:
    body = chat_form({"model": "m"}, [USER, call(arguments=arguments), output()]).body
    assert json.loads(body["messages"][1]["tool_calls"][0]["function"]["arguments"]) == told


def test_an_answer_without_content_is_left_out() -> None:
    empty = {"type": "message", "role": "assistant", "content": []}
    assert chat_form({"model": "m"}, [USER, empty, USER]).body["messages"] == [USER, USER]
    called = chat_form({"model": "m"}, [USER, empty, call(), output()]).body["messages"]
    assert [message["role"] for message in called] == ["user", "assistant", "tool"]


def test_both_thoughts_between_two_calls_are_kept() -> None:
    def thought(text: str) -> dict[str, Any]:
        return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}

    parallel = [USER, thought("A"), call("a"), thought("B"), call("b"), output("a"), output("b")]
    body = chat_form({"model": "m"}, parallel).body
    assert body["messages"][1]["reasoning_content"] == "A\n\nB" and not refusal(body)
    serial = [USER, thought("A"), call("a"), output("a"), thought("B"), call("b"), output("b")]
    body = chat_form({"model": "m"}, serial).body
    assert [message.get("reasoning_content") for message in body["messages"]] == [None, "A", None, "B", None]
    crossed = [USER, thought("A"), call("a"), thought("B"), output("a"), {"role": "assistant", "content": "done"}]
    body = chat_form({"model": "m"}, crossed).body
    assert [message.get("reasoning_content") for message in body["messages"]] == [None, "A", None, "B"]
    summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "S"}], "encrypted_content": "E"}
    body = chat_form({"model": "m"}, [USER, summary, thought("A"), call(), output()]).body
    assert body["messages"][1]["reasoning_content"] == "S\n\nA"
    interrupted = [USER, thought("A"), USER, {"role": "assistant", "content": "done"}]
    assert "reasoning_content" not in chat_form({"model": "m"}, interrupted).body["messages"][2]


def test_images_in_results_follow_all_results_of_the_message() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    items = [USER, call("a"), call("b"), output("a", [image]), {"role": "user", "content": "y"}, output("b")]
    body = chat_form({"model": "m"}, items).body
    assert not refusal(body) and body["messages"][4]["content"][1]["type"] == "image_url"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "encrypted_content", "encrypted_content": "gAAA"},
        {"type": "input_image", "file_id": "file-gone"},
        {"type": "input_file", "file_url": "https://x.example/a.pdf"},
        {"type": "a_part_of_next_year", "x": 1},
    ],
    ids=lambda part: part["type"],
)
def test_a_part_of_a_result_that_chat_lacks_does_not_end_the_conversation(part: dict[str, Any]) -> None:
    body = chat_form({"model": "m"}, [USER, call(), output(text=[{"type": "input_text", "text": "r"}, part])]).body
    assert not refusal(body) and body["messages"][2]["content"].startswith("r\n[An earlier step")


def test_images_in_results_reach_an_upstream_of_responses() -> None:
    content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    made = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "c", "content": content},
    ]
    told = responses_form({"model": "m", "messages": messages}).body["input"][2]["output"]
    assert told == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": "data:x", "detail": "auto"},
    ]


def test_long_histories_take_no_longer_than_their_length() -> None:
    """10,000 of everything that could be compared with everything else; quadratic work takes minutes."""
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "A"}]}
    added = {"type": "additional_tools", "tools": [function("f")]}
    items = [USER, *(item for _ in range(10_000) for item in (thought, call(""), added)), *[output("")] * 20_000]
    began = time.process_time()
    body = chat_form({"model": "m"}, items).body
    assert time.process_time() - began < 10 and not refusal(body)


def test_a_signature_comes_back_to_the_vendor_that_signed() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    body = chat_form({"model": "m"}, [USER, call(extra_content=extra), output()]).body
    assert body["messages"][1]["tool_calls"][0]["extra_content"] == extra
    assert "extra_content" not in json.dumps(chat_form({"model": "m"}, [USER, call(extra_content="x"), output()]).body)


# -- items that no other API has -------------------------------------------------------------------------------------

PICTURE = "iVBORw0KGgo" * 1000
HOSTED: list[dict[str, Any]] = [
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "tea"}},
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": PICTURE},
    {"type": "local_shell_call", "call_id": "l", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "local_shell_call_output", "id": "l", "output": "a.txt"},
    {"type": "shell_call", "call_id": "s", "action": {"commands": ["ls"]}},
    {"type": "shell_call_output", "call_id": "s", "output": [{"stdout": "a.txt"}]},
    {"type": "apply_patch_call", "call_id": "p", "operation": {"type": "create_file", "path": "a"}},
    {"type": "code_interpreter_call", "id": "ci_1", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]},
    {"type": "file_search_call", "id": "fs_1", "queries": ["tea"], "results": None},
    {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": [{"name": "a"}]},
    {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "a", "arguments": "{}", "output": "done"},
    {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "a", "arguments": "{}"},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
    {"type": "computer_call", "call_id": "k", "action": {"type": "screenshot"}},
    {
        "type": "computer_call_output",
        "call_id": "k",
        "output": {"type": "computer_screenshot", "image_url": f"data:image/png;base64,{PICTURE}"},
    },
    {"type": "compaction", "encrypted_content": "gAAA" * 1000},
    {"type": "context_compaction", "encrypted_content": "gAAA" * 1000},
    {"type": "agent_message", "author": "/root", "content": [{"type": "input_text", "text": "hi"}]},
    {"type": "a_thing_of_next_year", "deep": [[[[[[[[[[[[[[[[[[[[[[[["x"]]]]]]]]]]]]]]]]]]]]]]]], "role": "user"},
]


@pytest.mark.parametrize("item", HOSTED, ids=[item["type"] for item in HOSTED])
def test_history_that_only_the_responses_api_knows_is_told_and_disclosed(item: dict[str, Any]) -> None:
    for items in ([USER, item, USER], [item, USER], [USER, call(), item, output(), USER]):
        form = chat_form({"model": "m"}, items)
        assert form.dropped == [f"input[{item['type']}]"] and not refusal(form.body)
        assert len(json.dumps(form.body)) < 2000, "encoded data is no text"
        assert "gAAAgAAA" not in json.dumps(form.body)


def test_what_is_told_says_what_was_done() -> None:
    text = json.dumps(chat_form({"model": "m"}, [USER, *HOSTED]).body)
    assert re.search(r"web_search_call.*tea", text) and re.search(r"local_shell_call_output.*a\.txt", text)


@pytest.mark.parametrize("item", [{"type": "item_reference", "id": "msg_1"}, {"content": "x"}])
def test_an_item_whose_content_is_unknown_is_still_refused(item: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        chat_form({"model": "m"}, [USER, item])
    assert refused.value.status == 422 and refused.value.param == "input[1].type"


# -- any order -------------------------------------------------------------------------------------------------------

IDS = st.sampled_from(["a", "b", ""])
ITEMS = st.one_of(
    st.sampled_from(["user", "assistant", "developer", "system"]).map(lambda role: {"role": role, "content": "x"}),
    IDS.map(call),
    IDS.map(output),
    IDS.map(lambda name: {"type": "custom_tool_call", "call_id": name, "name": "p", "input": "x"}),
    IDS.map(lambda name: {"type": "custom_tool_call_output", "call_id": name, "output": "x"}),
    st.sampled_from([{"type": "reasoning", "summary": []}, *HOSTED[:4]]),
)


@settings(max_examples=200)
@given(st.lists(ITEMS, min_size=1, max_size=12))
def test_whatever_the_order_a_strict_upstream_accepts_it_and_nothing_is_lost(items: list[dict[str, Any]]) -> None:
    numbered: list[dict[str, Any]] = []
    for number, item in enumerate(items):
        text = {"content", "output"} & item.keys()
        numbered.append({**item, **{name: f"<{number}>" for name in text}})
    body = chat_form({"model": "m"}, numbered).body if _says_something(numbered) else {"messages": []}
    assert not refusal(body)
    sent = json.dumps(body)
    assert all(sent.count(f"<{number}>") == 1 for number, item in enumerate(numbered) if f"<{number}>" in str(item))


def _says_something(items: list[dict[str, Any]]) -> bool:
    return any(item.get("type") != "reasoning" for item in items)
