"""How an answer ended, in every vendor's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.responses.upstream import ResponsesUpstream
from tests.protocols.codecs import chat_codec, chunk, codec, events, fed, sse
from tests.protocols.conversions.tables import DIALECT, plain_response

CUT = [
    "length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "model_context_window_exceeded",
]  # fmt: skip
FILTERED = ["content_filter", "sensitive", "SAFETY", "refusal", "content_filter: RECITATION"]
WHOLE = ["stop", "eos", "end_turn", "STOP", "stop_sequence", "COMPLETE", "something_new", "", None]
FAILED = [
    "error", "network_error", "insufficient_system_resource", "abort", "function_call_filter: MALFORMED_FUNCTION_CALL",
]  # fmt: skip


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        *((finish, "incomplete", "max_output_tokens") for finish in CUT),
        *((finish, "incomplete", "content_filter") for finish in FILTERED),
        *((finish, "completed", None) for finish in WHOLE),
    ],
)
def test_a_finish_reason_in_any_dialect_ends_a_response_rightly(finish: Any, status: str, reason: str | None) -> None:
    streamed = events(fed(codec(), sse(chunk({"content": "so"}), chunk({}, finish))))[-1]
    for response in (streamed["response"], plain_response({"content": "so"}, finish)):
        assert response["status"] == status and (response["incomplete_details"] or {}).get("reason") == reason
    assert streamed["type"] == f"response.{status}"


@pytest.mark.parametrize("finish", FAILED)
def test_a_finish_reason_that_says_the_answer_failed_is_an_error(finish: str) -> None:
    stream = codec()
    out = fed(stream, sse(chunk({"content": "so"}), chunk({}, finish)))
    assert stream.error is not None and not stream.done and b"response.completed" not in out
    body = {"choices": [{"index": 0, "message": {"content": "so"}, "finish_reason": finish}]}
    found = ChatUpstream().completion(json.dumps(body).encode(), DIALECT)
    assert found is not None and found.completion is None and b"broke" in (found.error or b"")


def test_the_error_of_a_choice_is_the_one_that_is_told() -> None:
    """OpenRouter's form."""
    failed: Any = chunk({}, "error")
    failed["choices"][0]["error"] = {"code": 502, "message": "Provider disconnected"}
    stream = codec()
    fed(stream, sse(failed))
    assert json.loads(stream.error or b"")["error"]["message"] == "Provider disconnected"


@pytest.mark.parametrize(
    ("response", "finish"),
    [
        ({"status": "completed"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": None}, "length"),
        ({}, "stop"),
    ],
)
def test_a_chat_client_is_told_openais_words(response: Any, finish: str) -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "so"}]}
    whole = {"id": "resp_1", "output": [item], **response}
    body = ResponsesUpstream().completion(json.dumps(whole).encode(), DIALECT)
    assert body is not None and body.completion is not None
    assert body.completion["choices"][0]["finish_reason"] == finish  # type: ignore[index]
    kind = "response.incomplete" if response.get("status") == "incomplete" else "response.completed"
    found = events(fed(chat_codec(), sse({"type": kind, "response": whole}, done=False)))
    assert found[-1]["choices"][0]["finish_reason"] == finish


def test_an_event_that_says_incomplete_is_believed_without_a_status() -> None:
    found = events(fed(chat_codec(), sse({"type": "response.incomplete", "response": {"output": []}}, done=False)))
    assert found[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_response_that_failed_or_was_cancelled_is_no_answer(status: str) -> None:
    whole: dict[str, Any] = {"id": "resp_1", "status": status, "output": [], "error": None}
    body = ResponsesUpstream().completion(json.dumps(whole).encode(), DIALECT)
    assert body is not None and body.completion is None and body.error
    for kind in (f"response.{status}", "response.completed"):
        stream = chat_codec()
        fed(stream, sse({"type": kind, "response": whole}, done=False))
        assert stream.error is not None and not stream.done
