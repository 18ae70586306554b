"""Legacy completions are sent the length that the wallet can pay."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.money import books_balance, settled
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call

pytestmark = pytest.mark.shared

WALLET = 10**6  # nano-USD: 50 tokens of output


@pytest.mark.parametrize(
    ("more", "answers"),
    [
        ({"max_tokens": 1000}, 1),
        ({}, 1),
        ({"max_tokens": -1}, 1),
        ({"n_predict": 500}, 1),
        ({"max_completion_tokens": 500}, 1),
        ({"max_completion_tokens": 500, "max_output_tokens": 600, "max_tokens": 400, "min_tokens": 300}, 1),
        ({"max_tokens": 1000, "n": 3}, 3),
        ({"max_tokens": 1000, "best_of": 3}, 3),
        ({"max_tokens": 1000, "n": 2, "best_of": 3, "stream": False}, 3),
        ({"max_tokens": 1000, "prompt": ["a", "b"]}, 2),
        ({"max_tokens": 1000, "prompt": [[1], [2]], "n": 1}, 2),
        ({"max_tokens": 1000, "echo": True}, 1),
        ({"max_tokens": 1000, "stream": True}, 1),
        ({"stream": True, "n": 2}, 2),
    ],
)
def test_the_length_that_can_be_paid_is_sent(live: Portal, server: Server, more: dict[str, Any], answers: int) -> None:
    """An upstream that answers as long as it may, and ends there."""

    async def script(call: Call) -> None:
        tokens = call.json.get("max_tokens", 1000)
        length = tokens if isinstance(tokens, int) and tokens > 0 else 1000
        usage = {"prompt_tokens": 1, "completion_tokens": length * answers}
        choices = [{"text": "word " * length, "index": at, "finish_reason": "length"} for at in range(answers)]
        if not call.json.get("stream"):
            await call.reply(200, {"choices": choices, "usage": usage})
            return
        await call.open_stream()
        await call.event({"choices": choices})
        await call.event({"choices": [], "usage": usage})
        await call.event("[DONE]")
        await call.end()

    model, user = live.model(script, price={"input": 10, "output": 20}), live.user(balance=WALLET)
    response = server.post(live.token(user), {"model": model, "prompt": "a", **more}, path="/v1/completions")
    assert response.status_code == 200, response.text
    body = live.upstream.last(model).json
    sent = body["max_tokens"]
    assert not {"max_completion_tokens", "max_output_tokens", "min_tokens", "n_predict"} & body.keys()
    assert 12 <= sent <= WALLET // 20_000 // answers
    record = live.record(response)
    assert record.output_tokens == sent * answers and record.cost <= WALLET and not record.shortfall
    assert settled(user).balance == WALLET - record.cost
    books_balance()


@pytest.mark.parametrize("prompt", ["a", "word " * 110])
@pytest.mark.parametrize("zero", [{"max_tokens": 0}, {"n_predict": 0}, {"max_tokens": 0, "n": 3}])
def test_nothing_is_written_where_nothing_was_asked_for(
    live: Portal, server: Server, prompt: str, zero: dict[str, int]
) -> None:
    """As it is asked for to have a prompt scored; the longer of the two is more than the wallet by its estimate."""

    async def script(call: Call) -> None:
        length = call.json.get("max_tokens", 1000)
        usage = {"prompt_tokens": 90, "completion_tokens": length}
        text = call.json["prompt"] + "word " * length
        await call.reply(200, {"choices": [{"text": text, "index": 0, "finish_reason": "length"}], "usage": usage})

    model, user = live.model(script, price={"input": 10, "output": 20}), live.user(balance=WALLET)
    body = {"model": model, "prompt": prompt, "echo": True, **zero}
    response = server.post(live.token(user), body, path="/v1/completions")
    assert response.status_code == 200, response.text
    assert live.upstream.last(model).json["max_tokens"] == 0
    record = live.record(response)
    assert record.output_tokens == 0 and 0 < record.cost <= WALLET and not record.shortfall


def test_who_writes_in_spite_of_a_limit_of_nothing_is_asked_again_only_where_that_can_be_paid(
    live: Portal, server: Server
) -> None:
    """Ollama's server reads 0 as no limit."""

    async def script(call: Call) -> None:
        usage = {"prompt_tokens": 1, "completion_tokens": 300}
        choice = {"text": "word " * 300, "index": 0, "finish_reason": "stop"}
        await call.reply(200, {"choices": [choice], "usage": usage})

    model = live.model(script, price={"input": 10, "output": 20}, max_output_tokens=1_000)
    body = {"model": model, "prompt": "a", "max_tokens": 0}
    rich = live.token(live.user(balance=100 * WALLET))
    assert server.post(rich, body, path="/v1/completions").status_code == 200
    poor = server.post(live.token(live.user(balance=WALLET)), body, path="/v1/completions")
    assert poor.status_code == 429 and poor.json()["error"]["code"] == "insufficient_quota"
    assert server.post(rich, body, path="/v1/completions").status_code == 200 and live.upstream.count(model) == 2


