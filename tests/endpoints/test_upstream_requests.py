"""What upstreams of pass-through endpoints are sent where the client's own bytes would not do."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, sound

pytestmark = pytest.mark.shared

VECTOR = [0.5, -1.25, 3.0]
EMBEDDINGS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": VECTOR}],
    "model": "u",
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}
# How servers refuse encoding_format: base64 (graphiti 1782, litellm 38774; vLLM and FastAPI by their validators).
REFUSALS: list[tuple[int, Any]] = [
    (400, {"error": {"message": "Unsupported value: 'encoding_format' does not support 'base64'.", "code": None,
                     "type": "invalid_request_error", "param": "encoding_format"}}),
    (422, {"detail": [{"loc": ["body", "encoding_format"], "msg": "extra fields not permitted"}]}),
    (400, {"object": "error", "message": "base64 is not supported", "type": "BadRequestError", "code": 400}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "refusal"), REFUSALS)
def test_vectors_are_packed_for_a_client_when_the_upstream_refuses_base64(
    sdk: OpenAI, live: Portal, server: Server, status: int, refusal: Any
) -> None:
    async def script(call: Call) -> None:
        await (call.reply(status, refusal) if "encoding_format" in call.json else call.reply(200, EMBEDDINGS))

    model = live.model(script, price={"input": 1, "output": 0})
    server.catch_up()
    answer = sdk.embeddings.with_raw_response.create(model=model, input="a")
    packed = answer.http_response.json()["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(packed)) == tuple(VECTOR)
    assert "x-airelays-ignored-parameters" not in answer.headers
    record = live.record(answer.headers["x-request-id"])
    assert record.cost == 3000 and len(record.attempt_log) == 1
    sent = [call.json for call in live.upstream.calls if call.body and call.json.get("model") == model]
    assert [body.get("encoding_format") for body in sent] == ["base64", None]


def test_another_refusal_of_embeddings_is_passed_on_at_once(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.error(400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded")

    model = live.model(script)
    body = {"model": model, "input": "a", "encoding_format": "base64"}
    response = server.post(live.token(), body, path="/v1/embeddings")
    assert response.status_code == 400 and response.json()["error"]["code"] == "context_length_exceeded"
    assert live.upstream.count(model) == 1


@pytest.mark.parametrize(
    ("path", "default"), [("/v1/images/edits", "gpt-image-1"), ("/v1/images/variations", "dall-e-2")]
)
@pytest.mark.parametrize("blank", [None, "", " "])
def test_a_form_without_a_model_is_sent_with_the_one_that_is_billed(
    server: Server, live: Portal, path: str, default: str, blank: str | None
) -> None:
    from relay.models import ChannelModel, Model, ModelPrice

    got: list[Call] = []

    async def script(call: Call) -> None:
        got.append(call)
        await call.reply(200, {"created": 1, "data": [{"b64_json": "AAAA"}]})

    model, _ = Model.objects.get_or_create(name=default, defaults={"is_open": True})
    ModelPrice.objects.get_or_create(model=model, input=0, output=0)
    for upstream_name in ("", f"u-{default}"):
        ChannelModel.objects.filter(model=model).delete()
        ChannelModel.objects.create(channel=live.channel(), model=model, upstream_name=upstream_name)
        live.upstream.script(upstream_name or default, script)
        fields = {"prompt": "a hat"} if blank is None else {"prompt": "a hat", "model": blank}
        token = live.token()
        server.catch_up()
        response = httpx.post(
            server.url + path,
            headers={"authorization": f"Bearer {token}"},
            files={"image": ("é.png", b"\x89PNG\r\n\r\n--x", "image/png")},
            data=fields,
            trust_env=False,
        )
        assert response.status_code == 200, response.text
        assert got[-1].form.texts() == {"prompt": "a hat", "model": upstream_name or default}
        assert [bytes(got[-1].form.content(part)) for part in got[-1].form.files("image")] == [b"\x89PNG\r\n\r\n--x"]
        assert live.record(response).model == default


def test_a_model_with_blanks_around_it_is_sent_as_it_is_billed(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, {"text": "hi"})

    model = live.model(script)
    body = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n %s \r\n--b\r\nContent-Disposition: form-data; '
        b'name="file"; filename="a.wav"\r\n\r\n%s\r\n--b--\r\n' % (model.encode(), sound(1))
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = server.post(live.token(), body, path="/v1/audio/transcriptions", headers=headers)
    assert response.status_code == 200 and json.loads(response.content)["text"] == "hi"
    assert live.upstream.last(model).form.text("model") == model


def test_a_form_names_no_other_model(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, {"data": [{"b64_json": "aa"}]})

    model = live.model(script)
    form = {
        "model": model,
        "prompt": "x",
        "svg[model]": "dear",
        "svg[reasoning][effort]": "low",
        "safety_model": "dear",
    }
    answer = server.request("POST", live.token(), "/v1/images/edits", data=form, files={"image": ("a.png", b"\x89PNG")})
    assert answer.status_code == 200, answer.text
    assert set(answer.headers["x-airelays-ignored-parameters"].split(",")) == form.keys() - {"model", "prompt"}
    assert set(live.upstream.last(model).json) == {"model", "prompt"}
