"""Ids of files in requests are the user's own files here, or refused; none reaches the account at an upstream."""

from __future__ import annotations

from typing import Any

import pytest
from openai import OpenAI

from tests.endpoints.files.parts import data_url
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, hello, sound

pytestmark = pytest.mark.shared

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
FOREIGN = "file-OperatorsSecretFile0001"
EDITS = "/v1/images/edits"


async def image(call: Call) -> None:
    await call.reply(200, {"created": 1, "data": [{"url": "u"}]})


def test_pictures_are_put_in_from_the_users_files(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(image)
    stored = sdk.files.create(file=("a.png", PNG), purpose="vision").id
    server.catch_up()
    body = {
        "model": model,
        "prompt": 'the "file_id" of a hat',
        "images": [{"file_id": stored}, {"image_url": "https://x.example/b.png"}, {"file_id": stored}],
        "mask": {"file_id": stored},
        "n": 1,
    }
    response = server.post(sdk.api_key, body, path=EDITS)
    assert response.status_code == 200, response.text
    picture = {"image_url": data_url("image/png", PNG)}
    sent = live.upstream.last(model).json
    assert sent["images"] == [picture, body["images"][1], picture] and sent["mask"] == picture  # type: ignore[index]
    assert {name: sent[name] for name in ("model", "prompt", "n")} == {
        name: body[name] for name in ("model", "prompt", "n")
    }


@pytest.mark.parametrize(
    "more",
    [
        {"images": [{"file_id": FOREIGN}]},
        {"images": [{"image_url": "https://x.example/a.png"}, {"file_id": FOREIGN}]},
        {"images": {"file_id": FOREIGN}},
        {"image": {"file_id": FOREIGN}},
        {"mask": {"file_id": FOREIGN}},
        {"images": [{"image_url": "https://x.example/a.png", "file_id": FOREIGN}]},
        {"images": [{"image_url": {"file_id": FOREIGN}}]},
        {"images": [[{"file_id": FOREIGN}]]},
        {"file_id": FOREIGN},
        {"file_ids": [FOREIGN]},
        {"reference": {"file_id": FOREIGN}},
    ],
)
@pytest.mark.parametrize("path", [EDITS, "/v1/images/generations"])
def test_a_picture_of_the_operators_account_is_refused(
    live: Portal, server: Server, more: dict[str, Any], path: str
) -> None:
    model = live.model(image)
    response = server.post(live.token(), {"model": model, "prompt": "x", **more}, path=path)
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] and live.upstream.count(model) == 0


def test_a_name_in_other_letters_or_escapes_is_no_way_around(live: Portal, server: Server) -> None:
    model, token = live.model(image), live.token()
    for raw in ('{"File_ID":"%s"}', '{"file_id\\u0000":"%s"}', '{"\\u0066ile_id":"%s"}'):
        body = f'{{"model":"{model}","prompt":"x","images":[{raw % FOREIGN}]}}'
        response = server.post(token, body.encode(), path=EDITS)
        assert response.status_code in (400, 422), raw
    assert live.upstream.count(model) == 0


def test_another_users_picture_is_refused_also_for_staff(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(image)
    stored = sdk.files.create(file=("a.png", PNG), purpose="vision").id
    for user in (live.user(), live.user(is_staff=True, is_superuser=True)):
        body = {"model": model, "prompt": "x", "images": [{"file_id": stored}]}
        response = server.post(live.token(user), body, path=EDITS)
        assert (response.status_code, response.json()["error"]["code"]) == (422, "file_not_found")
    assert live.upstream.count(model) == 0


def test_a_file_that_is_no_picture_is_refused(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(image)
    stored = sdk.files.create(file=("a.txt", b"hello", "text/plain"), purpose="user_data").id
    server.catch_up()
    response = server.post(sdk.api_key, {"model": model, "prompt": "x", "images": [{"file_id": stored}]}, path=EDITS)
    assert response.status_code == 422 and response.json()["error"]["param"] == "images[0].file_id"
    assert live.upstream.count(model) == 0


@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        ("audio/transcriptions", [("file_id", FOREIGN)], "file"),
        ("audio/translations", [("file[file_id]", FOREIGN)], "file"),
        ("images/edits", [("prompt", "x"), ("images[0][file_id]", FOREIGN)], "image"),
        ("images/edits", [("prompt", "x"), ("mask", f' {{"file_id":"{FOREIGN}"}}')], "image"),
        ("images/variations", [("file_ids[]", FOREIGN)], "image"),
    ],
)
def test_a_form_names_no_file(live: Portal, server: Server, path: str, fields: Any, name: str) -> None:
    model = live.model(image)
    parts: list[Any] = [("model", (None, model)), *((field, (None, text)) for field, text in fields)]
    parts.append((name, ("a", sound(1) if name == "file" else PNG)))
    response = server.request("POST", live.token(), f"/v1/{path}", files=parts)
    assert response.status_code in (400, 422), response.text
    assert live.upstream.count(model) == 0


