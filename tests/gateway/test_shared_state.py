"""Nobody's request harms another's: whatever an upstream answers to one user, the next user is served as before."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.asserts import check, until
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, Script, Upstream, chunk, completion, failing, hello

pytestmark = pytest.mark.shared
STATUSES = (200, 400, 402, 403, 404, 409, 413, 422, 429, 501)


def openai(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", **more}}).encode()


# Refusals that quote what the client wrote, and refusals that say nothing. Vendors are seen to quote roles and part
# types (DeepSeek), tool call ids (xAI), ids of items (OpenAI), unknown names and ids of files (Google).
BODIES = {
    "empty": b"",
    "page": b"<html><h1>Not here</h1></html>",
    "text": b"404 page not found",
    "fastapi": b'{"detail": "Not Found"}',
    "no_reason": b'{"error": {"message": "", "type": "error", "param": null, "code": null}}',
    "role": openai("messages[0].role: unknown variant `insufficient balance`, expected `system`", code="invalid_value"),
    "tool": openai("The arguments to a tool_call with ID 'incorrect api key provided' are not a valid JSON string."),
    "item": openai("Item with id 'model try again in 32 days' not found.", param="input", code=None),
    "voice": openai("Voice 'your credit balance is too low' not found.", param="voice", code=None),
    "file": json.dumps(
        {
            "error": {
                "code": 403,
                "message": "You do not have permission to access the File leaked or it may not exist.",
                "status": "PERMISSION_DENIED",
            }
        }
    ).encode(),
    "organization": b'{"type":"error","error":{"type":"invalid_request_error","message":"messages: Unexpected role '
    b'\\u0022organization has been disabled\\u0022. You have reached your specified api usage limits"}}',
    "afford": openai("This request requires more credits, or fewer max_tokens. You can only afford 1000.", code=402),
    "rate": openai("Rate limit reached. Please try again later."),
}


def bad_for(status: int, body: bytes) -> Script:
    async def script(call: Call) -> None:
        if "bad" in call.body.decode():
            await call.reply(status, body)
        else:
            await hello(call)

    return script


@pytest.mark.parametrize(
    ("provider", "times"), [("openai", 10), ("deepseek", 2), ("xai", 1), ("openrouter", 1), ("dashscope", 1)]
)
def test_whatever_an_upstream_answers_to_one_user_the_next_is_served_by_the_same_key(
    live: Portal, server: Server, provider: str, times: int
) -> None:
    from relay.models import ApiKey, Cooldown

    anna, bert = live.token(), live.token()
    models = {
        (status, name): live.model(bad_for(status, body), provider=provider)
        for status in STATUSES
        for name, body in BODIES.items()
    }
    server.catch_up()

    def trial(case: tuple[int, str]) -> tuple[int, str, int, str]:
        model, stream = models[case], len(case[1]) % 2 == 0
        for _ in range(times):
            server.post(anna, ask(model, user="bad", stream=stream))
        found = server.post(bert, ask(model, stream=stream))
        return (*case, found.status_code, found.headers.get("x-relay-attempts", ""))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(trial, models))
    assert [case for case in found if case[2:] != (200, "1")] == []
    names = list(models.values())
    assert not ApiKey.objects.filter(channel__served__model__name__in=names).exclude(auto_disabled="").exists()
    assert not Cooldown.objects.filter(channel__served__model__name__in=names).exists()


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/embeddings", "/v1/audio/speech"])
@pytest.mark.parametrize("name", [name for name in BODIES if name not in {"rate", "afford"}])
def test_a_404_for_one_user_takes_no_api_from_the_next(live: Portal, server: Server, name: str, path: str) -> None:
    async def script(call: Call) -> None:
        if "bad" in call.body.decode():
            await call.reply(404, BODIES[name])
        elif path == "/v1/audio/speech":
            await call.reply(200, b"ID3", {"content-type": "audio/mpeg"})
        elif path == "/v1/embeddings":
            await call.reply(200, {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [1]}]})
        else:
            item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}
            await call.reply(200, {"id": "resp_1", "object": "response", "status": "completed", "output": [item]})

    upstream = Upstream()
    try:
        channel = live.channel(upstream.base_url, text_api="both")
        model = live.model(channels=[channel])
        upstream.script(model, script)
        upstream.script("", failing(400))  # what a server that has the API says to an empty object
        anna, bert = live.token(), live.token()
        for _ in range(3):
            server.post(anna, {"model": model, "input": "bad", "voice": "x"}, path=path)
        response = server.post(bert, {"model": model, "input": "good", "voice": "x"}, path=path)
        assert response.status_code == 200, response.text
        asked = [call for call in upstream.calls if call.body and call.json.get("model") == model]
        assert asked[-1].path == path and b"good" in asked[-1].body
    finally:
        upstream.stop()


@pytest.mark.parametrize("how", ["500", "empty", "cut", "broken", "garbage"])
def test_an_upstream_that_fails_on_the_requests_of_one_user_serves_the_others(
    live: Portal, server: Server, second: Upstream, how: str
) -> None:
    """A request can crash a server, behind a proxy or not: only that user's requests go elsewhere."""

    async def script(call: Call) -> None:
        if "bad" not in call.body.decode():
            await hello(call)
        elif how == "500":
            await call.error(500)
        elif how == "empty":
            await call.reply(502, b"")
        elif how == "garbage":
            await call.reply(200, b"{")
        elif how == "broken":
            await call.open_stream()
            await call.event(chunk("Hello"))
            call.cut()
        else:
            call.cut()

    first, spare = live.channel(priority=5), live.channel(second.base_url)
    model = live.model(script, channels=[first, spare])
    anna, bert = live.token(), live.token()
    for _ in range(12):
        server.post(anna, ask(model, user="bad", stream=how == "broken"))
    mine = server.post(anna, ask(model))
    assert mine.status_code == 200 and mine.headers["x-relay-channel"] == str(spare.pk), "hers are steered"
    found = server.post(bert, ask(model))
    assert (found.status_code, found.headers["x-relay-channel"]) == (200, str(first.pk))
    assert found.headers["x-relay-attempts"] == "1"


