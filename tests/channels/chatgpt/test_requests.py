"""Requests over a user's own ChatGPT plan."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.asserts import until
from tests.support.peers.plans.chatgpt import ChatGPT
from tests.support.peers.plans.people import SignIn, events_of, respond
from tests.support.portal import Portal, ask
from tests.support.server import Server


@pytest.mark.parametrize("shape", ["siwc", "codex"])
def test_a_response_is_rebuilt_from_its_items(portal: Server, signed_in: SignIn, chatgpt: ChatGPT, shape: str) -> None:
    person = signed_in(shape)
    answer = respond(portal, person.token)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["status"] == "completed" and found["output"][0]["content"][0]["text"] == "Hello Ada."
    assert found["usage"]["input_tokens"] == 9
    sent = chatgpt.seen[-1]
    assert sent["body"]["store"] is False and sent["body"]["stream"] is True
    part = {"type": "input_text", "text": "Hi"}
    assert [item["content"] for item in sent["body"]["input"]] == [[part]]
    assert sent["headers"]["user-agent"].startswith("airelays-portal") and "originator" not in sent["headers"]
    assert ("chatgpt-account-id" in sent["headers"]) is (shape == "codex")
    if shape == "codex":
        assert sent["body"]["instructions"] == "." and sent["body"]["tools"] == []


def test_a_stream_ends_with_the_output_and_tells_no_limits(portal: Server, signed_in: SignIn, live: Portal) -> None:
    person = signed_in()
    answer = respond(portal, person.token, stream=True)
    found = events_of(answer.text)
    assert found[-1]["type"] == "response.completed"
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "Hello Ada."
    assert not any(event["type"].startswith("codex.") for event in found)
    record = live.record(answer)
    assert record.cost == 0 and record.user_id == person.user.pk and record.input_tokens == 9


@pytest.mark.parametrize("shape", ["siwc", "codex"])
@pytest.mark.parametrize("stream", [False, True])
def test_chat_is_answered(portal: Server, signed_in: SignIn, shape: str, stream: bool) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    answer = portal.post(signed_in(shape).token, ask("gpt-5.5", messages=messages, stream=stream))
    assert answer.status_code == 200, answer.text
    if stream:
        pieces = [event["choices"][0]["delta"].get("content") or "" for event in events_of(answer.text)]
        assert "".join(pieces) == "Hello Ada."
    else:
        assert answer.json()["choices"][0]["message"]["content"] == "Hello Ada."


@pytest.mark.parametrize("stream", [False, True])
def test_completions_are_answered(portal: Server, signed_in: SignIn, stream: bool) -> None:
    body = {"model": "gpt-5.5", "prompt": "Hi", "stream": stream}
    answer = portal.post(signed_in().token, body, "/v1/completions")
    assert answer.status_code == 200, answer.text
    if stream:
        found = events_of(answer.text)
        assert "".join(event["choices"][0]["text"] for event in found) == "Hello Ada."
        assert found[-1]["choices"][0]["finish_reason"] == "stop" and answer.text.endswith("data: [DONE]\n\n")
        assert {event["object"] for event in found} == {"text_completion"}
    else:
        found = answer.json()
        assert found["object"] == "text_completion" and found["choices"][0]["text"] == "Hello Ada."
        assert found["usage"]["prompt_tokens"] == 9


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/responses", {"input": "Hi"}, "max_output_tokens"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}, "max_completion_tokens"),
        ("/v1/completions", {"prompt": "Hi"}, "max_tokens"),
    ],
)
def test_limits_of_the_output_are_refused_by_the_names_that_each_route_has_for_them(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT, path: str, body: dict[str, Any], name: str
) -> None:
    answer = portal.post(signed_in().token, {"model": "gpt-5.5", **body, name: 50}, path)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert f"does not currently support `{name}` on `{path}`." in error["message"] and error["param"] == name
    assert chatgpt.seen == []


def test_max_tokens_of_chat_is_left_out_and_named(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    answer = portal.post(signed_in().token, ask("gpt-5.5", max_tokens=50))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-airelays-ignored-parameters"] == "max_tokens"
    assert not {"max_tokens", "max_output_tokens"} & chatgpt.seen[-1]["body"].keys()


def test_sampling_parameters_are_left_out_and_named(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    token, sampling = signed_in("codex").token, {"temperature": 0.5, "top_p": 0.9}
    more = {"presence_penalty": 0.1, "frequency_penalty": 0.2}
    for path, body in (
        ("/v1/chat/completions", ask("gpt-5.5", **sampling, **more)),
        ("/v1/completions", {"model": "gpt-5.5", "prompt": "Hi", **sampling, **more}),
        ("/v1/responses", {"model": "gpt-5.5", "input": "Hi", **sampling}),
    ):
        answer = portal.post(token, body, path)
        assert answer.status_code == 200, answer.text
        named = set(answer.headers["x-airelays-ignored-parameters"].split(","))
        assert named == {name for name in body if name in {**sampling, **more}}
        assert not named & chatgpt.seen[-1]["body"].keys()


def test_windows_of_headers_and_events_reach_the_owner(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    person = signed_in()
    chatgpt.headers = {
        "x-codex-secondary-used-percent": "40", "x-codex-secondary-window-minutes": "10080",
        "x-codex-plan-type": "pro",
    }  # fmt: skip
    answer = respond(portal, person.token)
    assert answer.headers["x-codex-secondary-used-percent"] == "40"
    assert answer.headers["x-codex-plan-type"] == "pro"

    def noted() -> Any:
        person.account.refresh_from_db()
        return person.account.windows

    windows = until(noted)
    assert windows["secondary"] == {"used_percent": 40.0, "minutes": 10080, "label": "weekly"}
    assert person.account.plan == "pro"


def test_windows_of_an_event_are_noted(portal: Server, signed_in: SignIn) -> None:
    person = signed_in()
    assert respond(portal, person.token, stream=True).status_code == 200

    def noted() -> Any:
        person.account.refresh_from_db()
        return person.account.windows

    windows = until(noted)
    assert windows["primary"] == {"used_percent": 12.5, "minutes": 300, "label": "5h", "resets_at": 1_990_000_000}


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_used_up_limit_is_429_with_its_own_reset(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT, path: str, stream: bool
) -> None:
    error = {"type": "usage_limit_reached", "message": "secret words", "plan_type": "plus", "resets_in_seconds": 7200}
    chatgpt.answers["/responses"] = (429, json.dumps({"error": error}).encode())
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "gpt-5.5", "input": "Hi", "messages": messages, "prompt": "Hi", "stream": stream}
    wanted = {"/v1/responses": "input", "/v1/chat/completions": "messages", "/v1/completions": "prompt"}[path]
    body = {name: value for name, value in body.items() if name in {"model", "stream", wanted}}
    answer = portal.post(signed_in().token, body, path)
    assert answer.status_code == 429 and answer.headers["retry-after"] == "7200"
    assert answer.headers["x-should-retry"] == "false" and answer.json()["error"]["code"] == "usage_limit_reached"
    assert "secret words" not in answer.text and len(chatgpt.seen) == 0
    assert chatgpt.count("/responses") == 1, "it is asked once"


def test_no_reset_is_inferred(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    error = {"code": "subscription_sharing_usage_limit_exceeded", "message": "x"}
    chatgpt.answers["/responses"] = (429, json.dumps({"error": error}).encode())
    token = signed_in().token
    for _ in range(2):
        answer = respond(portal, token)
        assert answer.status_code == 429 and "retry-after" not in answer.headers
        assert answer.json()["error"]["code"] == "subscription_sharing_usage_limit_exceeded"
    chatgpt.answers = {}
    assert respond(portal, token).status_code == 200, "nothing was left to cool down"


def test_a_limit_is_never_passed_on_to_a_paid_path(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT, live: Portal
) -> None:
    from relay.models import ChannelModel, Model, ModelPrice

    person = signed_in()
    model = Model.objects.create(name="gpt-5.5", is_open=True)
    try:
        ModelPrice.objects.create(model=model, input=5, output=15)
        ChannelModel.objects.create(channel=live.channel(), model=model)
        chatgpt.answers["/responses"] = (429, b'{"error":{"type":"usage_limit_reached"}}')
        answer = respond(portal, person.token)
        assert answer.status_code == 429 and live.record(answer).cost == 0
        assert live.record(answer).channel_id == person.account.channel_id
    finally:
        model.delete()


def test_an_unknown_model_is_404_with_suggestions(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    answer = respond(portal, signed_in().token, model="gpt-5.4")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"
    assert "gpt-5.4-mini" in answer.json()["error"]["message"] and chatgpt.seen == []


def test_models_are_those_that_are_listed_for_the_version(portal: Server, signed_in: SignIn) -> None:
    person = signed_in("codex")
    listed = {model["id"]: model for model in portal.get(person.token, "/v1/models").json()["data"]}
    own = {"gpt-5.5", "gpt-5.4-mini"}
    assert own <= listed.keys() and not {"gpt-hidden", "gpt-6-new"} & listed.keys()
    assert listed["gpt-5.5"]["context_window"] == 400_000
    assert portal.get(person.token, "/v1/models/gpt-5.5").json()["id"] == "gpt-5.5"


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}}


def test_tools_are_sent_as_an_item_of_the_input(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    """The supported form has functions in namespaces or in such an item; what the vendor runs is beside the input."""
    own = [function("weather"), {"type": "custom", "name": "note"}]
    group = {"type": "namespace", "name": "home", "description": "x", "tools": [function("light")]}
    tools = [own[0], {"type": "web_search"}, group, own[1]]
    person = signed_in()
    assert respond(portal, person.token, tools=tools, instructions="Be kind.").status_code == 200
    sent = chatgpt.seen[-1]["body"]
    assert sent["input"][0] == {"type": "additional_tools", "role": "developer", "tools": own}
    assert sent["tools"] == [{"type": "web_search"}, group] and sent["instructions"] == "Be kind."
    assert respond(portal, person.token, tools=own).status_code == 200 and "tools" not in chatgpt.seen[-1]["body"]
    assert respond(portal, signed_in("codex").token, tools=own).status_code == 200
    assert chatgpt.seen[-1]["body"]["tools"] == own and len(chatgpt.seen[-1]["body"]["input"]) == 1


def test_a_plan_has_compaction_background_responses_and_no_logprobs(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT
) -> None:
    """The limit of a summary is the portal's: nobody is refused for it, or told that it was left out."""
    token = signed_in().token
    trigger = [{"role": "user", "content": "Hi"}, {"type": "compaction_trigger"}]
    for path, body in (("/compact", "Hi"), ("", trigger)):
        answer = portal.post(token, {"model": "gpt-5.5", "input": body}, f"/v1/responses{path}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["output"][-1]["type"] == "compaction"
        assert "x-airelays-ignored-parameters" not in answer.headers
        assert "max_output_tokens" not in chatgpt.seen[-1]["body"]
    made = respond(portal, token, background=True).json()["id"]
    until(lambda: portal.get(token, f"/v1/responses/{made}").json()["status"] not in {"queued", "in_progress"})
    found = portal.get(token, f"/v1/responses/{made}").json()
    assert found["status"] == "completed" and "background" not in chatgpt.seen[-1]["body"], found
    answer = portal.post(token, ask("gpt-5.5", logprobs=True))
    assert answer.status_code == 422 and answer.json()["error"]["param"] == "logprobs"
    assert portal.post(token, ask("gpt-5.5", logprobs=False)).status_code == 200
