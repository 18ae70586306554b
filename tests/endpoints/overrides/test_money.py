"""Overrides and money: what is held for is what is sent."""

from __future__ import annotations

from typing import Any

import pytest

from portal.lib.money import NANO
from tests.support.money import books_balance, settled
from tests.support.peers import messages
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, completion

PRICE = {"input": 0, "output": 1000}  # USD for a million tokens: a tenth of a cent for each


def setting(path: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"do": "set", "path": path, "value": value, **more}


def reserved(live: Portal, server: Server, token: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> int:
    """The tokens that were held for."""
    response = server.post(token, body, path=path)
    assert response.status_code == 200, response.text
    return int(live.record(response).reserved * 1_000_000 // (1000 * NANO))


@pytest.mark.parametrize(
    ("rules", "body", "held", "sent"),
    [
        ([setting("max_tokens", 500)], {"max_tokens": 5}, 500, {"max_tokens": 500}),
        ([setting("max_tokens", 5)], {"max_tokens": 500}, 5, {"max_tokens": 5}),
        ([{"do": "default", "path": "max_tokens", "value": 50}], {}, 50, {"max_tokens": 50}),
        ([setting("max_completion_tokens", 300)], {"max_tokens": 20}, 300, {"max_completion_tokens": 300}),
        ([{"do": "rename", "path": "max_tokens", "to": "max_new_tokens"}], {"max_tokens": 7}, 7, {"max_new_tokens": 7}),
        ([setting("n", 3), setting("max_tokens", 100)], {}, 300, {"n": 3}),
        ([setting("n", 1)], {"n": 4, "max_tokens": 10}, 10, {"n": 1}),
        ([setting("seed", 1)], {"max_tokens": 10}, 10, {"seed": 1}),
    ],
)
def test_a_raised_limit_is_held_for(
    live: Portal, server: Server, rules: list[Any], body: dict[str, Any], held: int, sent: dict[str, Any]
) -> None:
    model, token = live.model(price=PRICE, overrides=rules), live.token(live.user(balance=1000 * NANO))
    assert reserved(live, server, token, ask(model, **body)) == held
    found = live.upstream.last(model).json
    assert {name: found[name] for name in sent} == sent
    books_balance()


def test_a_removed_limit_is_held_for_as_none(live: Portal, server: Server) -> None:
    model = live.model(price=PRICE, max_output_tokens=700, overrides=[{"do": "remove", "path": "max_tokens"}])
    token = live.token(live.user(balance=1000 * NANO))
    assert reserved(live, server, token, ask(model, max_tokens=5)) == 700
    assert "max_tokens" not in live.upstream.last(model).json


def test_the_dearest_of_all_channels_is_held_for(live: Portal, server: Server) -> None:
    """Which one serves is not known when money is held."""
    plain, raising = live.channel(priority=5), live.channel(overrides=[setting("max_tokens", 400)])
    model, token = live.model(channels=[plain, raising], price=PRICE), live.token(live.user(balance=1000 * NANO))
    assert reserved(live, server, token, ask(model, max_tokens=5)) == 400
    assert live.upstream.last(model).json["max_tokens"] == 5


def test_what_cannot_be_paid_is_clamped_whatever_the_rules_say(live: Portal, server: Server) -> None:
    rules = [setting("max_tokens", 5000)]
    model = live.model(price=PRICE, overrides=rules)
    user = live.user(balance=NANO)  # a thousand tokens
    response = server.post(live.token(user), ask(model, max_tokens=5))
    assert response.status_code == 200
    assert 0 < live.upstream.last(model).json["max_tokens"] <= 1000
    assert settled(user).used <= NANO
    renaming = live.model(price=PRICE, overrides=[{"do": "rename", "path": "max_tokens", "to": "max_new_tokens"}])
    server.post(live.token(live.user(balance=NANO)), ask(renaming, max_tokens=5000))
    sent = live.upstream.last(renaming).json
    assert sent["max_new_tokens"] <= 1000 and "max_tokens" not in sent
    removing = live.model(price=PRICE, overrides=[{"do": "remove", "path": "max_tokens"}])
    server.post(live.token(live.user(balance=NANO)), ask(removing, max_tokens=5))
    sent = live.upstream.last(removing).json
    assert min(sent.get("max_tokens", 10**9), sent.get("max_completion_tokens", 10**9)) <= 1000
    books_balance()


def test_converted_requests_are_held_for_and_clamped_too(live: Portal, server: Server) -> None:
    script = messages.saying({"type": "text", "text": "Hello."})
    rules = [setting("max_tokens", 900)]
    model = live.model(script, provider="anthropic", price=PRICE, overrides=rules)
    rich = live.token(live.user(balance=1000 * NANO))
    assert reserved(live, server, rich, ask(model, max_tokens=5)) == 900
    assert live.upstream.last(model).json["max_tokens"] == 900
    body = {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    assert reserved(live, server, rich, body, "/v1/messages") == 900
    assert live.upstream.last(model).json["max_tokens"] == 900
    poor = live.token(live.user(balance=NANO // 2))
    assert server.post(poor, ask(model, max_tokens=5)).status_code == 200
    assert live.upstream.last(model).json["max_tokens"] <= 500
    books_balance()


@pytest.mark.parametrize(
    ("rule", "budget", "held"),
    [
        (setting("seed", 1), 5000, 5020),
        (setting("reasoning_effort", "low"), 5000, 5020),
        ({"do": "remove", "path": "temperature"}, 5000, 5020),
        (setting("thinking", {"type": "enabled", "budget_tokens": 3000}), 5000, 3020),
        (setting("seed", 1), 0, 20),
    ],
)
def test_thinking_of_a_converted_request_is_held_for(
    live: Portal, server: Server, rule: dict[str, Any], budget: int, held: int
) -> None:
    """Rules that are about something else change nothing of what is held for what the client lets a model think."""
    thinking = {"type": "enabled", "budget_tokens": budget} if budget else {"type": "disabled"}
    body = {"max_tokens": 20, "messages": [{"role": "user", "content": "x"}], "thinking": thinking}
    token = live.token(live.user(balance=1000 * NANO))
    model = live.model(text_api="chat", price=PRICE, overrides=[rule], max_output_tokens=9000, provider="siliconflow")
    assert reserved(live, server, token, {"model": model, **body}, "/v1/messages") == held


def test_more_pictures_are_held_for_and_charged(live: Portal, server: Server) -> None:
    async def pictures(call: Call) -> None:
        await call.reply(200, {"created": 1, "data": [{"b64_json": "aGk="}] * int(call.json.get("n", 1))})

    price = {"input": 0, "output": 0, "per_image": "0.1"}
    model = live.model(pictures, price=price, overrides=[setting("n", 3)])
    user = live.user(balance=NANO)
    response = server.post(live.token(user), {"model": model, "prompt": "x"}, path="/v1/images/generations")
    assert response.status_code == 200 and len(response.json()["data"]) == 3
    assert live.record(response).cost == 3 * NANO // 10 == live.record(response).reserved
    poor = live.user(balance=NANO // 5)
    refused = server.post(live.token(poor), {"model": model, "prompt": "x"}, path="/v1/images/generations")
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "insufficient_quota"
    assert live.upstream.count(model) == 1
    books_balance()


def test_text_that_a_rule_adds_is_counted(live: Portal, server: Server) -> None:
    """Where an upstream reports no usage, its users pay for what it was sent, also for what the operator adds."""

    async def silent(call: Call) -> None:
        whole = completion()
        whole.pop("usage", None)
        await call.reply(200, whole)

    words = "Answer as the keeper of a lighthouse would. " * 40
    rules = [setting("instructions_of_portal", words)]
    plain, wordy = live.channel(priority=5), live.channel(overrides=rules)
    token = live.token(live.user(balance=1000 * NANO))
    alone = live.model(silent, channels=[plain], price={"input": 10, "output": 10})
    both = live.model(silent, channels=[plain, wordy], price={"input": 10, "output": 10})
    told = live.model(silent, channels=[wordy], price={"input": 10, "output": 10})
    counted = {name: live.record(server.post(token, ask(name))).input_tokens for name in (alone, both, told)}
    assert counted[alone] == counted[both] and counted[told] > counted[alone] + 200
