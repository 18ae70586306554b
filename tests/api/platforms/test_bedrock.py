"""Channels at Amazon Bedrock: Claude with an API key, and with an access key that signs each request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from django.test import Client
from django.urls import reverse

from relay.channels.base_urls import complete_base_url
from relay.channels.probe import fetch_models, list_address, probe_channel
from relay.models import Channel
from relay.providers.failures import FailureClass
from relay.providers.vendors import VENDORS
from tests.support.peers import messages
from tests.support.peers.clouds import bedrock, frames
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Script

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
ACCOUNT = bedrock.Account()
KEYS = {
    "api key": ACCOUNT.api_key,
    "access key": f"{ACCOUNT.key_id}:{ACCOUNT.secret}@{bedrock.REGION}",
}
TEMPORARY = bedrock.Account(key_id="ASIAIOSFODNN7EXAMPLE", token="IQoJb3JpZ2luX2VjEXAMPLE/token+of==")


def channel_at(live: Portal, key: str = ACCOUNT.api_key) -> Channel:
    made: Channel = live.channel(live.upstream.base_url.removesuffix("/v1"), keys=(key,), provider="bedrock_claude")
    return made


def claude(live: Portal, script: Script, key: str = ACCOUNT.api_key) -> str:
    """A model whose name at the upstream has a colon, and which only its channel serves."""
    name = f"us.anthropic.{live.name('claude')}-v1:0"
    return live.model(script, channels=[channel_at(live, key)], upstream_name=name)


@pytest.fixture
def client(server: Server, live: Portal) -> Iterator[anthropic.Anthropic]:
    token = live.token()
    server.catch_up()
    with anthropic.Anthropic(base_url=server.url, api_key=token, max_retries=0, timeout=20) as made:
        yield made


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("streamed", [False, True])
def test_claude_is_invoked(
    client: anthropic.Anthropic, live: Portal, server: Server, kind: str, streamed: bool
) -> None:
    script = bedrock.saying(ACCOUNT, messages.THINKING, messages.TEXT, messages.TOOL, stop="tool_use")
    model = claude(live, script, KEYS[kind])
    server.catch_up()
    options: Any = {"model": model, "max_tokens": 99, "messages": HELLO}
    if streamed:
        with client.messages.stream(**options) as stream:
            found, request_id = stream.get_final_message(), stream.response.headers["x-request-id"]
            assert stream.response.headers["content-type"].startswith("text/event-stream")
    else:
        raw = client.messages.with_raw_response.create(**options)
        found, request_id = raw.parse(), raw.headers["x-request-id"]
    assert [block.type for block in found.content] == ["thinking", "text", "tool_use"]
    assert found.content[1].to_dict() == messages.TEXT and found.stop_reason == "tool_use"
    sent = [call for call in live.upstream.calls if call.body and call.path.startswith("/model/")][-1]
    assert sent.path.endswith("-v1:0/invoke-with-response-stream" if streamed else "-v1:0/invoke")
    assert sent.json["anthropic_version"] == "bedrock-2023-05-31" and not {"model", "stream"} & set(sent.json)
    assert ACCOUNT.secret not in str(sent.headers)
    record = live.record(request_id)
    assert (record.input_tokens, record.cached_input_tokens, record.cache_write_tokens) == (19, 4, 6)
    assert (record.output_tokens, record.reasoning_tokens, record.usage_source) == (7, 3, "reported")


def test_temporary_credentials_bring_their_token(client: anthropic.Anthropic, live: Portal, server: Server) -> None:
    key = f"{TEMPORARY.key_id}:{TEMPORARY.secret}:{TEMPORARY.token}@{bedrock.REGION}"
    model = claude(live, bedrock.saying(TEMPORARY), key)
    server.catch_up()
    found = client.messages.create(model=model, max_tokens=99, messages=HELLO)
    assert found.content[0].to_dict() == messages.TEXT


@pytest.mark.parametrize("streamed", [False, True])
def test_clients_of_chat_completions_are_served_by_conversion(live: Portal, server: Server, streamed: bool) -> None:
    model = claude(live, bedrock.saying(ACCOUNT), KEYS["access key"])
    answer = server.post(live.token(), ask(model, stream=streamed))
    assert answer.status_code == 200, answer.text
    if streamed:
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
        assert "".join(delta.get("content") or "" for delta in deltas) == "Hello there."
    else:
        assert answer.json()["choices"][0]["message"]["content"] == "Hello there."
    assert live.record(answer).output_tokens == 7


def test_betas_go_into_the_body_and_unknown_ones_are_told(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    model = claude(live, bedrock.saying(ACCOUNT))
    server.catch_up()
    answer = client.messages.with_raw_response.create(
        model=model,
        max_tokens=99,
        messages=HELLO,
        extra_headers={"anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14"},
    )
    sent = [call for call in live.upstream.calls if call.body and call.path.startswith("/model/")][-1]
    assert sent.json["anthropic_beta"] == ["interleaved-thinking-2025-05-14"]
    assert answer.headers["x-airelays-ignored-parameters"] == "anthropic-beta[claude-code-20250219]"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("throttlingException", "rate_limit_error"), ("modelStreamErrorException", "api_error")],
)
def test_an_exception_inside_a_stream_ends_it_with_an_error(
    client: anthropic.Anthropic, live: Portal, server: Server, name: str, kind: str
) -> None:
    model = claude(live, bedrock.saying(ACCOUNT, ending=frames.exception(name, "Try again later.")))
    server.catch_up()
    with (
        pytest.raises(anthropic.APIStatusError) as told,
        client.messages.stream(model=model, max_tokens=99, messages=HELLO) as stream,
    ):
        request_id = stream.response.headers["x-request-id"]
        stream.until_done()
    error: Any = told.value.body
    assert error["error"]["type"] in {kind, "api_error"}, error
    assert live.record(request_id).end_reason != "completed"


def test_a_damaged_stream_ends_with_an_error(client: anthropic.Anthropic, live: Portal, server: Server) -> None:
    damaged = bytearray(frames.chunk({"type": "message_stop"}))
    damaged[-1] ^= 1
    model = claude(live, bedrock.saying(ACCOUNT, ending=bytes(damaged)))
    server.catch_up()
    with (
        pytest.raises(anthropic.APIStatusError),
        client.messages.stream(model=model, max_tokens=99, messages=HELLO) as stream,
    ):
        stream.until_done()


def test_a_wrong_secret_is_no_fault_of_the_client(live: Portal, server: Server) -> None:
    key = f"{ACCOUNT.key_id}:{'x' * 40}@{bedrock.REGION}"
    model = claude(live, bedrock.saying(ACCOUNT), key)
    refused = server.post(live.token(), ask(model))
    assert refused.status_code == 502 and ACCOUNT.key_id not in refused.text
    assert ACCOUNT.refused[-1] == "InvalidSignatureException"


def test_the_words_of_a_refused_request_reach_the_client(
    client: anthropic.Anthropic, live: Portal, server: Server
) -> None:
    text = "Input is too long for requested model."
    model = claude(live, bedrock.refusing(400, "ValidationException", text))
    server.catch_up()
    with pytest.raises(anthropic.BadRequestError, match=text):
        client.messages.create(model=model, max_tokens=99, messages=HELLO)


# -- the admin ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_channel_is_tested(live: Portal, kind: str, streamed: bool) -> None:
    channel = channel_at(live, KEYS[kind])
    name = f"us.anthropic.{live.name('claude')}-v1:0"
    live.upstream.script(name, bedrock.saying(ACCOUNT))
    result = probe_channel(channel, channel.keys.get(), name, streamed)
    assert result.ok and (result.first_token_ms is not None) == streamed, result.message


def test_a_test_tells_why_a_key_is_refused(live: Portal) -> None:
    channel = channel_at(live, "ABSKthis-is-another-key")
    live.upstream.script("anthropic.x", bedrock.saying(ACCOUNT))
    result = probe_channel(channel, channel.keys.get(), "anthropic.x")
    assert not result.ok and result.failure is not None and result.failure.kind is FailureClass.KEY_DEAD
    assert "make sure your API Key is valid" in result.message


@pytest.mark.parametrize("kind", KEYS)
def test_profiles_are_fetched_though_the_list_of_models_may_not_be(live: Portal, kind: str) -> None:
    channel = channel_at(live, KEYS[kind])
    names = ("us.anthropic.claude-x-v1:0", "global.anthropic.claude-y", "us.meta.llama-z-v1:0")
    live.upstream.script("", bedrock.listing(ACCOUNT, *names))
    try:
        listed = fetch_models(channel, channel.keys.get())
    finally:
        del live.upstream.scripts[""]
    assert listed.names == tuple(sorted(names)) and not listed.error


@pytest.mark.parametrize(
    ("base_url", "asked"),
    [
        (
            "https://bedrock-runtime.eu-west-1.amazonaws.com",
            "https://bedrock.eu-west-1.amazonaws.com/inference-profiles?maxResults=1000",
        ),
        (
            "https://bedrock-runtime.evil.example",
            "https://bedrock-runtime.evil.example/inference-profiles?maxResults=1000",
        ),
        ("https://gateway.example.org", "https://gateway.example.org/inference-profiles?maxResults=1000"),
    ],
)
def test_the_list_is_asked_of_no_other_host_but_amazons_own(base_url: str, asked: str) -> None:
    path = VENDORS["bedrock_claude"].models_path
    assert list_address(Channel(provider="bedrock_claude", base_url=base_url), path) == asked


def test_the_address_is_the_bare_host() -> None:
    typed = "bedrock-runtime.us-east-1.amazonaws.com"
    assert complete_base_url(typed, VENDORS["bedrock_claude"]) == f"https://{typed}"


def test_half_an_access_key_is_refused_with_its_form(db: None, staff: Client) -> None:
    channel = Channel.objects.create(
        name="Cloud", provider="bedrock_claude", base_url="https://bedrock-runtime.us-east-1.amazonaws.com"
    )
    page = f"{reverse('admin-setup-step', args=['keys'])}?channel={channel.pk}"
    answer = staff.post(page, {"keys": "AKIAIOSFODNN7EXAMPLE", "channel": channel.pk}).content.decode()
    assert "ACCESS_KEY_ID:SECRET_ACCESS_KEY" in answer and not channel.keys.exists()
    assert staff.post(page, {"keys": KEYS["access key"], "channel": channel.pk}).status_code == 302
    assert channel.keys.get().hint.startswith("AKIA") and ACCOUNT.secret[-4:] not in channel.keys.get().hint