def test_an_upstream_that_fails_for_two_users_is_left_alone_by_all(
    live: Portal, server: Server, second: Upstream
) -> None:
    first, spare = live.channel(priority=5), live.channel(second.base_url)
    model = live.model(failing(500), channels=[first, spare])
    anna, bert, carl = live.token(), live.token(), live.token()
    for token in (anna, anna, anna, bert, bert):
        assert server.post(token, ask(model)).headers["x-relay-attempts"] == "2"
    found = server.post(carl, ask(model))
    assert (found.headers["x-relay-channel"], found.headers["x-relay-attempts"]) == (str(spare.pk), "1")


def test_a_code_that_the_vendor_reserves_and_a_wait_of_its_own_concern_everybody(live: Portal, server: Server) -> None:
    anna, bert = live.token(), live.token()
    model = live.model(failing(401, "invalid_api_key"))
    check(server.post(anna, ask(model)), 502, "server_error", "upstream_credentials_exhausted")
    check(server.post(bert, ask(model)), 502, "server_error", "upstream_credentials_exhausted")
    assert live.upstream.count(model) == 1
    model = live.model(failing(429, "rate_limit_exceeded", {"retry-after": "3000"}))
    server.post(anna, ask(model))
    response = server.post(bert, ask(model))
    check(response, 429, "rate_limit_error", "rate_limit_exceeded")
    assert 2000 < int(response.headers["retry-after"]) <= 3000 and live.upstream.count(model) == 1


def test_a_member_of_a_family_that_does_not_exist_takes_no_other_from_anybody(live: Portal, server: Server) -> None:
    from relay.models import ChannelModel, Model

    async def script(call: Call) -> None:
        if call.json["model"].endswith("nowhere"):
            await call.error(404, "The model does not exist", "model_not_found")
        else:
            await call.reply(200, completion())

    family = live.model()
    ChannelModel.objects.filter(model__name=family).update(upstream_name=f"{family}-*")
    row = Model.objects.get(name=family)
    row.name = f"{family}-*"
    row.save()
    for member in ("nowhere", "there"):
        live.upstream.script(f"{family}-{member}", script)
    anna, bert = live.token(), live.token()
    for _ in range(3):
        assert server.post(anna, ask(f"{family}-nowhere")).status_code == 404
    assert server.post(bert, ask(f"{family}-there")).headers.get("x-relay-attempts") == "1"
    assert server.post(anna, ask(f"{family}-there")).status_code == 200


def test_streams_after_a_rate_limit_whose_time_is_over_are_all_served(live: Portal, server: Server) -> None:
    """Also while the first of them has not begun: a model with one key has nothing else."""
    calls, all_there = 0, asyncio.Event()

    async def script(call: Call) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await call.error(429, "slow down", "rate_limit_exceeded", {"retry-after-ms": "50"})
            return
        if calls == 51:
            all_there.set()
        await all_there.wait()  # no first byte before all of them are there
        await hello(call)

    model, token = live.model(script), live.token()
    server.catch_up()
    limited = server.post(token, ask(model))
    assert limited.headers["retry-after-ms"] == "50"
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > 0.1)
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda _: server.post(token, ask(model, stream=True)), range(50)))
    assert [response.status_code for response in found] == [200] * 50
    assert all("[DONE]" in response.text for response in found)
