"""What audio and images cost, whatever an upstream reports of them: by every class that has a price."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, completion, sound

pytestmark = pytest.mark.shared

FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
SAID = "One two three four."
CUE = "00:00:00,000 --> 00:00:02,000"
SEGMENT = {"start": 0.0, "end": 2.0, "text": SAID}
PLAIN = {"text": f"{SAID}\n", "srt": f"1\n{CUE}\n{SAID}\n", "vtt": f"WEBVTT\n\n{CUE.replace(',', '.')}\n{SAID}\n"}


def transcribe(live: Portal, server: Server, price: dict[str, Any], content: bytes, answer: Any, **form: Any) -> Any:
    """The record of a transcription; `answer`: of the upstream."""

    async def script(call: Call) -> None:
        kind = "application/json" if isinstance(answer, dict) else "text/plain"
        await call.reply(200, answer if isinstance(answer, dict) else answer.encode(), {"content-type": kind})

    model = live.model(script, price=price)
    files = {"file": ("a.wav", content)}
    path = "/v1/audio/transcriptions"
    response = server.request("POST", live.token(), path, data={"model": model, **form}, files=files)
    assert response.status_code == 200, response.text
    return live.record(response)


def answer_in(form: str, **more: Any) -> Any:
    if form in PLAIN:
        return PLAIN[form]
    if form == "json":
        return {"text": SAID, **more}
    return {"task": "transcribe", "duration": 2.0, "text": SAID, "segments": [SEGMENT], **more}


PRICES: dict[str, dict[str, Any]] = {
    "tokens": {"input": 6, "output": 10},
    "audio tokens": {"input": 0, "audio_input": 6, "output": 10},
    "seconds": {"input": 0, "output": 0, "per_second": "0.0001"},
    "tokens and seconds": {"input": 6, "output": 10, "per_second": "0.0001"},
    "tokens and calls": {"input": 6, "output": 10, "per_call": "0.001"},
}


@pytest.mark.parametrize("name", PRICES)
def test_a_transcription_costs_the_same_in_every_format(live: Portal, server: Server, name: str) -> None:
    price, content = PRICES[name], sound(2)
    found = {}
    for form in FORMATS:
        record = transcribe(live, server, price, content, answer_in(form), response_format=form)
        by_seconds = name == "seconds" and form.endswith("_json")  # they tell the duration
        assert record.usage_source == ("reported" if by_seconds else "estimated"), form
        found[form] = record.cost
    assert len(set(found.values())) == 1 and min(found.values()) > 0, found
    seconds = 2 * 10**5 if "per_second" in price else 0
    tokens = found["json"] - seconds - (10**6 if "per_call" in price else 0)
    assert tokens == (35 * 6000 + 5 * 10_000 if name != "seconds" else 0)


@pytest.mark.parametrize("form", ["json", "verbose_json"])
def test_seconds_are_no_report_of_tokens(live: Portal, server: Server, form: str) -> None:
    answer = answer_in(form, usage={"type": "duration", "seconds": 2})
    record = transcribe(live, server, PRICES["audio tokens"], sound(2), answer, response_format=form)
    assert (record.usage_source, record.milliseconds, record.audio_input_tokens) == ("estimated", 2000, 35)
    assert record.cost == 35 * 6000 + 5 * 10_000


def test_tokens_are_no_report_of_seconds_or_of_what_is_audio(live: Portal, server: Server) -> None:
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19}
    for price, cost, source in (
        (PRICES["tokens"], 14 * 6000 + 5 * 10_000, "reported"),
        (PRICES["audio tokens"], 14 * 6000 + 5 * 10_000, "estimated"),
        (PRICES["tokens and seconds"], 14 * 6000 + 5 * 10_000 + 2 * 10**5, "estimated"),
        (PRICES["seconds"], 2 * 10**5, "estimated"),
    ):
        record = transcribe(live, server, price, sound(2), answer_in("json", usage=usage))
        assert (record.cost, record.usage_source) == (cost, source), price


@pytest.mark.parametrize("duration", [0, -5, 0.5, 4000, 1e300, "2.0", "long", None, True, [10]])
def test_a_duration_that_the_file_cannot_have_is_measured(live: Portal, server: Server, duration: Any) -> None:
    answer = answer_in("verbose_json", duration=duration)
    record = transcribe(live, server, PRICES["seconds"], sound(100), answer, response_format="verbose_json")
    assert (record.milliseconds, record.cost, record.usage_source) == (100_000, 10**7, "estimated")


@pytest.mark.parametrize("duration", [95, 100.4, 112])
def test_a_duration_that_it_can_have_is_believed(live: Portal, server: Server, duration: float) -> None:
    answer = answer_in("verbose_json", duration=duration)
    record = transcribe(live, server, PRICES["seconds"], sound(100), answer, response_format="verbose_json")
    assert (record.milliseconds, record.usage_source) == (duration * 1000, "reported")


def test_seconds_in_the_usage_of_a_stream_are_checked_as_well(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event({"type": "transcript.text.delta", "delta": SAID})
        usage = {"type": "duration", "seconds": 1}
        await call.event({"type": "transcript.text.done", "text": SAID, "usage": usage})
        await call.end()

    costs = {"seconds": 10**7, "tokens": 1701 * 6000 + 5 * 10_000}
    for name, cost in costs.items():
        model = live.model(script, price=PRICES[name])
        data = {"model": model, "stream": "true"}
        files = {"file": ("a.wav", sound(100))}
        response = server.request("POST", live.token(), "/v1/audio/transcriptions", data=data, files=files)
        record = live.record(response)
        assert (record.cost, record.milliseconds, record.usage_source) == (cost, 100_000, "estimated")


# -- images ------------------------------------------------------------------------------------------------------------


def pictured(live: Portal, server: Server, price: dict[str, Any], usage: Any, made: int = 1) -> Any:
    """The record of an edit of two pictures."""

    async def script(call: Call) -> None:
        data = [{"b64_json": "AAAA"}] * made
        await call.reply(200, {"created": 1, "data": data, **({"usage": usage} if usage else {})})

    model = live.model(script, price=price)
    files = [("image[]", ("a.png", b"png")), ("image[]", ("b.png", b"png"))]
    data = {"model": model, "prompt": "a hat", "quality": "low", "n": "2"}
    response = server.request("POST", live.token(), "/v1/images/edits", data=data, files=files)
    assert response.status_code == 200, response.text
    return live.record(response)


def test_images_without_usage_are_estimated_where_tokens_have_a_price(live: Portal, server: Server) -> None:
    for made in (1, 2):
        record = pictured(live, server, {"input": 5, "output": 40}, None, made)
        assert (record.usage_source, record.images, record.output_tokens) == ("estimated", made, 272 * made)
        assert record.cost == record.input_tokens * 5000 + record.output_tokens * 40_000 and record.input_tokens > 1600
    record = pictured(live, server, {"input": 0, "output": 0, "per_image": "0.04"}, None)
    assert (record.usage_source, record.images, record.cost) == ("reported", 1, 4 * 10**7)
    record = pictured(live, server, {"input": 0, "output": 40, "per_image": "0.04"}, None)
    assert (record.usage_source, record.cost) == ("estimated", 4 * 10**7 + 272 * 40_000)


def test_tokens_of_pictures_that_are_not_told_apart_are_estimated(live: Portal, server: Server) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 272, "total_tokens": 1272}
    record = pictured(live, server, {"input": 5, "image_input": 10, "output": 40}, usage)
    assert record.usage_source == "estimated" and 990 <= record.image_input_tokens <= 1000
    told = {**usage, "input_tokens_details": {"text_tokens": 300, "image_tokens": 700}}
    record = pictured(live, server, {"input": 5, "image_input": 10, "output": 40}, told)
    assert record.usage_source == "reported" and record.cost == 300 * 5000 + 700 * 10_000 + 272 * 40_000


# -- speech ------------------------------------------------------------------------------------------------------------


def spoken(live: Portal, server: Server, price: dict[str, Any], usage: Any, **more: Any) -> Any:
    async def script(call: Call) -> None:
        if usage is None:
            await call.reply(200, sound(4), {"content-type": "audio/wav"})
            return
        await call.open_stream()
        await call.event({"type": "speech.audio.delta", "audio": "AAAA"})
        await call.event({"type": "speech.audio.done", "usage": usage})
        await call.end()

    model = live.model(script, price=price)
    body = {"model": model, "input": "x" * 100, "voice": "a", **more}
    response = server.post(live.token(), body, path="/v1/audio/speech")
    assert response.status_code == 200, response.text
    return live.record(response)


def test_speech_by_tokens_of_audio_by_characters_and_by_seconds(live: Portal, server: Server) -> None:
    usage = {"input_tokens": 25, "output_tokens": 80, "total_tokens": 105}
    price = {"input": "0.6", "output": 0, "audio_output": 12}
    record = spoken(live, server, price, usage, stream_format="sse")
    assert (record.audio_output_tokens, record.cost) == (80, 25 * 600 + 80 * 12_000)
    record = spoken(live, server, {"input": 0, "output": 0, "per_character": "0.00001"}, usage, stream_format="sse")
    assert (record.characters, record.cost) == (100, 10**6)
    record = spoken(live, server, {"input": 0, "output": 0, "per_second": "0.001"}, None)
    assert record.cost == record.milliseconds * 1000 and 4000 <= record.milliseconds <= 4010
    record = spoken(live, server, price, None)
    assert record.usage_source == "estimated" and record.audio_output_tokens == 150


# -- texts -------------------------------------------------------------------------------------------------------------


def test_seconds_images_or_characters_excuse_no_tokens_elsewhere(live: Portal, server: Server) -> None:
    """A price that has more than tokens: what tokens cost is charged all the same."""

    async def script(call: Call) -> None:
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "seconds": 3}
        if call.path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": 0, "embedding": [1.0]}]
            await call.reply(200, {"object": "list", "data": data, "usage": usage})
        elif call.path.endswith("/rerank"):
            await call.reply(200, {"results": [{"index": 0, "relevance_score": 0.5}], "usage": usage})
        else:
            await call.reply(200, {"id": "m", "results": [{"flagged": False}], "usage": usage})

    model, token = live.model(script, price={"input": 1, "output": 1, "per_call": "0.01"}), live.token()
    text = "word " * 40
    for path, more in (
        ("embeddings", {"input": text}),
        ("moderations", {"input": text}),
        ("rerank", {"query": "q", "documents": [text]}),
    ):
        response = server.post(token, {"model": model, **more}, path=f"/v1/{path}")
        record = live.record(response)
        assert record.usage_source == "estimated" and record.cost == 10**7 + record.input_tokens * 1000, path
        assert 50 <= record.input_tokens <= 56


def test_audio_of_a_chat_is_told_apart_by_what_was_heard(live: Portal, server: Server) -> None:
    """An upstream that reports one number for text and sound."""

    async def script(call: Call) -> None:
        sound = {"id": "a", "data": "A" * 64_000 * 4, "transcript": "hello", "expires_at": 1}  # four seconds
        message = {"role": "assistant", "content": None, "audio": sound}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 10, "completion_tokens": 82, "total_tokens": 92}
        await call.reply(200, {"id": "c", "object": "chat.completion", "choices": choices, "usage": usage})

    model = live.model(script, price={"input": 0, "output": 10, "audio_output": 100})
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "modalities": ["text", "audio"]}
    record = live.record(server.post(live.token(), body))
    assert record.usage_source == "estimated" and 75 <= record.audio_output_tokens <= 82
    audio = record.audio_output_tokens
    assert record.cost == audio * 100_000 + (82 - audio) * 10_000


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_pictures_and_sound_in_a_prompt_are_told_apart_by_what_was_sent(
    live: Portal, server: Server, path: str
) -> None:
    async def script(call: Call) -> None:
        if call.path.endswith("/responses"):
            usage = {"input_tokens": 1600, "output_tokens": 5, "total_tokens": 1605}
            item = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
            said = [{"type": "output_text", "text": "hello", "annotations": []}]
            body = {"id": "resp_1", "object": "response", "status": "completed", "output": [{**item, "content": said}]}
            await call.reply(200, {**body, "model": "m", "created_at": 1, "usage": usage})
        else:
            await call.reply(200, completion(usage={"prompt_tokens": 1600, "completion_tokens": 5}))

    model = live.model(script, price={"input": 1, "image_input": 10, "output": 0})
    url = "https://example.com/a.png"
    pictures: list[Any] = [{"type": "image_url", "image_url": {"url": url}}] * 2
    body: Any = {"messages": [{"role": "user", "content": pictures}]}
    if path == "responses":
        body = {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}] * 2}]}
    record = live.record(server.post(live.token(), {"model": model, **body}, path=f"/v1/{path}"))
    assert record.usage_source == "estimated" and 1400 <= record.image_input_tokens <= 1600
    assert record.cost == record.image_input_tokens * 10_000 + (1600 - record.image_input_tokens) * 1000
    plain = {"input": "hi"} if path == "responses" else {"messages": [{"role": "user", "content": "hi"}]}
    record = live.record(server.post(live.token(), {"model": model, **plain}, path=f"/v1/{path}"))
    assert (record.usage_source, record.image_input_tokens, record.cost) == ("reported", 0, 1600 * 1000)


# -- forms -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([("file", ("a.wav", sound(1))), ("file", ("b.wav", sound(100)))], "file"),
        ([("file", ("a.wav", sound(1))), ("audio", ("b.wav", sound(100)))], "file"),
        ([("file", ("a.wav", b""))], "file"),
        ([("file", ("a.wav", sound(1))), ("url", (None, "https://x.example/long.mp3"))], "url"),
        ([("file", (None, "not a file"))], "file"),
        ([("file", ("a.wav", sound(1))), ("file", (None, "data:audio/wav;base64,AAAA"))], "file"),
        ([("file", ("a.wav", sound(1))), ("language", (None, "en")), ("language", (None, "de"))], "language"),
    ],
)
def test_a_form_has_one_file_that_is_measured(live: Portal, server: Server, parts: Any, param: str) -> None:
    model = live.model()
    path, fields = "/v1/audio/transcriptions", [*parts, ("model", (None, model))]
    response = server.request("POST", live.token(), path, files=fields)
    assert response.status_code == 400 and response.json()["error"]["param"] == param
    assert live.upstream.count(model) == 0


def test_a_part_without_a_name_is_refused(live: Portal, server: Server) -> None:
    model = live.model()
    body = (
        f'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n--b\r\nContent-Disposition: form-data; '
        'filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = server.post(live.token(), body.encode(), path="/v1/audio/transcriptions", headers=headers)
    assert response.status_code == 400 and response.json()["error"]["code"] == "invalid_multipart"
    assert live.upstream.count(model) == 0


# -- cut answers -------------------------------------------------------------------------------------------------------

POLICIES = ("delivered", "reserved", "free")


def cut(live: Portal, server: Server, script: Any, policy: str, price: dict[str, Any], path: str, body: Any) -> Any:
    """The record of an answer that breaks off at its upstream, of a user who has money."""
    model = live.model(script, price=price, disconnect_policy=policy)
    token = live.token(live.user(balance=10**10))
    server.catch_up()
    headers = {"authorization": f"Bearer {token}"}
    with httpx.stream(
        "POST", f"{server.v1}/{path}", json={"model": model, **body}, headers=headers, timeout=60, trust_env=False
    ) as response:
        assert response.status_code == 200
        try:
            for _ in response.iter_raw():
                pass
        except httpx.RemoteProtocolError:
            pass  # sound has no other way to say it
    return live.record(response.headers["x-request-id"])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("sse", [False, True])
def test_speech_that_breaks_off_is_billed_by_the_policy(live: Portal, server: Server, policy: str, sse: bool) -> None:
    async def script(call: Call) -> None:
        if sse:
            await call.open_stream()
            for _ in range(3):
                await call.event({"type": "speech.audio.delta", "audio": "A" * 32_000})
        else:
            await call.raw(b"HTTP/1.1 200 OK\r\ncontent-type: audio/pcm\r\ntransfer-encoding: chunked\r\n\r\n")
            await call.send(bytes(72_000))
        call.cut()

    body = {"input": "x" * 300, "voice": "a", "response_format": "pcm", **({"stream_format": "sse"} if sse else {})}
    price = {"input": 1, "output": 20, "per_character": "0.00001"}
    record = cut(live, server, script, policy, price, "audio/speech", body)
    assert (record.end_reason, record.billing, record.usage_source) == ("truncated", policy, "estimated")
    heard = record.input_tokens * 1000 + 30 * 20_000 + 300 * 10_000  # a second and a half of sound
    assert (record.output_tokens, record.audio_output_tokens) == (30, 30)
    assert record.cost == {"delivered": heard, "free": 0}.get(policy, record.reserved) and record.reserved > heard


@pytest.mark.parametrize("policy", POLICIES)
def test_images_that_break_off_are_billed_by_the_policy(live: Portal, server: Server, policy: str) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        for index in range(2):
            event = {"type": "image_generation.partial_image", "b64_json": "A" * 4000, "partial_image_index": index}
            await call.event(event)
        call.cut()

    body = {"prompt": "a cat", "n": 2, "quality": "low", "stream": True, "partial_images": 3}
    price = {"input": 0, "output": 40, "per_image": "0.01"}
    record = cut(live, server, script, policy, price, "images/generations", body)
    assert (record.end_reason, record.billing, record.images, record.output_tokens) == ("truncated", policy, 1, 472)
    begun = 472 * 40_000 + 10**7  # an image of low quality, and two partial ones
    assert record.cost == {"delivered": begun, "free": 0}.get(policy, record.reserved) and record.reserved > begun


def test_a_client_that_leaves_pays_no_more_than_for_what_broke_off(live: Portal, server: Server) -> None:
    """The upstream is closed when the client has left for long enough, and what it made by then is counted alike."""

    async def script(call: Call) -> None:
        await call.raw(b"HTTP/1.1 200 OK\r\ncontent-type: audio/pcm\r\ntransfer-encoding: chunked\r\n\r\n")
        await call.send(bytes(72_000))
        await asyncio.Event().wait()

    model = live.model(script, price={"input": 1, "output": 20})
    token = live.token(live.user(balance=10**10))
    server.catch_up()
    headers = {"authorization": f"Bearer {token}"}
    body = {"model": model, "input": "x" * 300, "voice": "a", "response_format": "pcm"}
    with httpx.stream(
        "POST", f"{server.v1}/audio/speech", json=body, headers=headers, timeout=60, trust_env=False
    ) as response:
        next(response.iter_raw())
    record = live.record(response.headers["x-request-id"])
    assert (record.end_reason, record.output_tokens) == ("client_gone", 30), json.dumps(record.attempt_log)


def test_a_plain_answer_that_is_cut_is_tried_elsewhere_and_costs_nothing(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n")
        await call.raw(b'{"created": 1, "data": [{"b64_json": "AAAA')
        call.cut()

    model = live.model(script, price={"input": 1, "output": 20})
    response = server.post(live.token(), {"model": model, "prompt": "a"}, path="/v1/images/generations")
    record = live.record(response)
    assert (response.status_code, record.end_reason, record.cost) == (502, "upstream_error", 0)
