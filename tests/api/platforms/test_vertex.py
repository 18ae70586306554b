"""Channels at Google Cloud's Vertex AI: Gemini and Claude with the key of a service account."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import pytest
from django.test import Client
from django.urls import reverse
from google import genai
from google.auth.transport.requests import Request
from google.genai import types
from google.oauth2 import credentials, service_account

from relay.channels.probe import fetch_models, probe_channel
from relay.models import ApiKey, Channel
from relay.providers.failures import FailureClass
from tests.api.gemini.clients import HELLO as CONTENTS
from tests.api.gemini.clients import ask as ask_gemini
from tests.api.platforms.vertex_channels import channel_at
from tests.support.asserts import until
from tests.support.peers import gemini, messages
from tests.support.peers.clouds import vertex
from tests.support.peers.clouds.google_tokens import TokenEndpoint
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Upstream

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def fresh(tokens: TokenEndpoint) -> Iterator[TokenEndpoint]:
    """The endpoint, which is as it was once a test has changed what it says."""
    yield tokens
    tokens.answer, tokens.seconds = None, 3599
    tokens.go.set()


# -- the mock ----------------------------------------------------------------------------------------------------------


def test_the_token_endpoint_is_asked_by_googles_library_as_the_real_one_is(tokens: TokenEndpoint) -> None:
    account = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
        json.loads(tokens.file()), scopes=["https://www.googleapis.com/auth/cloud-platform"]
    )
    account.refresh(Request())
    assert account.token == tokens.issued[-1]


def test_the_mock_of_gemini_is_read_by_the_sdk_as_the_real_api_is(tokens: TokenEndpoint, upstream: Upstream) -> None:
    upstream.script("gemini-3-direct", vertex.gemini_saying(tokens, gemini.THOUGHT, gemini.TEXT, gemini.CALL))
    tokens.valid.add("ya29.direct")
    options = types.HttpOptions(base_url=upstream.base_url.removesuffix("/v1"), api_version="v1", timeout=20_000)
    token: Any = credentials.Credentials(token="ya29.direct")  # type: ignore[no-untyped-call]
    with genai.Client(
        vertexai=True, project="sample-project", location="us-central1", credentials=token, http_options=options
    ) as sdk:
        plain = sdk.models.generate_content(model="gemini-3-direct", contents="Say hello.")
        streamed = list(sdk.models.generate_content_stream(model="gemini-3-direct", contents="Say hello."))
        counted = sdk.models.count_tokens(
            model="gemini-3-direct",
            contents="Say hello.",
            config=types.CountTokensConfig(system_instruction="Be brief."),
        )
    assert plain.text == "Hello there." and plain.function_calls and plain.function_calls[0].args == {"city": "Paris"}
    assert "".join(one.text or "" for one in streamed) == "Hello there."
    assert streamed[-1].usage_metadata and streamed[-1].usage_metadata.total_token_count == 16
    assert counted.total_tokens == 77


def test_the_mock_of_claude_is_read_by_the_sdk_as_the_real_api_is(tokens: TokenEndpoint, upstream: Upstream) -> None:
    script = vertex.claude_saying(tokens, messages.THINKING, messages.TEXT, messages.TOOL, stop="tool_use")
    upstream.script("claude-direct@20260101", script)
    upstream.script("count-tokens", script)
    tokens.valid.add("ya29.direct")
    with anthropic.AnthropicVertex(
        region="us-central1",
        project_id="sample-project",
        access_token="ya29.direct",
        base_url=upstream.base_url,
        max_retries=0,
        timeout=20,
    ) as sdk:
        plain = sdk.messages.create(model="claude-direct@20260101", max_tokens=99, messages=HELLO)
        with sdk.messages.stream(model="claude-direct@20260101", max_tokens=99, messages=HELLO) as stream:
            streamed = stream.get_final_message()
        counted = sdk.messages.count_tokens(model="claude-direct@20260101", messages=HELLO)
    assert [block.type for block in plain.content] == ["thinking", "text", "tool_use"]
    assert streamed.to_dict()["content"] == plain.to_dict()["content"] and counted.input_tokens == 77


# -- requests ----------------------------------------------------------------------------------------------------------


def test_gemini_is_asked_with_a_token_of_the_account(live: Portal, cloud: Server, tokens: TokenEndpoint) -> None:
    channel = channel_at(live, tokens)
    model = live.model(
        vertex.gemini_saying(tokens, gemini.THOUGHT, gemini.TEXT), channels=[channel], upstream_name="gemini-3-up"
    )
    token = live.token()
    cloud.catch_up()
    answer = ask_gemini(cloud, model, token)
    assert answer.status_code == 200, answer.text
    sent = live.upstream.last("gemini-3-up")
    assert sent.path == f"/v1/{vertex.PLACE}/publishers/google/models/gemini-3-up:generateContent"
    assert sent.headers["authorization"] == f"Bearer {tokens.issued[-1]}" and "x-goog-api-key" not in sent.headers
    assert "PRIVATE KEY" not in str(sent.headers) + sent.body.decode()
    record = live.record(answer)
    assert (record.input_tokens, record.cached_input_tokens, record.output_tokens) == (9, 4, 7)
    assert (record.reasoning_tokens, record.usage_source) == (3, "reported")
    streamed = ask_gemini(cloud, model, token, method="streamGenerateContent?alt=sse")
    assert streamed.text.count("data: ") > 2 and "Hello" in streamed.text
    assert live.upstream.last("gemini-3-up").path.endswith(":streamGenerateContent?alt=sse")
    assert live.upstream.last("gemini-3-up").headers["authorization"] == sent.headers["authorization"], "is kept"


def test_a_request_that_is_counted_has_the_form_of_the_cloud(
    live: Portal, cloud: Server, tokens: TokenEndpoint
) -> None:
    channel = channel_at(live, tokens)
    model = live.model(vertex.gemini_saying(tokens), channels=[channel], upstream_name="gemini-3-counted")
    token = live.token()
    cloud.catch_up()
    whole = {"generateContentRequest": {"model": f"models/{model}", **CONTENTS, "toolConfig": {}}}
    answer = ask_gemini(cloud, model, token, whole, method="countTokens")
    assert answer.status_code == 200 and answer.json()["totalTokens"] == 77, answer.text
    assert live.upstream.last("gemini-3-counted").json == CONTENTS


@pytest.mark.parametrize("streamed", [False, True])
def test_claude_is_asked_with_the_model_in_the_address(
    live: Portal, cloud: Server, tokens: TokenEndpoint, streamed: bool
) -> None:
    script = vertex.claude_saying(tokens, messages.THINKING, messages.TEXT, messages.TOOL, stop="tool_use")
    channel = channel_at(live, tokens, "vertex_claude")
    model = live.model(script, channels=[channel], upstream_name=f"claude-up@{live.name('v')}")
    name = channel.served.get().upstream_name
    live.upstream.script(name, script)
    token = live.token()
    cloud.catch_up()
    with anthropic.Anthropic(base_url=cloud.url, api_key=token, max_retries=0, timeout=20) as sdk:
        options: Any = {"model": model, "max_tokens": 99, "messages": HELLO, "extra_headers": {"anthropic-beta": "b-1"}}
        if streamed:
            with sdk.beta.messages.stream(**options) as stream:
                found, request_id = stream.get_final_message(), stream.response.headers["x-request-id"]
        else:
            raw = sdk.beta.messages.with_raw_response.create(**options)
            found, request_id = raw.parse(), raw.headers["x-request-id"]
    assert [block.type for block in found.content] == ["thinking", "text", "tool_use"]
    sent = live.upstream.last(name)
    method = "streamRawPredict" if streamed else "rawPredict"
    assert sent.path == f"/v1/{vertex.PLACE}/publishers/anthropic/models/{name}:{method}"
    assert sent.json["anthropic_version"] == "vertex-2023-10-16" and "model" not in sent.json
    assert sent.headers["anthropic-beta"] == "b-1" and sent.headers["authorization"].startswith("Bearer ya29.")
    record = live.record(request_id)
    assert (record.input_tokens, record.cached_input_tokens, record.cache_write_tokens) == (19, 4, 6)
    assert (record.output_tokens, record.reasoning_tokens, record.usage_source) == (7, 3, "reported")


def test_tokens_of_claude_are_counted_there(live: Portal, cloud: Server, tokens: TokenEndpoint) -> None:
    script = vertex.claude_saying(tokens)
    channel = channel_at(live, tokens, "vertex_claude")
    model = live.model(script, channels=[channel])
    live.upstream.script("count-tokens", script)
    token = live.token()
    cloud.catch_up()
    with anthropic.Anthropic(base_url=cloud.url, api_key=token, max_retries=0, timeout=20) as sdk:
        assert sdk.messages.count_tokens(model=model, messages=HELLO).input_tokens == 77
    assert live.upstream.last("count-tokens").json["model"] == model


@pytest.mark.parametrize("provider", ["vertex", "vertex_claude"])
@pytest.mark.parametrize("streamed", [False, True])
def test_clients_of_chat_completions_are_served_by_conversion(
    live: Portal, cloud: Server, tokens: TokenEndpoint, provider: str, streamed: bool
) -> None:
    say = vertex.gemini_saying(tokens) if provider == "vertex" else vertex.claude_saying(tokens)
    model = live.model(say, channels=[channel_at(live, tokens, provider)])
    token = live.token()
    cloud.catch_up()
    answer = cloud.post(token, ask(model, stream=streamed))
    assert answer.status_code == 200, answer.text
    if streamed:
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
        assert "".join(delta.get("content") or "" for delta in deltas) == "Hello there."
    else:
        assert answer.json()["choices"][0]["message"]["content"] == "Hello there."
    assert live.record(answer).output_tokens == 7


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_requests_that_wait_for_a_token_share_one(live: Portal, cloud: Server, fresh: TokenEndpoint) -> None:
    model = live.model(vertex.gemini_saying(fresh), channels=[channel_at(live, fresh)])
    token, before = live.token(), len(fresh.issued)
    fresh.go.clear()
    cloud.catch_up()
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(ask_gemini, cloud, model, token) for _ in range(8)]
        threading.Timer(1.0, fresh.go.set).start()
        assert [one.result().status_code for one in running] == [200] * 8
    assert len(fresh.issued) - before == 1


def test_a_token_that_ends_is_followed_by_another(live: Portal, cloud: Server, fresh: TokenEndpoint) -> None:
    model = live.model(vertex.gemini_saying(fresh), channels=[channel_at(live, fresh)])
    token, before = live.token(), len(fresh.issued)
    fresh.seconds = 31  # a second of which it is used
    cloud.catch_up()
    assert ask_gemini(cloud, model, token).status_code == 200
    fresh.seconds = 3599
    until(lambda: ask_gemini(cloud, model, token).status_code == 200 and len(fresh.issued) - before == 2)
    used = {call.headers["authorization"] for call in live.upstream.calls if call.body and call.model == model}
    assert used <= {f"Bearer {one}" for one in fresh.issued[before:]}


def test_a_token_that_the_cloud_no_longer_accepts_is_the_end_of_it_only_once(
    live: Portal, cloud: Server, fresh: TokenEndpoint
) -> None:
    """A young one that is refused means the account; nobody asks for others without end."""
    model = live.model(vertex.gemini_saying(fresh), channels=[channel_at(live, fresh)])
    token = live.token()
    cloud.catch_up()
    assert ask_gemini(cloud, model, token).status_code == 200
    fresh.valid.clear()
    before = len(fresh.issued)
    refused = ask_gemini(cloud, model, token)
    assert refused.status_code == 502 and refused.json()["error"]["status"], refused.text
    assert len(fresh.issued) == before and "ya29" not in refused.text


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        ((400, b'{"error":"invalid_grant","error_description":"Invalid JWT Signature."}'), 502, "key_dead"),
        (
            (400, b'{"error":"invalid_grant","error_description":"Invalid JWT: Token must be a short-lived token"}'),
            502,
            "config",
        ),
        ((503, b"<html>Unavailable</html>"), 502, "transient"),
        ((200, b'{"id_token":"x"}'), 502, "transient"),
        ((200, b'{"access_token":"two words"}'), 502, "transient"),
    ],
)
def test_why_there_is_no_token_is_told_to_staff_only(
    live: Portal, cloud: Server, fresh: TokenEndpoint, answer: tuple[int, bytes], status: int, kind: str
) -> None:
    channel = channel_at(live, fresh)
    model = live.model(vertex.gemini_saying(fresh), channels=[channel])
    token = live.token()
    fresh.answer = answer
    cloud.catch_up()
    refused = ask_gemini(cloud, model, token)
    assert refused.status_code == status and "JWT" not in refused.text, refused.text
    assert [one["outcome"] for one in live.record(refused).attempt_log] == [kind]
    assert live.upstream.count(model) == 0, "nothing was sent without a token"


def test_a_key_is_shown_to_no_other_host_than_googles(live: Portal, server: Server, tokens: TokenEndpoint) -> None:
    """The suite's server has no setting that names the endpoint."""
    model = live.model(vertex.gemini_saying(tokens), channels=[channel_at(live, tokens)])
    token, before = live.token(), len(tokens.claims)
    server.catch_up()
    refused = ask_gemini(server, model, token)
    assert refused.status_code == 503 and len(tokens.claims) == before
    assert "token_uri of this service account is not Google's" in server.log.read_text()
    assert "PRIVATE KEY" not in server.log.read_text()


