"""What is read of a request for an interaction, what it is sent on as, and what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from relay.protocols.fields import BadRequest
from relay.protocols.interactions.request import InteractionRequest, Target, parse_interaction_request
from relay.protocols.interactions.usage import parse_interaction_usage
from relay.protocols.usage import Usage
from relay.providers import parameters
from relay.providers.vendors import VENDORS

HELLO: dict[str, Any] = {"model": "m", "input": "Say hello."}
AGENT: dict[str, Any] = {"agent": "deep-research", "input": "Find out.", "background": True}
UPLOADED = "https://generativelanguage.googleapis.com/v1beta/files/abc-123"


def parsed(body: dict[str, Any]) -> InteractionRequest:
    return parse_interaction_request(json.dumps(body).encode())


def sent(body: dict[str, Any], **target: Any) -> dict[str, Any]:
    request = parsed(body)
    found: dict[str, Any] = json.loads(
        request.upstream_body(Target(**{"name": "u", "stores": True, **target}), request.fields)
    )
    return found


def test_what_is_sent_has_the_upstreams_names_and_every_member_of_the_client() -> None:
    body = {**HELLO, "unknown": {"a": [1, 2.50]}, "previous_interaction_id": "int_1", "stream": True}
    expected = {**body, "model": "u", "previous_interaction_id": "v1_x"}
    assert sent(body, previous_id="v1_x") == expected
    assert sent(AGENT) == {**AGENT, "agent": "u", "stream": False}
    assert sent(HELLO, stores=False)["store"] is False
    assert sent({**HELLO, "store": False})["store"] is False


def test_an_answer_is_limited_to_what_can_be_paid() -> None:
    assert sent(HELLO, clamp=50)["generation_config"] == {"max_output_tokens": 50}
    long = {**HELLO, "generation_config": {"max_output_tokens": 900, "top_p": 0.5}}
    assert parsed(long).output_limit == 900
    assert sent(long, clamp=50)["generation_config"] == {"max_output_tokens": 50, "top_p": 0.5}
    assert "generation_config" not in sent(AGENT, clamp=50)  # agents have none


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "x"}, "model"),
        ({"model": "m"}, "input"),
        ({**HELLO, "agent": "a"}, "agent"),
        ({"agent": " ", "input": "x"}, "agent"),
        ({**HELLO, "background": True, "store": False}, "background"),
        ({**HELLO, "stream": "yes"}, "stream"),
        ({**HELLO, "webhook_config": {"uris": ["https://a.example/x"]}}, "webhook_config"),
        ({**HELLO, "generation_config": []}, "generation_config"),
        # In other letters, which Google reads as well.
        ({**HELLO, "previousInteractionId": "v1_of_somebody"}, "previous_interaction_id"),
        ({**HELLO, "Previous_interaction_id": "v1_of_somebody"}, "previous_interaction_id"),
        ({**HELLO, "cachedContent": "cachedContents/a"}, "cachedContent"),
        ({**HELLO, "generationConfig": {"maxOutputTokens": 9}}, "generation_config"),
        ({**HELLO, "generation_config": {"maxOutputTokens": 9}}, "generation_config.max_output_tokens"),
        ({**AGENT, "agent_config": {"Model": "x"}}, "agent_config.model"),
        ({**AGENT, "environment": {"environmentId": "e"}}, "environment.environment_id"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_its_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parsed(body)
    assert caught.value.param == param


def user(**part: Any) -> dict[str, Any]:
    return {"model": "m", "input": [{"type": "user_input", "content": [part]}]}


@pytest.mark.parametrize(
    "body",
    [
        user(type="image", uri=UPLOADED),
        user(type="document", uri="gs://bucket/a.pdf"),
        user(type="video", uri="files/abc"),
        {"model": "m", "input": {"type": "image", "uri": UPLOADED}},
        {"model": "m", "input": [{"type": "function_result", "result": [{"type": "image", "uri": UPLOADED}]}]},
        {**HELLO, "cached_content": "cachedContents/abc"},
        {**HELLO, "tools": [{"type": "file_search", "file_search_store_names": ["fileSearchStores/a"]}]},
        {**HELLO, "tools": [{"type": "retrieval", "vertex_ai_search_config": {"datastores": ["projects/p/d"]}}]},
        {**HELLO, "tools": [{"type": "retrieval", "rag_store_config": {"rag_resources": [{"rag_corpus": "c"}]}}]},
        {**AGENT, "environment": {"type": "remote", "sources": [{"type": "gcs", "source": "gs://bucket/a"}]}},
        {**AGENT, "environment": {"type": "remote", "sources": [{"type": "skill_registry", "source": "s"}]}},
        {**AGENT, "environment": {"type": "remote", "env": {"TOKEN": {"credential": "cred_1"}}}},
        {**AGENT, "environment": {"type": "remote", "network": {"allowlist": [{"domain": "*", "credential": "c"}]}}},
        {**AGENT, "agent_config": {"type": "code-mender", "session_id": "s1"}},
        {**HELLO, "generation_config": {"speech_config": {"voice": "voice_abc123"}}},
        {**HELLO, "generation_config": {"speech_config": [{"voice": "Puck"}, {"voice": "voices/voice_abc"}]}},
    ],
)  # fmt: skip
def test_objects_of_the_account_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="of the portal's account at the upstream") as caught:
        parsed(body)
    assert caught.value.param


def test_what_is_the_clients_own_is_not() -> None:
    own = {"uri": UPLOADED, "credential": "x"}
    steps = [
        {"type": "function_call", "id": "c", "name": "f", "arguments": own},
        {"type": "function_result", "call_id": "c", "result": own},
    ]
    parsed({"model": "m", "input": steps})
    parsed({**HELLO, "tools": [{"type": "mcp_server", "url": "https://a.example", "headers": {"credential": "x"}}]})
    parsed({**HELLO, "generation_config": {"speech_config": {"voice": "voicekey_abc"}}})
    assert parsed({**AGENT, "environment": "remote"}).environment_id == ""
    assert parsed({**AGENT, "environment": "env_1"}).environment_id == "env_1"
    assert parsed({**AGENT, "environment": {"environment_id": "env_2"}}).environment_id == "env_2"


def test_models_that_parts_of_it_name() -> None:
    body = {**AGENT, "agent_config": {"type": "antigravity", "model": "big"}, "tools": [{"type": "x", "model": "dear"}]}
    request = parsed(body)
    assert request.named == ("big", "dear") and request.model == "deep-research" and request.is_agent
    policy = parameters.policy_of(VENDORS["gemini"].parameters, {}, "interactions")
    fields, dropped = parameters.apply(policy, {**request.fields, "service_tier": msgspec.Raw(b'"priority"')})
    assert sorted(dropped) == ["agent_config.model", "service_tier", "tools[].model"]
    assert b"big" not in bytes(fields["agent_config"]) and "service_tier" not in fields


def test_the_size_of_what_it_contains() -> None:
    image = base64.b64encode(bytes(3000)).decode()
    request = parsed({**user(type="image", data=image, mime_type="image/png"), "system_instruction": "Be kind."})
    assert request.files == [(3000, "image/png")] and image.encode() not in request.own_text
    assert b"Be kind." in request.own_text
    assert request.at_most(7) == 7 and request.most_input() is None
    plain = parsed(HELLO)
    assert plain.files == [] and plain.at_most(7) == 7 and plain.most_input() is not None
    told = parsed(
        {"model": "m", "input": [{"type": "user_input", "content": [{"type": "text", "text": "word " * 100}]}]}
    )
    assert told.least_input(1000) > 80 and plain.least_input(1000) < 5


@pytest.mark.parametrize(
    "more",
    [
        {"previous_interaction_id": "int_1"},
        {"agent_config": {"type": "dynamic"}},
        {"tools": [{"type": "google_search"}]},
        {"unknown": 1},
        {"input": [{"type": "user_input", "content": [{"type": "image", "uri": "https://a.example/x.png"}]}]},
        {"input": [{"type": "unknown_step"}]},
    ],
)
def test_what_may_add_to_it(more: dict[str, Any]) -> None:
    request = parsed({**HELLO, **more})
    assert request.at_most(7) is None and request.most_input() is None


def test_usage_has_thoughts_in_the_output_and_tools_in_the_input() -> None:
    raw = {
        "total_input_tokens": 100,
        "total_cached_tokens": 10,
        "total_output_tokens": 42,
        "total_thought_tokens": 8,
        "total_tool_use_tokens": 5,
        "total_tokens": 155,
        "input_tokens_by_modality": [{"modality": "audio", "tokens": 20}, {"modality": "IMAGE", "tokens": 5}],
        "cached_tokens_by_modality": [{"modality": "audio", "tokens": 3}],
        "output_tokens_by_modality": [{"modality": "audio", "tokens": 4}, {"modality": "text", "tokens": 38}],
    }
    found = parse_interaction_usage(json.dumps(raw).encode())
    assert found == Usage(
        105,
        cached_input=10,
        cached_audio_input=3,
        output=50,
        reasoning=8,
        audio_input=17,
        audio_output=4,
        image_input=5,
    )
    assert parse_interaction_usage(b'{"grounding_tool_count":[]}') is None and parse_interaction_usage(b"[]") is None
    assert parse_interaction_usage(b'{"total_tokens":30,"total_output_tokens":10,"total_thought_tokens":5}') == Usage(
        15, output=15, reasoning=5
    )
