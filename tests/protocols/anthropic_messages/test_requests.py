"""Requests of the Messages API: what the portal reads of them, what it sends on, and what they are reckoned at."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.billing.estimate import estimate_media, estimate_request
from relay.protocols.anthropic_messages.request import MessagesRequest, parse_messages_request
from relay.protocols.fields import BadRequest

TEXT: dict[str, Any] = {"type": "text", "text": "Say hello, please, to everybody who is here."}


def parsed(content: Any = "Hi.", **more: Any) -> MessagesRequest:
    body = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": content}], **more}
    return parse_messages_request(json.dumps(body).encode())


def test_a_body_that_needs_no_change_is_sent_byte_for_byte() -> None:
    body = b'{ "model":"m", "max_tokens": 9,"unknown": [1.0],"messages":[{"role":"user","content":"x"}] }'
    found = parse_messages_request(body)
    assert found.upstream_body("m") is found.body and found.body == body
    renamed = json.loads(found.upstream_body("other", 5))
    assert (renamed["model"], renamed["max_tokens"], renamed["unknown"]) == ("other", 5, [1.0])
    assert json.loads(found.upstream_body("m", 50))["max_tokens"] == 9, "a lower limit of the client's own stays"


@pytest.mark.parametrize(
    ("clamp", "expected"),
    [(3000, {"type": "enabled", "budget_tokens": 2000}), (1500, {"type": "enabled", "budget_tokens": 1499})],
)
def test_a_budget_of_thinking_stays_below_the_limit(clamp: int, expected: dict[str, Any]) -> None:
    request = parsed(max_tokens=4000, thinking={"type": "enabled", "budget_tokens": 2000})
    assert request.thinking() == 2000
    assert json.loads(request.upstream_body("m", clamp))["thinking"] == expected
    assert json.loads(request.upstream_body("m", 500))["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}, "model"),
        ({"model": "m", "max_tokens": 5}, "messages"),
        ({"model": "m", "max_tokens": 5, "messages": []}, "messages"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}]}, "max_tokens"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}, "max_tokens"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "stream": "yes"}, "stream"),
        (
            {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "container": "container_1"},
            "container",
        ),
        *(
            ({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, **named}, param)
            for named, param in (
                ({"container": {"id": "container_1"}}, "container.id"),
                ({"container": {"skills": [{"type": "custom", "skill_id": "pdf"}]}}, "container.skills[0].skill_id"),
                (
                    {"container": {"skills": [{"type": "anthropic", "skill_id": "skill_01A"}]}},
                    "container.skills[0].skill_id",
                ),
                ({"workspace_id": "wrkspc_1"}, "workspace_id"),
                ({"user_profile_id": "up_1"}, "user_profile_id"),
                ({"thread": {"id": "t"}}, "thread"),
                ({"prompt": {"id": "pmpt_1"}}, "prompt.id"),
                ({"tools": [{"type": "mcp_toolset", "tunnel_id": "t"}]}, "tools[0].tunnel_id"),
            )
        ),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_messages_request(json.dumps(body).encode())
    assert caught.value.param == param


def test_what_a_tool_was_called_with_is_the_clients_own() -> None:
    """Members that other parsers would take for parameters, or that name objects of accounts elsewhere."""
    block = {"type": "tool_use", "id": "t", "name": "n", "input": {"Content": 1, "MODEL": 2, "container_id": "cntr_1"}}
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [block]}]
    assert parse_messages_request(json.dumps({"model": "m", "max_tokens": 5, "messages": turns}).encode()).model == "m"
    with pytest.raises(BadRequest, match="to some parsers only"):
        parsed([{**TEXT, "Text": "y"}])


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "container_upload", "file_id": "file_1"},
        {
            "type": "tool_result",
            "tool_use_id": "t",
            "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}],
        },
    ],
)
def test_files_of_the_account_at_the_upstream_are_refused(block: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="names a file") as caught:
        parsed([TEXT, block])
    assert caught.value.param is not None and caught.value.param.endswith("file_id")


def test_skills_that_anthropic_offers_to_everybody_may_be_named() -> None:
    skills = [{"type": "anthropic", "skill_id": "pptx", "version": "latest"}]
    assert parsed(container={"skills": skills}).model == "m"


def test_a_file_that_a_tool_was_called_with_is_the_clients_own() -> None:
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [
        {"type": "tool_use", "id": "t", "name": "n", "input": {"file_id": "mine", "source": {"type": "file"}}}
    ]}]  # fmt: skip
    assert (
        parse_messages_request(json.dumps({"model": "m", "max_tokens": 5, "messages": turns}).encode()).stream is False
    )


def test_what_may_add_to_a_request_is_told_from_what_cannot() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO" * 99}}
    own = [
        [TEXT],
        [image],
        [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}],
        [{"type": "tool_result", "tool_use_id": "t", "content": [TEXT, image]}],
    ]
    assert [parsed(content).at_most(9) for content in own] == [9] * 4
    more = [
        [{"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}}],
        [{"type": "something_new"}],
        [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "something_new"}]}],
    ]
    assert [parsed(content).at_most(9) for content in more] == [None] * 3
    assert parsed(tools=[{"type": "web_search_20250305", "name": "w"}]).at_most(9) is None
    assert parsed(tools=[{"name": "w", "input_schema": {}}, {"type": "bash_20250124", "name": "bash"}]).at_most(9) == 9
    assert parsed(mcp_servers=[]).at_most(9) is None


def test_images_and_documents_count_by_their_kind_and_not_as_base64() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO" * 50_000}}
    pdf = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi" + "A" * 2000},
    }
    for block in (image, pdf):
        request = parsed([TEXT, block])
        size = estimate_request(request.fields, request.fields["messages"], request.content)
        assert 800 < size.tokens < 1000
    assert estimate_media(parsed([image]).fields["messages"]).image_input == 800
    plain = parsed([TEXT], system="some words " * 500)
    size = estimate_request(plain.fields, plain.fields["messages"], plain.content)
    assert size.tokens > 900, "the system prompt counts"
    assert plain.least_input(10**6) > 900
