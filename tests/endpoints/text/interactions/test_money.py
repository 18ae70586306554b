"""What interactions cost, who may ask for them, and how they end: plain, streamed, broken off, left and ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.endpoints.text.interactions.places import COST, PATH, create, model_at, streamed, upstream_of
from tests.support.asserts import check, until
from tests.support.money import books_balance, settled
from tests.support.peers.interactions import USAGE
from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared

PLENTY = 10**10  # nano-USD


@pytest.mark.parametrize("stream", [False, True])
def test_it_costs_what_the_upstream_reports(live: Portal, server: Server, stream: bool) -> None:
    with upstream_of() as (_, upstream):
        model, user = model_at(live, upstream), live.user(balance=PLENTY)
        answer = create(server, live.token(user), {"model": model, "input": "Hi.", "stream": stream})
        record = live.record(answer)
        assert (record.cost, record.billing, record.end_reason) == (COST, "usage", "completed"), answer.text
        assert (record.input_tokens, record.cached_input_tokens) == (11, 4)
        assert (record.output_tokens, record.reasoning_tokens) == (12, 5)
        assert record.endpoint == "interactions" and record.model == model
        settled(user)
        books_balance()


def test_agents_are_models_like_others(live: Portal, server: Server) -> None:
    """By permission and price; also those that a part of the request names."""
    with upstream_of() as (peer, upstream):
        agent, closed = model_at(live, upstream), model_at(live, upstream, is_open=False)
        token = live.token()
        answer = create(server, token, {"agent": agent, "input": "Hi."})
        assert live.record(answer).cost == COST and live.record(answer).model == agent
        for body, param in (
            ({"agent": closed, "input": "Hi."}, "model"),
            ({"model": closed, "input": "Hi."}, "model"),
            ({"agent": agent, "input": "Hi.", "agent_config": {"type": "antigravity", "model": closed}}, "model"),
            ({"agent": agent, "input": "Hi.", "tools": [{"type": "any", "model": closed}]}, "model"),
        ):
            for more in ({}, {"stream": True}, {"background": True}):
                check(create(server, token, {**body, **more}), 403, "permission_error", "model_not_allowed", param)
        unknown = create(server, token, {"agent": "never-heard-of", "input": "Hi."})
        assert unknown.status_code == 404 and unknown.json()["error"]["code"] == "model_not_found"
        assert len(peer.asked) == 1
        named = {"agent": agent, "input": "Hi.", "agent_config": {"type": "antigravity", "model": agent}}
        answer = create(server, token, named)
        assert answer.headers["x-airelays-ignored-parameters"] == "agent_config.model"
        assert peer.asked[-1]["agent_config"] == {"type": "antigravity"}


def test_the_tier_is_left_out_unless_the_channel_sends_it(live: Portal, server: Server) -> None:
    with upstream_of() as (peer, upstream):
        model, token = model_at(live, upstream), live.token()
        answer = create(server, token, {"model": model, "input": "Hi.", "service_tier": "priority"})
        assert answer.headers["x-airelays-ignored-parameters"] == "service_tier" and "service_tier" not in peer.asked[0]


def test_overrides_of_the_channel(live: Portal, server: Server) -> None:
    rules = [
        {"do": "set", "path": "generation_config.temperature", "value": 0.25, "apis": ["interactions"]},
        {"do": "set_header", "header": "x-team", "value": "a"},
    ]
    with upstream_of() as (peer, upstream):
        model = model_at(live, upstream, overrides=rules)
        create(server, live.token(), {"model": model, "input": "Hi."})
        assert peer.asked[0]["generation_config"] == {"temperature": 0.25}
        assert upstream.calls[-1].headers["x-team"] == "a"


def test_a_small_wallet_limits_the_answer(live: Portal, server: Server) -> None:
    with upstream_of() as (peer, upstream):
        model = model_at(live, upstream, price={"input": 1, "output": 1000})
        user = live.user(balance=10**8)
        answer = create(
            server, live.token(user), {"model": model, "input": "Hi.", "generation_config": {"max_output_tokens": 5000}}
        )
        assert answer.status_code == 200
        assert peer.asked[0]["generation_config"]["max_output_tokens"] < 100
        poor = live.token(live.user(balance=1))
        answer = create(server, poor, {"model": model, "input": "Hi."})
        assert answer.status_code == 429 and answer.json()["error"]["code"] == "quota_exceeded"
        assert answer.headers["x-should-retry"] == "false" and len(peer.asked) == 1


def test_errors_in_the_shape_of_the_api(live: Portal, server: Server) -> None:
    import httpx

    from tests.support.server import NO_CERTIFICATES

    for headers, path in (({"x-goog-api-key": "sk-wrong"}, PATH), ({}, f"{PATH}/int_1"), ({}, "/v1/interactions")):
        answer = httpx.post(
            server.url + path, json={"model": "m"}, headers=headers, trust_env=False, verify=NO_CERTIFICATES, timeout=60
        )
        assert answer.status_code in {401, 405} and set(answer.json()["error"]) == {"code", "message", "details"}
    answer = server.post(live.token(), {}, path=f"{PATH}/auth_tokens")
    assert answer.status_code == 404 and answer.json()["error"]["details"][0]["reason"] == "NOT_IMPLEMENTED"
    answer = create(server, live.token(), {"input": "Hi."})
    assert answer.json()["error"]["code"] == "invalid_request" and answer.status_code == 400
    check(answer, 400, "invalid_request_error", "missing_required_parameter", "model")


def test_models_without_the_api_are_refused(live: Portal, server: Server) -> None:
    """Vertex AI and vendors of other APIs."""
    for model in (
        live.model(),
        live.model(
            channels=[
                live.channel(
                    "https://aiplatform.googleapis.com/v1/projects/p/locations/global", keys=(), provider="vertex"
                )
            ]
        ),
    ):
        answer = create(server, live.token(), {"model": model, "input": "Hi."})
        check(answer, 400, "invalid_request_error", "unsupported_endpoint", "model")
        assert "Interactions API" in answer.json()["error"]["message"]


def test_another_channel_answers_before_the_first_event(live: Portal, server: Server) -> None:
    with upstream_of() as (_, one), upstream_of() as (second, two):
        one.peer = _failing  # type: ignore[assignment]
        model, token = model_at(live, one, two), live.token()
        for stream in (False, True):
            answer = create(server, token, {"model": model, "input": "Hi.", "stream": stream})
            assert answer.status_code == 200 and live.record(answer).cost == COST
        assert len(second.asked) == 2


async def _failing(call: Any) -> None:
    await call.reply(503, {"error": {"code": "unavailable", "message": "The model is overloaded."}})


def test_a_stream_that_is_cut_is_told_and_kept_as_far_as_it_came(live: Portal, server: Server) -> None:
    with upstream_of() as (peer, upstream):
        model, user = model_at(live, upstream), live.user(balance=PLENTY)
        token, peer.cut = live.token(user), True
        with streamed(server, token, {"model": model, "input": "Hi."}) as (answer, events):
            told = list(events)
        assert told[-1]["event_type"] == "error" and told[-1]["error"]["details"][0]["reason"] == "UPSTREAM_TRUNCATED"
        record = live.record(answer)
        assert record.end_reason == "truncated" and 0 < record.cost < COST
        kept = server.get(token, f"{PATH}/{told[0]['interaction']['id']}").json()
        assert kept["status"] == "failed" and kept["errors"][0]["code"] == "upstream_truncated" and kept["steps"]
        again = server.get(token, f"{PATH}/{told[0]['interaction']['id']}?stream=true").text
        assert again.count("event: step.delta") == sum(one["event_type"] == "step.delta" for one in told)
        body = {"model": model, "input": "Go on.", "previous_interaction_id": kept["id"]}
        assert create(server, token, body).json()["error"]["details"][0]["reason"] == "PREVIOUS_INTERACTION_NOT_KEPT"
        settled(user)


def test_a_token_that_is_revoked_ends_a_stream(live: Portal, server: Server) -> None:
    from relay.models import Token
    from relay.tokens.lifecycle import revoke_token

    with upstream_of() as (peer, upstream):
        model, user = model_at(live, upstream), live.user(balance=PLENTY)
        token, peer.pause = live.token(user), asyncio.Event()
        with streamed(server, token, {"model": model, "input": "Hi."}) as (_, events):
            next(events)
            for row in Token.objects.filter(user=user):
                revoke_token(row, actor=user)
            told = until(lambda: next(events, None))
            while told["event_type"] != "error":
                told = next(events)
        assert told["error"]["code"] == "permission_denied"
        upstream.set(peer.pause)


def test_the_upstreams_words_about_its_account_are_masked(live: Portal, server: Server) -> None:
    secret = "AIzaSyA1234567890abcdefghijklmnopqrstuv"

    async def dirty(call: Any) -> None:
        text = f"Bad value at http://10.1.2.3:8000/internal with key {secret}."
        await call.reply(400, {"error": {"code": "invalid_request", "message": text, "more": 1}})

    with upstream_of() as (_, upstream):
        upstream.peer = dirty  # type: ignore[assignment]
        model = model_at(live, upstream, keys=(secret,))
        answer = create(server, live.token(), {"model": model, "input": "Hi."})
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_request"
        assert secret not in answer.text and "10.1.2.3" not in answer.text


def test_usage_that_cannot_be_true_credits_nobody(live: Portal, server: Server) -> None:
    with upstream_of() as (peer, upstream):
        model = model_at(live, upstream)
        peer.usage = {**USAGE, "total_output_tokens": -5, "total_input_tokens": 10**12}
        record = live.record(create(server, live.token(), {"model": model, "input": "Hi."}))
        assert record.usage_source == "estimated" and 0 < record.cost < PLENTY