# -- the admin ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def trusted(settings: Any, tokens: TokenEndpoint) -> TokenEndpoint:
    settings.CONFIG = settings.CONFIG.model_copy(update={"google_token_uris": [tokens.url]})
    return tokens


@pytest.mark.parametrize("provider", ["vertex", "vertex_claude"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_channel_is_tested(live: Portal, trusted: TokenEndpoint, provider: str, streamed: bool) -> None:
    channel = channel_at(live, trusted, provider)
    say = vertex.gemini_saying(trusted) if provider == "vertex" else vertex.claude_saying(trusted)
    result = probe_channel(channel, channel.keys.get(), live.model(say, channels=[channel]), streamed)
    assert result.ok and (result.first_token_ms is not None) == streamed, result.message


def test_a_test_tells_why_there_is_no_token(live: Portal, trusted: TokenEndpoint) -> None:
    channel = channel_at(live, trusted, client_email="gone@sample-project.iam.gserviceaccount.com")
    result = probe_channel(channel, channel.keys.get(), "gemini-x")
    assert not result.ok and result.failure is not None and result.failure.kind is FailureClass.KEY_DEAD
    assert "Invalid grant: account not found" in result.message


@pytest.mark.parametrize(("provider", "publisher"), [("vertex", "google"), ("vertex_claude", "anthropic")])
def test_models_are_fetched(live: Portal, trusted: TokenEndpoint, provider: str, publisher: str) -> None:
    channel = channel_at(live, trusted, provider)
    live.upstream.script("", vertex.listing(trusted, publisher, "model-b", "model-a"))
    try:
        listed = fetch_models(channel, channel.keys.get())
    finally:
        del live.upstream.scripts[""]
    assert listed.names == ("model-a", "model-b") and not listed.error


def keys_page(channel: Channel) -> str:
    return f"{reverse('admin-setup-step', args=['keys'])}?channel={channel.pk}"


def test_a_key_is_pasted_as_the_file_that_it_is(db: None, staff: Client, trusted: TokenEndpoint) -> None:
    channel = Channel.objects.create(
        name="Cloud",
        provider="vertex",
        base_url="https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l",
    )
    two = trusted.file() + "\n" + trusted.file(private_key_id="fedcba9876543210fedcba9876543210fedcba98")
    assert staff.post(keys_page(channel), {"keys": two, "channel": channel.pk}).status_code == 302
    keys = list(ApiKey.objects.filter(channel=channel))
    assert len(keys) == 2 and json.loads(keys[0].secret_for(channel)) == json.loads(trusted.file())
    assert keys[0].hint.startswith("0123") and keys[0].hint.endswith("4567"), "the id of the key, as the console has it"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "authorized_user"}, "must be service_account"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, "no RSA key in PEM form"),
        ({"token_uri": "https://evil.example/token"}, "is not Google&#x27;s"),
        ({"token_uri": "https://oauth2.googleapis.com.evil.example/token"}, "is not Google&#x27;s"),
        ({"token_uri": "http://oauth2.googleapis.com/token"}, "is not Google&#x27;s"),
        (None, "the JSON file of a service account"),
    ],
)
def test_what_is_no_key_of_an_account_is_refused_with_a_reason(
    db: None, staff: Client, trusted: TokenEndpoint, change: dict[str, Any] | None, said: str
) -> None:
    channel = Channel.objects.create(
        name="Cloud",
        provider="vertex",
        base_url="https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l",
    )
    text = "AIzaSyExample" if change is None else trusted.file(**change)
    page = staff.post(keys_page(channel), {"keys": text, "channel": channel.pk})
    assert said in page.content.decode() and not channel.keys.exists()


def test_an_address_without_project_and_region_is_refused(db: None, staff: Client) -> None:
    guide = reverse("admin-setup-step", args=["channel"])
    form = {"provider": "vertex", "name": "Ours", "base_url": "us-central1-aiplatform.googleapis.com"}
    page = staff.post(guide, form).content.decode()
    assert "says more than the host" in page and not Channel.objects.filter(name="Ours").exists()