def test_the_words_in_a_prompt_of_a_form_name_none(live: Portal, server: Server) -> None:
    model = live.model(image)
    data = {"model": model, "prompt": '{"file_id":"file-x"}'}
    response = server.request("POST", live.token(), EDITS, data=data, files={"image": ("a.png", PNG)})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("embeddings", {"input": [{"type": "input_image", "file_id": FOREIGN}]}),
        ("embeddings", {"input": [{"content": [{"type": "video", "video": {"file_id": FOREIGN}}]}]}),
        ("moderations", {"input": [{"type": "image_url", "image_url": {"file_id": FOREIGN}}]}),
        ("audio/speech", {"input": "x", "voice": {"file_id": FOREIGN}}),
        ("completions", {"prompt": "x", "file_ids": [FOREIGN]}),
    ],
)
def test_other_endpoints_refuse_ids(live: Portal, server: Server, path: str, body: dict[str, Any]) -> None:
    model = live.model(hello)
    response = server.post(live.token(), {"model": model, **body}, path=f"/v1/{path}")
    assert response.status_code == 422, response.text
    assert live.upstream.count(model) == 0


def test_documents_may_have_any_member(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        assert call.json["documents"][0]["file_id"] == "a-1"
        await call.reply(200, {"results": [{"index": 0, "relevance_score": 0.5}]})

    documents = [{"text": "a page", "file_id": "a-1"}]
    body = {"model": live.model(script), "query": "q", "documents": documents}
    assert server.post(live.token(), body, path="/v1/rerank").status_code == 200


PARTS = [
    {"type": "input_video", "file_id": FOREIGN},
    {"type": "input_audio", "input_audio": {"file_id": FOREIGN}},
    {"type": "video_url", "video_url": {"file_id": FOREIGN}},
    {"type": "document", "source": {"type": "file", "file_id": FOREIGN}},
    {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}, "file_id": FOREIGN},
    {"type": "input_image", "image_url": "https://x.example/a.png", "extra": {"file_ids": [FOREIGN]}},
]


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
@pytest.mark.parametrize("part", PARTS)
def test_parts_whose_file_is_not_put_in_are_refused(
    live: Portal, server: Server, endpoint: str, part: dict[str, Any]
) -> None:
    model = live.model(hello)
    items = [{"role": "user", "content": [{"type": "text" if endpoint == "chat" else "input_text", "text": "x"}, part]}]
    path, member = ("/v1/chat/completions", "messages") if endpoint == "chat" else ("/v1/responses", "input")
    response = server.post(live.token(), {"model": model, member: items}, path=path)
    assert response.status_code == 422, response.text
    assert live.upstream.count(model) == 0


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": [FOREIGN]}}]},
        {"tools": [{"type": "image_generation", "input_image_mask": {"file_id": FOREIGN}}]},
        {"prompt": {"variables": {"doc": {"type": "input_file", "file_id": FOREIGN}}}},
        {"input": [{"type": "input_image", "file_id": FOREIGN}]},
        {"input": [{"role": "user", "content": "x", "attachments": [{"file_id": FOREIGN}]}]},
        {
            "input": [
                {
                    "type": "computer_call_output",
                    "call_id": "c",
                    "output": {"type": "computer_screenshot", "file_id": FOREIGN},
                }
            ]
        },
    ],
)
def test_responses_name_no_file_elsewhere(live: Portal, server: Server, more: dict[str, Any]) -> None:
    model = live.model(hello)
    response = server.post(live.token(), {"model": model, "input": "x", **more}, path="/v1/responses")
    assert response.status_code == 422, response.text
    assert live.upstream.count(model) == 0


def test_what_a_model_cited_and_names_in_schemas_are_no_files(live: Portal, server: Server) -> None:
    model = live.model(hello, text_api="chat")
    cited = {"type": "file_citation", "file_id": FOREIGN, "index": 1, "filename": "a.pdf"}
    said = {"type": "output_text", "text": "As it says.", "annotations": [cited]}
    properties = {"file_id": {"type": "string", "default": "a"}, "file_ids": {"type": "array"}}
    schema = {"type": "object", "properties": properties, "required": ["file_id"]}
    body = {
        "model": model,
        "input": [
            {"role": "user", "content": "x"},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [said]},
            {"role": "user", "content": "go on"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": schema}],
        "metadata": {"file_id": "mine"},
    }
    response = server.post(live.token(), body, path="/v1/responses")
    assert response.status_code == 200, response.text
