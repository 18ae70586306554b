"""What becomes of parameters that an upstream does not take."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from relay.providers.parameters import PARAMETERS, apply, check_policy, policy_of, refused
from relay.providers.vendors import PROVIDERS
from tests.conftest import Portal, ask
from tests.support.server import Server


def fields(**values: Any) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


def shown(found: dict[str, msgspec.Raw]) -> dict[str, Any]:
    return {name: msgspec.json.decode(raw) for name, raw in found.items()}


def test_every_row_is_of_a_known_vendor_and_well_formed() -> None:
    for provider, rules in PARAMETERS.items():
        assert provider in PROVIDERS and check_policy(dict(rules)) == ""


def test_dropped_renamed_and_reached_into() -> None:
    policy = {"seed": "rename:random_seed", "user": "drop", "store": "drop", "messages[].name": "drop", "tools[].function.strict": "drop"}
    messages = [{"role": "user", "name": "bob", "content": "x"}]
    out, dropped = apply(policy, fields(seed=1, user="u", store=False, messages=messages, tools=[{"function": {"name": "f", "strict": True}}], keep=None))
    assert shown(out) == {"random_seed": 1, "messages": [{"role": "user", "content": "x"}], "tools": [{"function": {"name": "f"}}], "keep": None}
    assert dropped == ["user", "store", "messages[].name", "tools[].function.strict"]
    out, dropped = apply(policy, fields(user=None, store=[]))
    assert shown(out) == {} and dropped == []
    assert shown(apply({}, fields(a=None, b=1), strip_nulls=True)[0]) == {"b": 1}


def test_refused_unless_it_means_nothing() -> None:
    policy = {"n": "refuse:1", "logprobs": "refuse:false", "top_k": "refuse"}
    assert refused(policy, fields(n=1, logprobs=False, top_k=None)) == ""
    assert refused(policy, fields(n=2)) == "n" and refused(policy, fields(top_k=0)) == "top_k"
    assert refused({"max_output_tokens": "refuse"}, fields(max_tokens=5), converted=True) == "max_tokens"
    assert refused({"max_output_tokens": "refuse"}, fields(max_tokens=5)) == ""


def test_the_channels_own_rules_stand_before_the_vendors() -> None:
    assert policy_of("mistral", "chat", {"seed": "forward", "chat/user": "refuse", "responses/top_p": "drop"})["user"] == "refuse"
    own = policy_of("mistral", "chat", {"seed": "forward", "chat/user": "refuse", "responses/top_p": "drop"})
    assert "seed" not in own and "top_p" not in own and own["logprobs"] == "refuse:false"


@pytest.mark.parametrize("rules", [[], {"a b": "drop"}, {"seed": "eat"}, {"seed": 1}, {"messages[].name": "refuse"}, {"n": "refuse:{"}])
def test_rules_that_make_no_sense_are_told(rules: object) -> None:
    assert check_policy(rules)


def test_what_was_dropped_is_said_and_what_cannot_be_honoured_refused(live: Portal, server: Server) -> None:
    channel = live.channel(parameters={"seed": "drop", "top_k": "drop", "max_tokens": "refuse", "user": "rename:safety_identifier"})
    model, token = live.model(channels=[channel]), live.token()
    response = server.post(token, ask(model, seed=1, top_k=5, user="u", other=True))
    assert response.headers["x-airelays-ignored-parameters"] == "seed,top_k"
    sent = live.upstream.last(model).json
    assert "seed" not in sent and "top_k" not in sent and sent["safety_identifier"] == "u" and sent["other"] is True
    refusal = server.post(token, ask(model, max_tokens=5))
    assert refusal.status_code == 422 and refusal.json()["error"]["param"] == "max_tokens" and refusal.json()["error"]["code"] == "unsupported_parameter"
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
    other = live.model(channels=[live.channel(text_api="chat", parameters={"responses/max_output_tokens": "refuse", "top_p": "drop", "user": "rename:end_user"})])
    refusal = server.post(token, {"model": other, "input": "x", "max_output_tokens": 5}, path="/v1/responses")
    assert refusal.status_code == 422
    answer = server.post(token, {"model": other, "input": "x", "top_p": 0.5, "user": "u"}, path="/v1/responses")
    assert answer.headers["x-airelays-ignored-parameters"] == "top_p" and live.upstream.last(other).json["end_user"] == "u"
