"""A success without what is paid for is no answer: the next channel is asked, and nothing is charged for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, sound

pytestmark = pytest.mark.shared

USED = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
PRICE = {"input": 1, "output": 1, "per_call": 1, "per_image": 1, "per_second": 1, "per_character": 1}
REQUESTS: dict[str, dict[str, Any]] = {
    "rerank": {"query": "q", "documents": ["a", "b"]},
    "moderations": {"input": "a"},
    "embeddings": {"input": "a"},
    "images/generations": {"prompt": "a"},
    "audio/transcriptions": {},
    "audio/speech": {"input": "a", "voice": "b"},
    "completions": {"prompt": "a"},
    "responses": {"input": "a"},
    "chat/completions": {"messages": [{"role": "user", "content": "a"}]},
}
GOOD: dict[str, Any] = {
    "rerank": {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": 0.1}]},
    "moderations": {"results": [{"flagged": False}]},
    "embeddings": {"data": [{"embedding": [0.5], "index": 0}], "usage": USED},
    "images/generations": {"data": [{"b64_json": "aa"}]},
    "audio/transcriptions": {"text": ""},  # of silence
    "audio/speech": b"ID3" + b"0" * 100,
    "completions": {"choices": [{"text": "", "index": 0, "finish_reason": "stop"}], "usage": USED},
    "responses": {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": []}],
    },
    "chat/completions": {
        "choices": [{"message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
        "usage": USED,
    },
}
NOTHING: dict[str, list[Any]] = {
    "rerank": [
        {"results": [], "usage": USED},
        [],
        {"output": {"results": []}},
        {"results": [{}]},
        {"results": [{"index": 0}]},
        {"results": [{"relevance_score": 0.5}]},
        {"results": [{"index": 0, "relevance_score": "high"}]},
        {"results": [{"index": 9, "relevance_score": 0.5}]},
        {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.1}]},
    ],
    "moderations": [{"results": []}, {"results": [{}]}, {"results": [{"categories": {}}]}, {"results": [{"id": "m"}]}],
    "embeddings": [
        {"data": [], "usage": USED},
        {"data": [{"index": 0, "object": "embedding"}], "usage": USED},
        {"data": [{"embedding": {}}], "usage": USED},
        {"data": [{"embedding": [None, None]}], "usage": USED},
        {"data": [[]], "usage": USED},
        {"data": {"embedding": [0.5]}, "usage": USED},
        {"usage": USED},
    ],
    "images/generations": [{"data": []}, {"data": [{"b64_json": ""}]}, {"images": []}, {"usage": USED}],
    "audio/transcriptions": [{}, {"text": None}, {"text": 7}, {"usage": {"type": "duration", "seconds": 2}}, b""],
    "audio/speech": [b"", {}],
    "completions": [
        {"choices": [], "usage": USED},
        {"choices": [None], "usage": USED},
        {"choices": [{"index": 0}], "usage": USED},
        {"choices": [{"text": None, "finish_reason": "stop"}], "usage": USED},
    ],
    "responses": [
        {"id": "resp_1", "object": "response", "status": "completed", "output": []},
        {"id": "resp_1", "object": "response", "status": "completed", "output": [], "usage": {"output_tokens": 0}},
        {"id": "resp_1", "object": "response", "status": "completed", "output": None},
    ],
    "chat/completions": [
        {"choices": [], "usage": USED},
        {"choices": [{}], "usage": USED},
        {"choices": [{"message": None, "finish_reason": "stop"}], "usage": USED},
        {"choices": [{"message": {}, "finish_reason": "stop"}], "usage": USED},
    ],
}


def ask(live: Portal, server: Server, path: str, first: Any) -> tuple[Any, int]:
    """What the client gets where the first channel answers so and the second well, and the number of the second."""

    async def script(call: Call) -> None:
        answer = first if call.headers["authorization"] == "Bearer sk-first" else GOOD[path]
        is_json = not isinstance(answer, bytes)
        kind = "application/json" if is_json else "audio/mpeg" if path == "audio/speech" else "text/plain"
        await call.reply(200, json.dumps(answer).encode() if is_json else answer, {"content-type": kind})

    apis = {"text_api": "both"} if path == "responses" else {}
    one, two = live.channel(priority=5, keys=("sk-first",), **apis), live.channel(keys=("sk-second",), **apis)
    model = live.model(script, channels=[one, two], price=PRICE)
    body = {"model": model, **REQUESTS[path]}
    if path == "audio/transcriptions":
        answer = server.request("POST", live.token(), f"/v1/{path}", data=body, files={"file": ("a.wav", sound(1))})
    else:
        answer = server.post(live.token(), body, path=f"/v1/{path}")
    return answer, two.pk


@pytest.mark.parametrize("path", NOTHING)
def test_what_is_missing_is_asked_for_elsewhere(live: Portal, server: Server, path: str) -> None:
    for missing in NOTHING[path]:
        answer, second = ask(live, server, path, missing)
        assert answer.status_code == 200, (missing, answer.text)
        assert answer.headers["x-relay-channel"] == str(second), missing
        assert answer.headers["x-relay-attempts"] == "2"


def test_nothing_is_charged_where_no_upstream_has_an_answer(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, {"results": []})

    model = live.model(script, price=PRICE)
    answer = server.post(live.token(), {"model": model, **REQUESTS["rerank"]}, path="/v1/rerank")
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "upstream_error"
    assert live.record(answer).cost == 0


@pytest.mark.parametrize("path", GOOD)
def test_an_empty_answer_is_one_where_a_model_may_say_nothing(live: Portal, server: Server, path: str) -> None:
    answer, _ = ask(live, server, path, GOOD[path])
    assert answer.status_code == 200 and answer.headers["x-relay-attempts"] == "1"
