"""Stored files in requests."""

from __future__ import annotations

import base64
from typing import Any

import openai
import pytest
from openai import OpenAI

from relay.models import ModelPrice
from relay.storage import files
from tests.endpoints.files.parts import data_url
from tests.support.portal import Portal, stored_for
from tests.support.server import Server
from tests.support.upstream import hello

pytestmark = pytest.mark.shared

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def sent_parts(live: Portal, model: str) -> Any:
    body = live.upstream.last(model).json
    return body["messages"][-1]["content"]


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_stored_files_are_put_in(sdk: OpenAI, live: Portal, server: Server, endpoint: str) -> None:
    model = live.model(hello, text_api="chat")
    pdf = sdk.files.create(file=("a.pdf", b"%PDF-1.4", "application/pdf"), purpose="user_data").id
    png = sdk.files.create(file=("a.png", PNG), purpose="vision").id
    txt = sdk.files.create(file=("a.txt", "Grüße".encode(), "text/plain"), purpose="user_data").id
    server.catch_up()
    if endpoint == "chat":
        parts = [
            {"type": "file", "file": {"file_id": pdf}},
            {"type": "image_url", "image_url": {"file_id": png, "detail": "low"}},
            {"type": "text", "file_id": txt},
        ]
        answer = server.post(sdk.api_key, {"model": model, "messages": [{"role": "user", "content": parts}]})
    else:
        parts = [
            {"type": "input_file", "file_id": pdf},
            {"type": "input_image", "file_id": png, "detail": "low"},
            {"type": "input_text", "file_id": txt},
        ]
        answer = server.post(
            sdk.api_key, {"model": model, "input": [{"role": "user", "content": parts}]}, path="/v1/responses"
        )
    assert answer.status_code == 200, answer.text
    file, image, text = sent_parts(live, model)
    assert file == {
        "type": "file",
        "file": {"filename": "a.pdf", "file_data": data_url("application/pdf", b"%PDF-1.4")},
    }
    assert image == {"type": "image_url", "image_url": {"url": data_url("image/png", PNG), "detail": "low"}}
    assert text["text"] == "Uploaded file “a.txt” (text/plain):\n\nGrüße"


def test_the_four_ways_to_give_a_file_to_responses(sdk: OpenAI, live: Portal, server: Server) -> None:
    asked: list[Any] = []

    async def script(call: Any) -> None:
        asked.append(call.json["input"][0]["content"][0])
        await call.reply(
            200,
            {
                "id": "resp_1",
                "object": "response",
                "created_at": 1,
                "status": "completed",
                "output": [{"type": "message", "role": "assistant", "content": []}],
                "tools": [],
                "metadata": {},
                "parallel_tool_calls": True,
            },
        )

    model, raw = live.model(script), base64.b64encode(b"hello").decode()
    stored = sdk.files.create(file=("s.txt", b"hello", "text/plain"), purpose="user_data").id
    server.catch_up()
    for part in (
        {"file_url": "https://files.example.org/a.pdf"}, {"file_data": (
            "data:text/plain;base64,"
            f"{raw}"
        ), "filename": "x"},
        {"file_data": raw, "filename": "notes.txt"}, {"file_id": stored},
    ):  # fmt: skip
        answer = server.post(
            sdk.api_key,
            {"model": model, "input": [{"role": "user", "content": [{"type": "input_file", **part}]}]},
            path="/v1/responses",
        )
        assert answer.status_code == 200, answer.text
    assert asked[0] == {"type": "input_file", "file_url": "https://files.example.org/a.pdf"}
    assert asked[1]["file_data"] == asked[2]["file_data"] == asked[3]["file_data"] == f"data:text/plain;base64,{raw}"
    assert "file_id" not in asked[3] and asked[3]["filename"] == "s.txt"


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_file", "file_id": "file-unknown"}, "file_id"),
        ({"type": "input_file", "file_data": "aGVsbG8="}, "filename"),
        ({"type": "input_file", "file_data": "aGVsbG8=", "filename": "a.zzzz"}, "filename"),
        ({"type": "input_file", "file_data": "not base64!", "filename": "a.txt"}, "file_data"),
        (
            {"type": "input_file", "file_data": "data:text/plain;base64,aa", "file_url": "https://x.example"},
            "content[0]",
        ),
        ({"type": "input_image", "file_id": "TEXT"}, "file_id"),
        ({"type": "input_text", "file_id": "LONG"}, "file_id"),
        ({"type": "input_text", "file_id": "PDF"}, "file_id"),
        ({"type": "input_file", "file_url": "https://x.example/a.pdf"}, "file_url"),
    ],
)
def test_what_cannot_be_done_with_a_file_is_said(
    sdk: OpenAI, live: Portal, server: Server, part: dict[str, Any], param: str
) -> None:
    model = live.model(hello, text_api="chat")
    stored = {
        "TEXT": ("a.txt", b"hello", "text/plain"),
        "LONG": ("a.txt", b"x" * 1_000_001, "text/plain"),
        "PDF": ("a.pdf", b"%PDF", "application/pdf"),
    }
    if part.get("file_id") in stored:
        part = {**part, "file_id": sdk.files.create(file=stored[part["file_id"]], purpose="user_data").id}
    answer = server.post(
        sdk.api_key, {"model": model, "input": [{"role": "user", "content": [part]}]}, path="/v1/responses"
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["param"].endswith(param) and live.upstream.count(model) == 0


def test_somebody_elses_file_is_not_put_in(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello)
    stored = sdk.files.create(file=("a.txt", b"secret", "text/plain"), purpose="user_data").id
    answer = server.post(
        live.token(),
        {"model": model, "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": stored}}]}]},
    )
    assert answer.status_code == 422 and answer.json()["error"]["code"] == "file_not_found"


