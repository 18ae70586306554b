"""Errors in place of images cost nothing and keep no secret, plain and streamed, in the form that was asked for."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, Upstream

pytestmark = pytest.mark.shared

SAID = "failed at http://10.1.2.3:8000/x with key sk-upstream-AAAA0123456789abcd of org-AbCdEf123456"
SECRETS = ("10.1.2.3", "AAAA0123456789", "AbCdEf123456")
BLOCKED = {"code": "OutputImageSensitiveContentDetected", "message": SAID}
INTERNAL = {"code": "InternalServiceError", "message": SAID}
PRICE = {"input": 0, "output": 0, "per_image": "0.05"}
EACH = 5 * 10**7
PATH = "/v1/images/generations"


def succeeded(index: int) -> dict[str, Any]:
    return {"type": "image_generation.partial_succeeded", "created": 1, "image_index": index, "url": f"u{index}"}


def failed(index: int, error: Any = None) -> dict[str, Any]:
    return {"type": "image_generation.partial_failed", "image_index": index, "error": error or BLOCKED}


def completed(images: int) -> dict[str, Any]:
    return {"type": "image_generation.completed", "created": 1, "usage": {"generated_images": images}}


def streaming(*events: dict[str, Any], cut: bool = False) -> Any:
    async def script(call: Call) -> None:
        await call.open_stream()
        for event in events:
            await call.event(event)
        if cut:
            call.cut()
        else:
            await call.end()

    return script


def answering(*data: Any) -> Any:
    async def script(call: Call) -> None:
        await call.reply(200, {"created": 1, "data": list(data), "usage": {"generated_images": len(data)}})

    return script


def clean(response: httpx.Response) -> bool:
    return not any(secret in response.text for secret in SECRETS)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_what_failed_in_place_of_an_image_is_not_charged(
    live: Portal, server: Server, stream: bool, streamed: bool
) -> None:
    script = (
        streaming(succeeded(0), failed(1), completed(2)) if streamed else answering({"url": "u0"}, {"error": BLOCKED})
    )
    model = live.model(script, price=PRICE)
    response = server.post(live.token(), {"model": model, "prompt": "x", "n": 2, "stream": stream}, path=PATH)
    assert response.status_code == 200 and clean(response) and BLOCKED["code"] in response.text
    record = live.record(response)
    assert (record.images, record.cost, record.end_reason) == (1, EACH, "completed")
    if stream:
        assert "partial_failed" in response.text
    else:
        assert [sorted(entry) for entry in response.json()["data"]] == [["url"], ["error"]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("error", "status"), [(BLOCKED, 400), (INTERNAL, 502), ({"message": SAID}, 502)])
def test_nothing_but_errors_is_a_request_that_failed(
    live: Portal, server: Server, stream: bool, streamed: bool, error: dict[str, Any], status: int
) -> None:
    model = live.model(
        streaming(failed(0, error), completed(0)) if streamed else answering({"error": error}), price=PRICE
    )
    response = server.post(live.token(), {"model": model, "prompt": "x", "stream": stream}, path=PATH)
    assert response.status_code == status and clean(response), response.text
    record = live.record(response)
    assert (record.images, record.cost, record.usage_source) == (0, 0, "none")


@pytest.mark.parametrize("stream", [False, True])
def test_another_channel_makes_the_images_where_nothing_was_delivered(
    live: Portal, server: Server, second: Upstream, stream: bool
) -> None:
    script = streaming(failed(0, INTERNAL), completed(0)) if stream else answering({"error": INTERNAL})
    first, spare = live.channel(priority=5), live.channel(second.base_url)
    model = live.model(script, channels=[first, spare], price=PRICE)
    second.script(model, answering({"url": "u0"}))
    response = server.post(live.token(), {"model": model, "prompt": "x", "stream": stream}, path=PATH)
    record = live.record(response)
    assert response.status_code == 200 and (record.images, record.cost, len(record.attempt_log)) == (1, EACH, 2)


@pytest.mark.parametrize("number", [1, 3])
def test_as_many_images_are_charged_as_were_streamed(live: Portal, server: Server, number: int) -> None:
    model = live.model(streaming(*map(succeeded, range(3)), completed(9)), price=PRICE)
    response = server.post(live.token(), {"model": model, "prompt": "x", "n": number, "stream": True}, path=PATH)
    record = live.record(response)
    assert (record.images, record.cost, record.end_reason) == (3, 3 * EACH, "completed")
    plain = server.post(live.token(), {"model": model, "prompt": "x", "n": number}, path=PATH)
    assert len(plain.json()["data"]) == live.record(plain).images == 3


def test_a_cut_charges_what_was_delivered(live: Portal, server: Server) -> None:
    model = live.model(streaming(succeeded(0), failed(1), succeeded(2), cut=True), price=PRICE)
    response = server.post(live.token(), {"model": model, "prompt": "x", "n": 5, "stream": True}, path=PATH)
    record = live.record(response)
    assert (record.images, record.cost, record.end_reason) == (2, 2 * EACH, "truncated") and clean(response)


def test_a_client_pays_for_no_image_when_an_end_says_that_there_is_none(live: Portal, server: Server) -> None:
    model = live.model(streaming(completed(3)), price=PRICE)
    response = server.post(live.token(), {"model": model, "prompt": "x", "n": 3, "stream": True}, path=PATH)
    assert response.status_code == 502 and live.record(response).cost == 0


@pytest.mark.parametrize(
    ("path", "asked", "answer"),
    [
        (
            "embeddings",
            {"input": ["a", "b"]},
            {"data": [{"index": 0, "embedding": [0.5]}, {"index": 1, "error": INTERNAL}]},
        ),
        ("embeddings", {"input": "a"}, {"data": [{"error": INTERNAL}]}),
        ("moderations", {"input": ["a", "b"]}, {"results": [{"flagged": False}, {"error": INTERNAL}]}),
        ("rerank", {"query": "q", "documents": ["a"]}, {"results": [{"index": 0, "error": INTERNAL}]}),
    ],
)
def test_an_answer_with_an_error_for_one_text_is_none(
    live: Portal, server: Server, path: str, asked: dict[str, Any], answer: dict[str, Any]
) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, {**answer, "usage": {"prompt_tokens": 5, "total_tokens": 5}})

    model = live.model(script, price={"input": 1, "output": 1, "per_call": "0.01"})
    response = server.post(live.token(), {"model": model, **asked}, path=f"/v1/{path}")
    assert response.status_code == 502 and clean(response) and json.dumps(response.json()).count("error")
    assert live.record(response).cost == 0


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_choice_that_failed_beside_others_keeps_no_secret(live: Portal, server: Server, path: str) -> None:
    async def script(call: Call) -> None:
        said = {"text": "hi"} if path == "completions" else {"message": {"role": "assistant", "content": "hi"}}
        choices = [{"index": index, **said, "finish_reason": "stop"} for index in range(2)]
        choices[1] |= {"finish_reason": "error", "error": {"code": 502, "message": SAID}}
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        await call.reply(200, {"id": "c", "object": "chat.completion", "choices": choices, "usage": usage})

    model = live.model(script, price={"input": 1, "output": 1})
    asked = {"prompt": "x"} if path == "completions" else {"messages": [{"role": "user", "content": "x"}]}
    response = server.post(live.token(), {"model": model, "n": 2, **asked}, path=f"/v1/{path}")
    first, second = response.json()["choices"]
    assert response.status_code == 200 and clean(response) and live.record(response).output_tokens == 2
    assert "error" not in first and second["error"]["code"] == "502" and second["error"]["message"].startswith("failed")
