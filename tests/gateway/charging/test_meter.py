"""The meter of streams: no upstream delivers much more than what is paid for, whatever limits it ignores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from portal.lib.money import NANO
from tests.support.money import books_balance, settled
from tests.support.portal import Portal, ask
from tests.support.server import NO_CERTIFICATES, Server
from tests.support.upstream import Call, Script, chunk

pytestmark = pytest.mark.shared

PRICE = {"input": 10, "output": 20}  # USD per 1M tokens
TOKEN = 20_000  # nano-USD of output
Event = Callable[[str, int], dict[str, Any]]


def content(text: str, number: int) -> dict[str, Any]:
    return chunk(text)


def second_choice(text: str, number: int) -> dict[str, Any]:
    return {"choices": [{"index": number % 2, "delta": {"content": text}}]}


def thinking(text: str, number: int) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"reasoning_content": text}}]}


def details(text: str, number: int) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"reasoning_details": [{"type": "reasoning.text", "text": text}]}}]}


def arguments(text: str, number: int) -> dict[str, Any]:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": text}}
    return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}


def spoken(text: str, number: int) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"audio": {"id": "a", "transcript": text}}}]}


def sound(text: str, number: int) -> dict[str, Any]:
    """As long as five tokens."""
    return {"choices": [{"index": 0, "delta": {"audio": {"id": "a", "data": "A" * 16_000}}}]}


def response_text(text: str, number: int) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0, "delta": text}


def ignores_limits(event: Event, words: int = 400, usage: dict[str, Any] | None = None, together: int = 1) -> Script:
    """An upstream that sends so many words one by one, and reports usage at the end if it has any.

    It begins when so many requests have arrived `together`.
    """
    arrived: list[Call] = []
    all_here = asyncio.Event()

    async def script(call: Call) -> None:
        arrived.append(call)
        if len(arrived) == together:
            all_here.set()
        await all_here.wait()
        await call.open_stream()
        if event is response_text:
            response = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
            await call.event({"type": "response.created", "response": response})
        for number in range(words):
            await call.event(event("twenty characters.. ", number))
            await asyncio.sleep(0)
        await call.event({**chunk(None, "stop"), **({"usage": usage} if usage else {})})
        await call.event("[DONE]")
        await call.end()

    return script


def streams(server: Server, token: str, path: str, body: dict[str, Any], count: int) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            timeout=60, trust_env=False, verify=NO_CERTIFICATES, headers={"authorization": f"Bearer {token}"}
        ) as client:
            return await asyncio.gather(*(client.post(f"{server.v1}{path}", json=body) for _ in range(count)))

    server.catch_up()
    return asyncio.run(run())


def delivered(response: httpx.Response) -> int:
    return response.text.count("twenty characters.. ")


@pytest.mark.parametrize("event", [content, second_choice, thinking, details, arguments, spoken, sound])
def test_a_stream_past_its_own_limit_is_cut_when_the_money_is_spent(live: Portal, server: Server, event: Event) -> None:
    """Five at once on 0.0024 USD, each with a limit of one token (ollama #7125, llama.cpp #13700 ignore it)."""
    user = live.user(balance=2_400_000)
    model, token = live.model(ignores_limits(event, together=5), price=PRICE), live.token(user)
    choices = {"n": 2} if event is second_choice else {}
    body = ask(model, stream=True, max_completion_tokens=1, **choices)
    total = 0
    for response in streams(server, token, "/chat/completions", body, 5):
        assert response.status_code == 200 and "[DONE]" not in response.text
        error = json.loads(response.text.strip().rsplit("data: ", 1)[1])["error"]
        assert error["code"] == "insufficient_quota" and "cut off" in error["message"]
        record = live.record(response)
        assert (record.end_reason, record.billing, record.usage_source) == ("ended", "delivered", "estimated")
        assert record.shortfall <= 5 * TOKEN * 2, "what one chunk, or two that arrived together, cost"
        total += record.cost
    assert total <= 2_400_000 + 5 * 5 * TOKEN * 2
    assert settled(user).balance >= 0
    books_balance()


def test_text_is_metered_at_its_own_price_where_speech_is_dearer(live: Portal, server: Server) -> None:
    user = live.user(balance=2_400_000)
    model = live.model(ignores_limits(content), price={**PRICE, "audio_input": 100, "audio_output": 200})
    body = ask(model, stream=True, max_completion_tokens=1)
    (response,) = streams(server, live.token(user), "/chat/completions", body, 1)
    error = json.loads(response.text.strip().rsplit("data: ", 1)[1])["error"]
    assert error["code"] == "insufficient_quota" and "does not cover any more" in error["message"]
    record = live.record(response)
    assert record.cost >= 2_000_000 and record.shortfall <= 2 * 5 * TOKEN and settled(user).balance < 400_000
    books_balance()


@pytest.mark.parametrize(
    ("api", "path", "event"),
    [
        ("chat", "/chat/completions", content),
        ("chat", "/responses", content),
        ("responses", "/chat/completions", response_text),
        ("responses", "/responses", response_text),
    ],
)
@pytest.mark.parametrize("limited", [True, False])
def test_limit_and_clamp_are_metered_on_every_way(
    live: Portal, server: Server, api: str, path: str, event: Event, limited: bool
) -> None:
    user = live.user(balance=1_100_000)
    model, token = live.model(ignores_limits(event), price=PRICE, text_api=api), live.token(user)
    body: dict[str, Any] = {"model": model, "stream": True}
    if path == "/responses":
        body |= {"input": "Say hello."} | ({"max_output_tokens": 16} if limited else {})
    else:
        body |= ask(model) | ({"max_tokens": 16} if limited else {})
    (response,) = streams(server, token, path, body, 1)
    assert "insufficient_quota" in response.text and 5 <= delivered(response) <= 20
    record = live.record(response)
    assert record.shortfall <= 2 * 5 * TOKEN and record.end_reason == "ended"
    settled(user)
    books_balance()


def test_what_arrives_in_one_piece_is_not_delivered_in_one_piece(live: Portal, server: Server) -> None:
    """An upstream that sends everything at once gets no further than one that sends word by word."""

    async def burst(call: Call) -> None:
        await call.open_stream()
        await call.send(
            b"".join(b"data: " + json.dumps(chunk("twenty characters.. ")).encode() + b"\n\n" for _ in range(400))
        )
        await call.event("[DONE]")
        await call.end()

    user = live.user(balance=1_100_000)
    model, token = live.model(burst, price=PRICE), live.token(user)
    (response,) = streams(server, token, "/chat/completions", ask(model, stream=True, max_tokens=1), 1)
    assert "insufficient_quota" in response.text and delivered(response) <= 30
    assert live.record(response).shortfall <= 20 * 5 * TOKEN
    settled(user)
    books_balance()


@pytest.mark.parametrize("tokens", [50, 51, None])
def test_an_answer_that_keeps_to_its_limit_is_not_cut_by_an_estimate(
    live: Portal, server: Server, tokens: int | None
) -> None:
    """Its text is estimated at 75 tokens. What is beyond the 50 that are paid for waits for the usage."""
    usage = {"prompt_tokens": 9, "completion_tokens": tokens} if tokens else None

    def six_letters(text: str, number: int) -> dict[str, Any]:
        return chunk("lettrs")

    token = live.token(live.user(balance=NANO))
    short = live.record(server.post(token, ask(live.model(price=PRICE), stream=True, max_tokens=50)))
    exact = live.user(balance=short.reserved)
    model = live.model(ignores_limits(six_letters, 50, usage), price=PRICE)
    (response,) = streams(server, live.token(exact), "/chat/completions", ask(model, stream=True, max_tokens=50), 1)
    record = live.record(response)
    if tokens == 50:
        assert response.text.endswith("data: [DONE]\n\n") and response.text.count("lettrs") == 50
        assert (record.end_reason, record.usage_source, record.output_tokens) == ("completed", "reported", 50)
    else:
        assert "insufficient_quota" in response.text and response.text.count("lettrs") in {33, 34}
        assert record.end_reason == "ended"
    assert record.shortfall <= 2 * TOKEN
    settled(exact)
    books_balance()


def test_a_stream_past_its_limit_goes_on_while_there_is_money(live: Portal, server: Server) -> None:
    """As one without a limit does: its reservation grows, and it costs what it used."""
    usage = {"prompt_tokens": 13, "completion_tokens": 2000, "total_tokens": 2013}
    user = live.user(balance=NANO)
    model, token = live.model(ignores_limits(content, usage=usage), price=PRICE), live.token(user)
    (response,) = streams(server, token, "/chat/completions", ask(model, stream=True, max_tokens=1), 1)
    assert response.text.endswith("data: [DONE]\n\n") and delivered(response) == 400
    record = live.record(response)
    assert (record.cost, record.shortfall, record.usage_source) == (13 * 10_000 + 2000 * TOKEN, 0, "reported")
    assert record.reserved > 1900 * TOKEN
    assert settled(user).used == record.cost
    books_balance()


def test_a_limit_that_is_kept_costs_no_further_reservation(live: Portal, server: Server) -> None:
    usage = {"prompt_tokens": 13, "completion_tokens": 100, "total_tokens": 113}
    user = live.user(balance=NANO)
    model, token = live.model(ignores_limits(content, 20, usage), price=PRICE), live.token(user)
    (response,) = streams(server, token, "/chat/completions", ask(model, stream=True, max_tokens=100), 1)
    assert response.text.endswith("data: [DONE]\n\n")
    record = live.record(response)
    assert record.reserved < 200 * TOKEN and record.cost == 13 * 10_000 + 100 * TOKEN
    settled(user)
    books_balance()
