"""Every endpoint that asks an upstream, called by the official SDK; the upstream looks at what it was sent."""

from __future__ import annotations

import base64
import struct
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.support.asserts import until
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import USAGE, Call, sound

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


IMAGE_USAGE = {
    "total_tokens": 110,
    "input_tokens": 10,
    "output_tokens": 100,
    "input_tokens_details": {"text_tokens": 4, "image_tokens": 6},
}


def served(live: Portal, server: Server, script: Any, **options: Any) -> str:
    name = live.model(script, **options)
    server.catch_up()
    return name


def test_completions(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        assert call.path == "/v1/completions" and call.json["prompt"] == "Once" and call.json["foo"] == 1
        base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "u"}
        if not call.json.get("stream"):
            await call.reply(
                200,
                {
                    **base,
                    "choices": [{"text": " upon", "index": 0, "logprobs": None, "finish_reason": "stop"}],
                    "usage": USAGE,
                },
            )
            return
        assert call.wants_usage
        await call.open_stream()
        for word in (" upon", " a time"):
            await call.event({**base, "choices": [{"text": word, "index": 0, "logprobs": None, "finish_reason": None}]})
        await call.event({**base, "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}]})
        await call.event({**base, "choices": [], "usage": USAGE})
        await call.event("[DONE]")
        await call.end()

    model = served(live, server, script, upstream_name="u-completions")
    answer = sdk.completions.with_raw_response.create(model=model, prompt="Once", extra_body={"foo": 1})
    assert answer.parse().choices[0].text == " upon"
    record = live.record(answer.headers["x-request-id"])
    assert (record.endpoint, record.model, record.upstream_model, record.input_tokens, record.output_tokens) == (
        "completions",
        model,
        "u-completions",
        9,
        7,
    )
    stream = sdk.completions.create(model=model, prompt="Once", stream=True, extra_body={"foo": 1})
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == " upon a time" and all(
        chunk.choices for chunk in chunks
    )


def test_embeddings_as_numbers_and_as_base64(sdk: OpenAI, live: Portal, server: Server) -> None:
    vectors = [[0.5, -1.25, 3.0], [1.0, 2.0, 4.0]]

    async def numbers(call: Call) -> None:
        assert call.path == "/v1/embeddings"
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        await call.reply(
            200, {"object": "list", "data": data, "model": "u", "usage": {"prompt_tokens": 6, "total_tokens": 6}}
        )

    async def packed(call: Call) -> None:
        data = [
            {"object": "embedding", "index": 0, "embedding": base64.b64encode(struct.pack("<3f", *vectors[0])).decode()}
        ]
        await call.reply(
            200, {"object": "list", "data": data, "model": "u", "usage": {"prompt_tokens": 3, "total_tokens": 3}}
        )

    model = served(live, server, numbers, price={"input": 1, "output": 0})
    answer = sdk.embeddings.with_raw_response.create(
        model=model, input=["a", "b"]
    )  # asks for Base64; the upstream does not know it
    assert [entry.embedding for entry in answer.parse().data] == vectors
    assert isinstance(answer.http_response.json()["data"][0]["embedding"], str)
    record = live.record(answer.headers["x-request-id"])
    assert (record.endpoint, record.input_tokens, record.output_tokens, record.cost) == ("embeddings", 6, 0, 6000)
    assert (
        sdk.embeddings.create(model=model, input=[[1, 2], [3]], encoding_format="float").data[1].embedding == vectors[1]
    )
    other = served(live, server, packed)
    assert sdk.embeddings.create(model=other, input="a", encoding_format="float").data[0].embedding == vectors[0]


def test_moderations_without_a_model(sdk: OpenAI, live: Portal, server: Server) -> None:
    from relay.models import Channel, ChannelModel, Model, ModelPrice

    async def script(call: Call) -> None:
        assert call.path == "/v1/moderations" and call.json == {"input": "x", "model": "omni-moderation-latest"}
        await call.reply(
            200,
            {
                "id": "modr-1",
                "model": "m",
                "results": [
                    {"flagged": True, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
                ],
            },
        )

    live.upstream.script("omni-moderation-latest", script)
    channel: Channel = live.channel()
    model, _ = Model.objects.get_or_create(name="omni-moderation-latest", defaults={"is_open": True})
    ChannelModel.objects.create(channel=channel, model=model)
    ModelPrice.objects.get_or_create(model=model, input=0, output=0)
    server.catch_up()
    assert sdk.moderations.create(input="x").results[0].flagged


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK says so of the older endpoints
def test_images_made_edited_and_varied(sdk: OpenAI, live: Portal, server: Server) -> None:
    made = {"created": 1, "data": [{"b64_json": "AAAA"}, {"b64_json": "BBBB"}], "usage": IMAGE_USAGE}

    async def script(call: Call) -> None:
        if call.path == "/v1/images/generations":
            assert call.json["prompt"] == "a cat" and call.json["n"] == 2
        elif call.path == "/v1/images/edits":
            files = call.form.files("image[]", "image")
            assert [bytes(call.form.content(part)) for part in files] == [PNG, PNG + b"2"] and [
                part.filename for part in files
            ] == ["é.png", "b.png"]
            assert call.form.text("prompt") == "a hat" and call.form.text("model") == "u-images"
        else:
            assert call.path == "/v1/images/variations" and call.form.text("n") == "2"
            assert bytes(call.form.content(call.form.files("image")[0])) == PNG
        await call.reply(200, made)

    model = served(
        live,
        server,
        script,
        upstream_name="u-images",
        price={"input": 10, "image_input": 20, "output": 40, "per_image": 1},
    )
    answer = sdk.images.with_raw_response.generate(model=model, prompt="a cat", n=2)
    assert [image.b64_json for image in answer.parse().data or ()] == ["AAAA", "BBBB"]
    record = live.record(answer.headers["x-request-id"])
    assert (record.endpoint, record.input_tokens, record.image_input_tokens, record.output_tokens, record.images) == (
        "images.generations",
        10,
        6,
        100,
        2,
    )
    assert record.cost == (4 * 10 + 6 * 20 + 100 * 40) * 1000 + 2 * 10**9
    edited = sdk.images.edit(
        model=model, image=[("é.png", PNG, "image/png"), ("b.png", PNG + b"2", "image/png")], prompt="a hat"
    )
    assert edited.data and edited.data[0].b64_json == "AAAA"
    assert sdk.images.create_variation(model=model, image=("a.png", PNG, "image/png"), n=2).data


def test_what_is_made_is_what_is_held_and_paid_for(live: Portal, server: Server) -> None:
    """A server that knows other names for the number of answers, or for models, makes no more than was held."""

    async def script(call: Call) -> None:
        if call.path == "/v1/completions":
            await call.reply(200, {"choices": [{"text": "x", "finish_reason": "stop", "index": 0}]})
        else:
            await call.reply(200, {"created": 1, "data": [{"url": "https://x.example/1"}]})

    model, token = served(live, server, script, price={"input": 1, "output": 1, "per_image": 1}), live.token()
    ask = {"model": model, "prompt": "a cat", "batch_size": 3, "num_images": 2, "models": ["dear"]}
    answer = server.post(token, ask, path="/v1/images/generations")
    assert live.upstream.last(model).json == {"model": model, "prompt": "a cat", "n": 3}
    assert answer.headers["x-airelays-ignored-parameters"] == "models"
    answer = server.post(token, {**ask, "n": 2, "best_of": 9}, path="/v1/images/generations")
    assert live.upstream.last(model).json == {"model": model, "prompt": "a cat", "n": 2}
    told = set(answer.headers["x-airelays-ignored-parameters"].split(","))
    assert told == {"models", "batch_size", "num_images", "best_of"}
    form = {"model": model, "prompt": "a hat", "num_images": "10", "models": "dear"}
    answer = server.request("POST", token, "/v1/images/edits", data=form, files={"image": ("a.png", PNG)})
    assert live.upstream.last(model).json == {"model": model, "prompt": "a hat"}
    assert set(answer.headers["x-airelays-ignored-parameters"].split(",")) == {"models", "num_images"}
    server.post(token, {"model": model, "prompt": "x", "max_tokens": 5, "samples": 4}, path="/v1/completions")
    assert live.upstream.last(model).json == {"model": model, "prompt": "x", "max_tokens": 5, "n": 4}


def test_images_arrive_in_parts(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        kind = "image_generation" if call.path.endswith("generations") else "image_edit"
        frame = {
            "b64_json": "A" * 200_000,
            "created_at": 1,
            "size": "1024x1024",
            "quality": "low",
            "background": "opaque",
            "output_format": "png",
        }
        await call.send(
            b"event: x\ndata: "
            + __import__("json").dumps({"type": f"{kind}.partial_image", "partial_image_index": 0, **frame}).encode()
            + b"\n\n"
        )
        await call.event({"type": f"{kind}.completed", "usage": IMAGE_USAGE, **frame})
        await call.end()

    model = served(live, server, script, price={"input": 0, "output": 1})
    with sdk.images.with_streaming_response.generate(model=model, prompt="x", stream=True, partial_images=1) as raw:
        assert [event.type for event in raw.parse()] == ["image_generation.partial_image", "image_generation.completed"]
    record = live.record(raw.headers["x-request-id"])
    assert (record.images, record.output_tokens, record.usage_source, record.end_reason) == (
        1,
        100,
        "reported",
        "completed",
    )
    assert [event.type for event in sdk.images.edit(model=model, image=PNG, prompt="x", stream=True)] == [
        "image_edit.partial_image",
        "image_edit.completed",
    ]


def test_speech_is_passed_on_as_it_comes(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        assert call.path == "/v1/audio/speech" and call.json["input"] == "Hello wörld"
        if call.json.get("stream_format") == "sse":
            await call.open_stream()
            await call.event({"type": "speech.audio.delta", "audio": "AAAA"})
            await call.event(
                {"type": "speech.audio.done", "usage": {"input_tokens": 3, "output_tokens": 20, "total_tokens": 23}}
            )
            await call.end()
            return
        await call.raw(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(4):
            await call.send(b"ID3" * 1000)
        await call.end()

    model = served(live, server, script, price={"input": 0, "output": 0, "per_character": "0.000015"})
    with sdk.audio.speech.with_streaming_response.create(model=model, voice="alloy", input="Hello wörld") as answer:
        assert answer.headers["content-type"] == "audio/mpeg" and answer.read() == b"ID3" * 4000
    record = live.record(answer.headers["x-request-id"])
    assert (record.endpoint, record.characters, record.cost, record.end_reason, record.usage_source) == (
        "audio.speech",
        11,
        11 * 15000,
        "completed",
        "estimated",
    )
    with sdk.audio.speech.with_streaming_response.create(
        model=model, voice="alloy", input="Hello wörld", stream_format="sse"
    ) as answer:
        assert b"speech.audio.done" in answer.read()
    assert live.record(answer.headers["x-request-id"]).output_tokens == 20


def test_speech_that_breaks_off_is_no_whole_answer(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.raw(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n")
        await call.send(b"ID3" * 1000)
        call.cut()

    model = served(live, server, script)
    with (
        pytest.raises((openai.APIError, Exception), match=r"(?i)peer closed|incomplete|connection"),
        sdk.audio.speech.with_streaming_response.create(model=model, voice="a", input="x") as answer,
    ):
        answer.read()
    assert live.record(answer.headers["x-request-id"]).end_reason == "truncated"


@pytest.mark.parametrize(
    ("form", "expected"), [("json", "hello"), ("text", "hello\n"), ("srt", "1\n00:00"), ("verbose_json", "hello")]
)
def test_transcriptions_are_billed_by_the_second(
    sdk: OpenAI, live: Portal, server: Server, form: Any, expected: str
) -> None:
    async def script(call: Call) -> None:
        assert call.path == "/v1/audio/transcriptions" and call.form.text("response_format") == form
        assert bytes(call.form.content(call.form.files("file")[0])) == sound(2.5)
        plain = {"text": b"hello\n", "srt": b"1\n00:00"}.get(form)
        if plain is not None:
            await call.reply(200, plain, {"content-type": "text/plain; charset=utf-8"})
        elif form == "json":
            await call.reply(200, {"text": "hello", "usage": {"type": "duration", "seconds": 3}})
        else:
            await call.reply(
                200, {"task": "transcribe", "language": "english", "duration": 2.5, "text": "hello", "segments": []}
            )

    model = served(live, server, script, price={"input": 0, "output": 0, "per_second": "0.0001"})
    answer = sdk.audio.transcriptions.with_raw_response.create(
        model=model, file=("a.wav", sound(2.5), "audio/wav"), response_format=form
    )
    found: Any = answer.parse()
    assert (found if isinstance(found, str) else found.text) == expected
    record = live.record(answer.headers["x-request-id"])
    assert record.milliseconds == (3000 if form == "json" else 2500) and record.cost == record.milliseconds * 100
    assert record.usage_source == ("estimated" if form in {"text", "srt"} else "reported")


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK says so of the older endpoints
def test_transcriptions_stream_and_translations(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        if call.path.endswith("translations"):
            await call.reply(200, {"text": "in English"})
            return
        await call.open_stream()
        await call.event({"type": "transcript.text.delta", "delta": "he"})
        usage = {
            "type": "tokens",
            "input_tokens": 5,
            "output_tokens": 2,
            "total_tokens": 7,
            "input_token_details": {"text_tokens": 0, "audio_tokens": 5},
        }
        await call.event({"type": "transcript.text.done", "text": "he", "usage": usage})
        await call.end()

    model = served(live, server, script)
    with sdk.audio.transcriptions.with_streaming_response.create(
        model=model, file=("a.wav", sound(1)), stream=True
    ) as raw:
        assert [event.type for event in raw.parse()] == ["transcript.text.delta", "transcript.text.done"]
    assert live.record(raw.headers["x-request-id"]).audio_input_tokens == 5
    assert sdk.audio.translations.create(model=model, file=("a.wav", sound(1))).text == "in English"


@pytest.mark.parametrize(
    "answer",
    [
        {
            "results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}],
            "usage": {"total_tokens": 12},
        },
        {
            "output": {"results": [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.9}]},
            "usage": {"total_tokens": 12},
        },
        [{"index": 0, "score": 0.1}, {"index": 1, "score": 0.9}],
    ],
)
def test_rerank_has_one_form(live: Portal, server: Server, answer: Any) -> None:
    async def script(call: Call) -> None:
        assert call.path == "/v1/rerank" and call.json["documents"] == ["a", "b"]
        await call.reply(200, answer)

    model = live.model(script)
    response = server.post(live.token(), {"model": model, "query": "q", "documents": ["a", "b"]}, path="/v1/rerank")
    found = response.json()
    assert [(entry["index"], entry["relevance_score"]) for entry in found["results"]] == [(1, 0.9), (0, 0.1)] and found[
        "meta"
    ]["billed_units"]
    assert live.record(response).endpoint == "rerank"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("embeddings", {}, "model"),
        ("embeddings", {"model": "x"}, "input"),
        ("embeddings", {"model": "x", "input": 5}, "input"),
        ("embeddings", {"model": "x", "input": "a", "encoding_format": "z"}, "encoding_format"),
        ("moderations", {}, "input"),
        ("images/generations", {}, "prompt"),
        ("images/generations", {"prompt": "a", "n": 11}, "n"),
        ("audio/speech", {"model": "x"}, "input"),
        ("rerank", {"model": "x", "query": "q"}, "documents"),
        ("audio/transcriptions", {"model": "x"}, "file"),
        ("completions", {"model": "x", "prompt": {}}, "prompt"),
    ],
)
def test_requests_that_make_no_sense_name_the_field(
    live: Portal, server: Server, path: str, body: dict[str, Any], param: str
) -> None:
    response = server.post(live.token(), body, path=f"/v1/{path}")
    assert (
        response.status_code == 400 and response.json()["error"]["param"] == param and response.headers["x-request-id"]
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x--",
        b"--x\r\nContent-Disposition: form-data; name=model\r\n\r\nm",
        b"garbage",
        b"--x\r\n\r\n\r\n--x--\r\n",
    ],
)
def test_broken_forms_are_refused(live: Portal, server: Server, body: bytes) -> None:
    response = server.post(
        live.token(), body, path="/v1/images/edits", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert response.status_code == 400 and response.json()["error"]["code"] in {
        "invalid_multipart",
        "missing_required_parameter",
    }


def test_another_channel_answers_where_the_first_fails(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        if "first" in call.headers["authorization"]:
            await call.error(500, "broken")
        else:
            await call.reply(
                200,
                {
                    "object": "list",
                    "data": [{"object": "embedding", "index": 0, "embedding": [1.0]}],
                    "usage": {"prompt_tokens": 1, "total_tokens": 1},
                },
            )

    channels = [
        live.channel(keys=("sk-first-0123456789abcdef",), priority=1),
        live.channel(keys=("sk-second-0123456789abcdef",)),
    ]
    model = live.model(script, channels=channels)
    response = server.post(
        live.token(), {"model": model, "input": "a", "encoding_format": "float"}, path="/v1/embeddings"
    )
    assert response.status_code == 200 and response.headers["x-relay-attempts"] == "2"


def test_an_endpoint_that_an_upstream_lacks_is_learned_and_harms_nothing_else(live: Portal, server: Server) -> None:
    from relay.models import Cooldown

    async def script(call: Call) -> None:
        if call.path == "/v1/embeddings":
            await call.reply(
                404,
                {
                    "error": {
                        "message": "Unknown request URL",
                        "type": "invalid_request_error",
                        "param": None,
                        "code": "unknown_url",
                    }
                },
            )
        else:
            from tests.support.upstream import hello

            await hello(call)

    model, token = live.model(script), live.token()
    live.upstream.scripts[""] = script  # the portal asks by itself, with an empty object
    try:
        for _ in range(2):
            response = server.post(token, {"model": model, "input": "a"}, path="/v1/embeddings")
            assert (
                response.status_code == 400
                and response.json()["error"]["code"] == "unsupported_endpoint"
                and response.headers["x-should-retry"] == "false"
            )
            until(lambda: Cooldown.objects.filter(channel__served__model__name=model, kind="no_api").exists())
    finally:
        del live.upstream.scripts[""]
    assert live.upstream.count(model) == 1
    assert server.post(token, ask(model)).status_code == 200


def test_a_wallet_that_cannot_pay_is_not_asked_for_images(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        raise AssertionError("nothing may be sent")

    model = live.model(script, price={"input": 0, "output": 0, "per_image": "0.5"})
    user = live.user(balance=10**9)
    response = server.post(live.token(user), {"model": model, "prompt": "a", "n": 3}, path="/v1/images/generations")
    assert response.status_code == 429 and response.json()["error"]["code"] == "insufficient_quota"
    assert live.upstream.count(model) == 0


def test_closed_models_and_unknown_ones(live: Portal, server: Server) -> None:
    closed = live.model(None, is_open=False)
    assert server.post(live.token(), {"model": closed, "input": "a"}, path="/v1/embeddings").status_code == 403
    assert server.post(live.token(), {"model": "no-such", "input": "a"}, path="/v1/embeddings").status_code == 404
    assert server.post("sk-wrong", {"model": closed, "input": "a"}, path="/v1/embeddings").status_code == 401


def _peak(pid: int, reset: bool = False) -> int:
    """The most memory that a process has had since the last reset, in bytes."""
    from pathlib import Path

    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return 1024 * int(
        next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")).split()[
            1
        ]
    )


def test_a_large_image_and_many_texts_take_at_most_three_times_their_size(live: Portal, server: Server) -> None:
    size, texts = 6 << 20, ["word " * 200] * 2048
    vector = base64.b64encode(struct.pack("<256f", *[0.5] * 256)).decode()

    async def script(call: Call) -> None:
        if call.path.endswith("/edits"):
            assert len(call.body) > size
            await call.reply(200, {"created": 1, "data": [{"b64_json": "AAAA"}], "usage": IMAGE_USAGE})
        else:
            data = [
                {"object": "embedding", "index": index, "embedding": vector} for index in range(len(call.json["input"]))
            ]
            await call.reply(
                200, {"object": "list", "data": data, "model": "u", "usage": {"prompt_tokens": 9, "total_tokens": 9}}
            )

    model, token = live.model(script), live.token()
    body = {"model": model, "input": texts, "encoding_format": "base64"}
    assert server.post(token, {**body, "input": texts[:10]}, path="/v1/embeddings").status_code == 200
    for path, length in (("images/edits", size), ("embeddings", 2048 * 1000)):
        before = _peak(server.process.pid, reset=True)
        if path == "embeddings":
            answer = server.post(token, body, path="/v1/embeddings")
            assert len(answer.json()["data"]) == 2048
            length += len(answer.content)
        else:
            answer = httpx.post(
                f"{server.url}/v1/{path}",
                headers={"authorization": f"Bearer {token}"},
                data={"model": model, "prompt": "x"},
                files={"image": ("a.png", PNG + b"\0" * size)},
                timeout=30,
                trust_env=False,
            )
        assert answer.status_code == 200 and _peak(server.process.pid) - before <= 3 * length