def test_what_is_not_limited_is_refused(live: Portal, server: Server) -> None:
    model, token = live.model(price={"input": 10, "output": 20}), live.token(live.user(balance=WALLET // 4))
    body = {"model": model, "prompt": "a", "max_tokens": 1000}
    response = server.post(token, body, path="/v1/completions")
    assert response.status_code == 429 and response.json()["error"]["code"] == "insufficient_quota"
    assert live.upstream.count(model) == 0


@pytest.mark.parametrize("repeats", [True, False])
def test_a_prompt_that_is_repeated_is_no_output(live: Portal, server: Server, repeats: bool) -> None:
    """An upstream may also ignore that it is to repeat it."""
    prompt = "word " * 2000

    async def script(call: Call) -> None:
        text = f"{prompt if repeats else ''}and five more of them"
        usage = {"prompt_tokens": 2000, "completion_tokens": 5}
        report = {} if call.json["max_tokens"] == 7 else {"usage": usage}
        await call.reply(200, {"choices": [{"text": text, "index": 0, "finish_reason": "stop"}], **report})

    model, token = live.model(script, price={"input": 1, "output": 100}), live.token()
    for limit, source in ((50, "reported"), (7, "estimated")):
        body = {"model": model, "prompt": prompt, "max_tokens": limit, "echo": True}
        record = live.record(server.post(token, body, path="/v1/completions"))
        assert (record.usage_source, 5 <= record.output_tokens <= 6) == (source, True)


@pytest.mark.parametrize("pieces", [1, 7, 400])
@pytest.mark.parametrize("repeats", [True, False])
def test_a_prompt_that_a_stream_repeats_is_no_output(live: Portal, server: Server, repeats: bool, pieces: int) -> None:
    """In one chunk as vLLM sends it, also one that is longer than what is held, or in pieces."""
    prompt = "word \u6c34" * 16_000
    size = -(-len(prompt) // pieces)

    async def script(call: Call) -> None:
        await call.open_stream()
        said = [prompt[at : at + size] for at in range(0, len(prompt), size)] if repeats else []
        for text in (*said, " and five more of", " them"):
            await call.event({"choices": [{"text": text, "index": at, "finish_reason": None} for at in range(2)]})
        await call.event({"choices": [{"text": "", "index": at, "finish_reason": "stop"} for at in range(2)]})
        if call.json["max_tokens"] != 7:
            await call.event({"choices": [], "usage": {"prompt_tokens": 40_000, "completion_tokens": 10}})
        await call.event("[DONE]")
        await call.end()

    model, user = live.model(script, price={"input": 1, "output": 100}), live.user(balance=10**9)
    for limit, source in ((50, "reported"), (7, "estimated")):
        body = {"model": model, "prompt": prompt, "max_tokens": limit, "echo": True, "stream": True, "n": 2}
        answer = server.post(live.token(user), body, path="/v1/completions")
        assert answer.status_code == 200 and "error" not in answer.text and answer.text.endswith("data: [DONE]\n\n")
        record = live.record(answer)
        assert (record.usage_source, 10 <= record.output_tokens <= 12) == (source, True), record.output_tokens
