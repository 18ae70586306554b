"""Parameters that an upstream does not take, as clients meet them."""

from __future__ import annotations

from typing import Any

import pytest

from relay.gateway.record import bounded_names
from tests.endpoints.text.responses_upstream import Upstream
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.sessions import signed_in
from tests.support.upstream import hello


def test_what_was_dropped_is_said_and_what_cannot_be_honoured_refused(live: Portal, server: Server) -> None:
    channel = live.channel(
        parameters={"seed": "drop", "top_k": "drop", "max_tokens": "refuse", "user": "rename:safety_identifier"}
    )
    model, token = live.model(channels=[channel]), live.token()
    response = server.post(token, ask(model, seed=1, top_k=5, user="u", other=True))
    assert response.headers["x-airelays-ignored-parameters"] == "seed,top_k"
    sent = live.upstream.last(model).json
    assert "seed" not in sent and "top_k" not in sent and sent["safety_identifier"] == "u" and sent["other"] is True
    refusal = server.post(token, ask(model, max_tokens=5))
    assert (
        refusal.status_code == 422
        and refusal.json()["error"]["param"] == "max_tokens"
        and refusal.json()["error"]["code"] == "unsupported_parameter"
    )
    assert live.record(refusal).end_reason == "client_error" and live.upstream.count(model) == 1


def test_a_channel_that_takes_the_parameter_is_asked_instead(live: Portal, server: Server) -> None:
    strict, lax = live.channel(priority=5, parameters={"top_k": "refuse"}), live.channel()
    model, token = live.model(channels=[strict, lax]), live.token()
    assert server.post(token, ask(model, top_k=1)).headers["x-relay-channel"] == str(lax.pk)
    assert server.post(token, ask(model)).headers["x-relay-channel"] == str(strict.pk)


def test_rules_hold_for_converted_requests_in_the_clients_words(live: Portal, server: Server) -> None:
    """As a subscription backend wants it: sampling dropped, limits of tokens refused."""
    rules = {"temperature": "drop", "max_output_tokens": "refuse", "metadata": "drop"}
    model, token = live.model(channels=[live.channel(text_api="responses", parameters=rules)]), live.token()
    for field in ("max_tokens", "max_completion_tokens"):
        refusal = server.post(token, ask(model, **{field: 5}))
        assert refusal.status_code == 422 and refusal.json()["error"]["param"] == field
    refusal = server.post(token, {"model": model, "input": "x", "max_output_tokens": 5}, path="/v1/responses")
    assert refusal.status_code == 422 and refusal.json()["error"]["param"] == "max_output_tokens"
    assert live.upstream.count(model) == 0
    other = live.model(
        channels=[
            live.channel(
                text_api="chat",
                parameters={"responses/max_output_tokens": "refuse", "top_p": "drop", "user": "rename:end_user"},
            )
        ]
    )
    refusal = server.post(token, {"model": other, "input": "x", "max_output_tokens": 5}, path="/v1/responses")
    assert refusal.status_code == 422
    answer = server.post(token, {"model": other, "input": "x", "top_p": 0.5, "user": "u"}, path="/v1/responses")
    assert (
        answer.headers["x-airelays-ignored-parameters"] == "top_p" and live.upstream.last(other).json["end_user"] == "u"
    )


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("text_api", ["chat", "responses"])
def test_no_request_names_another_model_than_it_pays_for(
    live: Portal, server: Server, path: str, text_api: str
) -> None:
    script = Upstream() if text_api == "responses" else hello
    model = live.model(script, channels=[live.channel(provider="relay", text_api=text_api)])
    more: dict[str, Any] = {
        "models": ["dear"],
        "fallbacks": ["dear"],
        "route": "fallback",
        "extra_body": {"models": ["dear"]},
    }
    more |= {"safety_model": "dear", "judge_model": "dear"}
    body = ask(model, **more) if "chat" in path else {"model": model, "input": "x", **more}
    answer = server.post(live.token(), body, path=path)
    assert answer.status_code == 200, answer.text
    assert not more.keys() & live.upstream.last(model).json.keys()
    assert set(answer.headers["x-airelays-ignored-parameters"].split(",")) == more.keys()
    for name, value in (
        ("moderation", {"model": "dear"}),
        ("data_sources", [{"parameters": {"embedding_dependency": {"deployment_name": "dear"}}}]),
    ):
        refusal = server.post(live.token(), {**body, name: value}, path=path)
        assert refusal.status_code == 422 and refusal.json()["error"]["param"] == name, refusal.text
    assert live.upstream.count(model) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("text_api", ["chat", "responses"])
def test_what_was_dropped_is_on_the_record_and_its_receipts(
    live: Portal, server: Server, stream: bool, path: str, text_api: str
) -> None:
    channel = live.channel(text_api=text_api, parameters={"temperature": "drop"})
    script = Upstream() if text_api == "responses" else hello
    user, model = live.user(), live.model(script, channels=[channel])
    body = ask(model, stream=stream, temperature=1)
    if path == "/v1/responses":
        body = {"model": model, "input": "hi", "stream": stream, "temperature": 1, "store": False}
    answer = server.post(live.token(user), body, path=path)
    told = answer.headers["x-airelays-ignored-parameters"].split(",")
    record = live.record(answer)
    assert "temperature" in told and record.ignored_parameters == told
    url = f"/v1/usage/{answer.headers['x-request-id']}"
    assert server.get(live.token(user), url).json()["ignored_parameters"] == told
    staff = live.user(is_staff=True, is_superuser=True)
    for reader, page, status in (
        (user, f"/usage/{record.request_id}/", 200),
        (live.user(), f"/usage/{record.request_id}/", 404),
        (staff, f"/admin/relay/usagerecord/{record.pk}/change/", 200),
    ):
        found = signed_in(reader).get(page)
        assert found.status_code == status and ("<code>temperature</code>" in found.content.decode()) is (status == 200)


@pytest.mark.parametrize("stored", [False, True])
def test_tools_that_an_item_adds_name_no_other_model(live: Portal, server: Server, stored: bool) -> None:
    """Nor do they when they are told again with the next turn."""
    model, token = live.model(Upstream(), channels=[live.channel(text_api="responses")]), live.token()
    tools = [{"type": "image_generation", "model": "gpt-image-dear", "size": "auto"}]
    added = {"type": "additional_tools", "role": "developer", "tools": tools}
    said = {"type": "message", "role": "user", "content": "x"}
    body = {"model": model, "input": [added, said], "store": stored}
    answer = server.post(token, body, path="/v1/responses")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-airelays-ignored-parameters"] == "input[].tools[].model"
    if stored:
        body = {"model": model, "input": "y", "previous_response_id": answer.json()["id"], "store": False}
        assert server.post(token, body, path="/v1/responses").status_code == 200
    sent = live.upstream.last(model)
    assert b"dear" not in sent.body and (stored or b"image_generation" in sent.body)


def test_a_record_keeps_a_bounded_list_of_what_was_dropped() -> None:
    names = bounded_names(["a\x00b", "ab", *(f"name-{number}" for number in range(10_000))])
    assert names[:2] == ["ab", "name-0"] and names[-1] == "..." and len(",".join(names)) < 2100