def test_a_turn_that_is_gone_on_from_brings_its_files_along(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello, text_api="chat")
    stored = sdk.files.create(file=("a.txt", b"hello", "text/plain"), purpose="user_data").id
    server.catch_up()
    first = sdk.responses.create(
        model=model, input=[{"role": "user", "content": [{"type": "input_file", "file_id": stored}]}]
    )
    assert next(iter(sdk.responses.input_items.list(first.id))).content[0].file_id == stored  # type: ignore[union-attr, index]
    sdk.responses.create(model=model, input="and?", previous_response_id=first.id)
    assert live.upstream.last(model).json["messages"][0]["content"][0]["file"]["file_data"] == data_url(
        "text/plain", b"hello"
    )
    sdk.files.delete(stored)
    with pytest.raises(openai.UnprocessableEntityError):
        sdk.responses.create(model=model, input="and?", previous_response_id=first.id)


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_files_that_are_named_often_are_refused_before_they_are_read(
    sdk: OpenAI, live: Portal, server: Server, endpoint: str
) -> None:
    model = live.model(hello, text_api="chat")
    stored = sdk.files.create(file=("a.txt", b"x" * (2 << 20), "text/plain"), purpose="user_data").id
    server.catch_up()
    for times, status, code in ((17, 413, "files_too_large"), (501, 400, "too_many_files")):
        answer = server.post(sdk.api_key, **naming(endpoint, model, [stored] * times))
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert live.upstream.count(model) == 0
    assert server.post(sdk.api_key, **naming(endpoint, model, [stored] * 2)).status_code == 200


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_permission_comes_before_the_files_and_money_before_their_bytes(
    live: Portal, server: Server, endpoint: str
) -> None:
    user = live.user(balance=1)
    token = live.token(user)
    closed, priced = live.model(is_open=False), live.model(hello, price={"input": 10_000, "output": 10_000})
    for model, status in ((live.name("unknown"), 404), (closed, 403)):
        answer = server.post(token, **naming(endpoint, model, ["file-unknown"]))
        assert answer.status_code == status, answer.text
    gone = stored_for(user)
    files.unlink(gone.storage_name)
    answer = server.post(token, **naming(endpoint, priced, [gone.file_id]))
    assert answer.json()["error"]["code"] == "insufficient_quota", answer.text
    ModelPrice.objects.filter(model__name=priced).update(input=0, output=0)
    server.catch_up()
    answer = server.post(token, **naming(endpoint, priced, [gone.file_id]))
    assert answer.json()["error"]["code"] == "file_not_found", answer.text
    assert live.record(answer).end_reason == "client_error"


def naming(endpoint: str, model: str, ids: list[str]) -> dict[str, Any]:
    """The arguments of a request that names stored files."""
    if endpoint == "chat":
        parts: list[Any] = [{"type": "file", "file": {"file_id": file_id}} for file_id in ids]
        return {"body": {"model": model, "messages": [{"role": "user", "content": parts}]}}
    parts = [{"type": "input_file", "file_id": file_id} for file_id in ids]
    return {"body": {"model": model, "input": [{"role": "user", "content": parts}]}, "path": "/v1/responses"}
