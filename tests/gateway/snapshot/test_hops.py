"""Requests that come back to a portal through other relays."""

from __future__ import annotations

from typing import Any

import pytest

from relay.gateway.snapshot import hops
from relay.providers.classify import classify
from relay.providers.failures import FailureClass
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import hello

pytestmark = pytest.mark.shared
OTHER, THIRD = "0123456789ab", "ba9876543210"


def test_ids_are_read_from_anything() -> None:
    assert hops.passed(b"") == [] == hops.passed(b"x, y; \xff")
    assert hops.passed(f"{OTHER}, {THIRD}".encode()) == [OTHER, THIRD]
    assert len(hops.passed(", ".join([OTHER] * 50).encode())) == hops.MOST + 1
    assert hops.passed(b" " * 300 + OTHER.encode()) == []


def test_what_comes_back_and_what_goes_too_far_is_refused() -> None:
    own = hops.own_id()
    assert hops.refusal(b"") == "" == hops.refusal(f"{OTHER}, {THIRD}".encode())
    assert "leads in a circle" in hops.refusal(f"{OTHER}, {own}".encode())
    assert hops.refusal(", ".join([OTHER] * hops.MOST).encode()) == ""
    assert "more than 5 relays" in hops.refusal(", ".join([OTHER] * (hops.MOST + 1)).encode())
    assert hops.passed_on(OTHER.encode()) == f"{OTHER}, {own}"


def test_a_channel_that_leads_back_is_said_to(live: Portal, server: Server) -> None:
    """The portal is its own upstream, by the same model."""
    user = live.user(balance=10**9)
    inner = live.token(user)
    channel = live.channel(provider="relay", base_url=f"{server.url}/v1", keys=(inner,))
    model = live.model(channels=[channel], price={"input": 1, "output": 1})
    response = server.post(live.token(user), ask(model))
    assert response.status_code == 508, response.text
    error = response.json()["error"]
    assert error["code"] == "relay_loop" and "leads back to a relay" in error["message"]
    assert response.headers["x-should-retry"] == "false"
    record = live.record(response)
    assert record.cost == 0 and [entry["outcome"] for entry in record.attempt_log] == ["loop"]


def test_another_channel_is_tried_then(live: Portal, server: Server) -> None:
    circle = live.channel(provider="relay", base_url=f"{server.url}/v1", keys=(live.token(),), priority=5)
    spare = live.channel()
    model, token = live.model(channels=[circle, spare]), live.token()
    for _ in range(2):  # nothing cools down: the header may be anybody's
        response = server.post(token, ask(model))
        assert response.status_code == 200 and response.headers["x-relay-channel"] == str(spare.pk)
        assert response.headers["x-relay-attempts"] == "2"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/messages", {"max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/embeddings", {"input": "x"}),
    ],
)
def test_what_has_come_back_is_refused_everywhere(
    live: Portal, server: Server, path: str, body: dict[str, Any]
) -> None:
    model, token = live.model(), live.token()
    sent = server.post(token, ask(model))
    assert sent.status_code == 200
    own = live.upstream.last(model).headers[hops.HEADER]
    response = server.post(token, {"model": model, **body}, path=path, headers={hops.HEADER: f"{OTHER}, {own}"})
    assert response.status_code == 508 and "come back" in response.json()["error"]["message"]
    assert live.upstream.count(model) == 1


def test_only_servers_that_may_be_relays_are_told(live: Portal, server: Server) -> None:
    """The tests' upstream is at another address than the vendor's own, so it may be one."""
    model, token = live.model(hello), live.token()
    server.post(token, ask(model), headers={hops.HEADER: OTHER})
    first, second = live.upstream.last(model).headers[hops.HEADER].split(", ")
    assert first == OTHER and len(second) == 12
    from relay.gateway.snapshot.channels import read_withdrawn
    from relay.models import Channel

    official = Channel.objects.create(name=live.name("official"), provider="openai")
    assert read_withdrawn(official.pk, 0, ()) is not None
    key = official.keys.model(channel=official)
    key.set_secret("sk-upstream-secret-0123456789", official)
    key.save()
    view = read_withdrawn(official.pk, key.pk, ())
    assert view is not None and hops.HEADER not in view.keys[0].headers


@pytest.mark.parametrize(
    ("provider", "address", "told"),
    [
        ("openai", "https://api.openai.com/v1", False),
        ("openai", "https://relay.example.org/v1", True),
        ("relay", "https://relay.example.org/v1", True),
        ("vllm", "https://relay.example.org/v1", True),
        ("llamacpp", "http://127.0.0.1:8080/v1", True),
        ("azure", "https://acme.openai.azure.com/openai/v1", False),
        ("azure", "https://acme.services.ai.azure.com/openai/v1", False),
        ("azure", "https://relay.example.org/openai/v1", True),
        ("bedrock_claude", "https://bedrock-runtime.eu-west-1.amazonaws.com", False),
        ("vertex", "https://aiplatform.googleapis.com/v1/projects/p/locations/global", False),
        ("cloudflare", "https://relay.example.org/v1", True),
    ],
)
def test_every_server_that_may_be_a_relay_is_told(provider: str, address: str, told: bool) -> None:
    """Also at vendors without an address of their own: what a channel of vLLM leads to can be anything."""
    from relay.gateway.snapshot.channels import own_headers
    from relay.models import Channel

    channel = Channel(name="x", provider=provider, base_url=address)
    assert (hops.HEADER in own_headers(channel)) == told


def test_a_channel_of_a_server_of_ones_own_that_leads_back_is_said_to(live: Portal, server: Server) -> None:
    user = live.user(balance=10**9)
    channel = live.channel(provider="vllm", base_url=f"{server.url}/v1", keys=(live.token(user),))
    model = live.model(channels=[channel], price={"input": 1, "output": 1})
    response = server.post(live.token(user), ask(model))
    assert response.status_code == 508 and response.json()["error"]["code"] == "relay_loop", response.text


def test_what_another_relay_says_of_a_circle_concerns_nobody_else() -> None:
    body = b'{"error":{"message":"This request has come back","type":"server_error","code":"relay_loop","param":null}}'
    for provider in ("relay", "openai", "anthropic"):
        failure = classify(508, {}, body, provider)
        assert failure.kind is FailureClass.LOOP and failure.error.http_status == 508
        assert failure.kind.retry and not failure.kind.counted and failure.kind.cooldown == 0
