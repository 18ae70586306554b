"""Which objects are errors although they come with the status 200."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from relay.protocols.chat_completions.answer import parse_chat_answer
from relay.protocols.chat_completions.stream import ChatStream
from relay.protocols.error_objects import Envelope, is_error_object, named_error
from relay.protocols.passthrough.answers import read_embeddings, read_transcription
from relay.protocols.passthrough.requests import PassthroughRequest
from relay.protocols.passthrough.stream import ByteStream, TypedStream
from relay.protocols.responses.answer import parse_responses_answer
from relay.protocols.responses.objects import event_type
from relay.protocols.responses.stream import ResponsesStream
from tests.protocols.codecs import chat_codec, chunk, codec, sse

ERRORS: list[dict[str, Any]] = [
    {"error": {"message": "no", "code": 500}},
    {"error": "no"},
    {"object": "error", "message": "no", "type": "BadRequestError", "code": 400},  # vLLM
    {"type": "error", "error": {"type": "overloaded_error", "message": "no"}},  # Anthropic
    {"detail": "no"},  # FastAPI
    {"detail": [{"loc": ["body"], "msg": "no"}]},
    {"code": "Throttling.RateQuota", "message": "no", "request_id": "1"},  # DashScope
    {"code": 20012, "message": "no", "data": None},  # SiliconFlow
    {"code": 500, "msg": "404 NOT_FOUND", "success": False},  # Zhipu
    {"error_code": 336003, "error_msg": "no"},  # Baidu
    {"success": False, "errors": [{"code": 7003, "message": "no"}], "result": None},  # Cloudflare
    {"Response": {"Error": {"Code": "InternalError", "Message": "no"}, "RequestId": "1"}},  # Tencent
    {"id": "1", "choices": None, "base_resp": {"status_code": 1002, "status_msg": "no"}},  # MiniMax
]
HEALTHY: list[dict[str, Any]] = [
    {"error": None},
    {"error": ""},
    {"error": {}},
    {"error": []},
    {"error": False},
    {"error": 0},
    {"error": {"message": "", "type": "", "param": "", "code": None}},
    {"code": 0, "message": "success"},
    {"code": "200", "message": "ok"},
    {"base_resp": {"status_code": 0, "status_msg": ""}},
    {"detail": None, "errors": []},
]


@pytest.mark.parametrize("found", ERRORS)
def test_every_vendors_form_is_an_error_in_every_api(found: dict[str, Any]) -> None:
    body, stream = json.dumps(found).encode(), sse(found, done=False)
    assert is_error_object(found, False)
    chat, response = parse_chat_answer(body), parse_responses_answer(body)
    assert chat is not None and chat.error and response is not None and response.is_error
    for read in (read_embeddings, read_transcription):
        answer = read(body, PassthroughRequest())
        assert answer is not None and answer.is_error
    for scanner in (ChatStream(), ResponsesStream(lambda whole: whole), codec(), chat_codec(), TypedStream()):
        assert scanner.feed(stream) == b"" and scanner.error is not None and not scanner.started


@pytest.mark.parametrize("found", HEALTHY)
def test_empty_members_are_no_errors(found: dict[str, Any]) -> None:
    choices, vectors = [chunk({"content": "Hi"})["choices"][0]], [{"embedding": [0.5]}]
    answer = {**found, "choices": choices, "output": [], "data": vectors}
    body = json.dumps(answer).encode()
    chat, response = parse_chat_answer(body), parse_responses_answer(body)
    assert chat is not None and not chat.error and response is not None and not response.is_error
    embeddings = read_embeddings(body, PassthroughRequest())
    assert embeddings is not None and not embeddings.is_error
    for scanner in (ChatStream(), codec()):
        assert b"Hi" in scanner.feed(sse(answer, done=False)) and scanner.error is None and scanner.started


@pytest.mark.parametrize("found", ERRORS)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("eol", [b"\n", b"\r\n", b"\r"])
def test_an_error_in_the_middle_is_found_although_chunks_pass_unread(
    found: dict[str, Any], together: bool, eol: bytes
) -> None:
    scanner = ChatStream()
    said = [sse(chunk({"content": text}), done=False).replace(b"\n", eol) for text in ("Hi", " you")]
    pieces = [*said, b"id: 7" + eol + sse(found).replace(b"\n", eol)]
    out = b"".join(map(scanner.feed, [b"".join(pieces)] if together else pieces))
    assert b" you" in out and b"[DONE]" not in out and not scanner.done
    assert scanner.error is not None and json.loads(scanner.error) == found


def test_an_error_in_a_choice_is_one() -> None:
    failed = {**chunk({"content": ""}), "choices": [{"index": 0, "delta": {}, "error": {"code": 502, "message": "no"}}]}
    for scanner in (ChatStream(), codec()):
        scanner.feed(sse(failed, done=False))
        assert json.loads(scanner.error or b"{}") == {"error": {"code": 502, "message": "no"}}
    message = {"role": "assistant", "content": ""}
    answer = parse_chat_answer(
        json.dumps({"choices": [{"message": message, "error": {"code": 502, "message": "no"}}]}).encode()
    )
    assert answer is not None and answer.error


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (b'event: error\ndata: {"message":"slow down"}\n\n', "slow down"),
        (b"event: error\ndata: slow down\n\n", "slow down"),
        (b"event:error\r\ndata:slow down\r\n\r\n", "slow down"),
        (b'event: message\ndata: {"message":"slow down"}\n\n', ""),
    ],
)
def test_an_event_named_error_is_one_whatever_is_in_it(event: bytes, message: str) -> None:
    named = named_error(event)
    assert (named is not None) is bool(message) and message.encode() in (named or b"")
    for scanner in (ChatStream(), ResponsesStream(lambda whole: whole), codec(), chat_codec(), TypedStream()):
        scanner.feed(event)
        assert (message.encode() in (scanner.error or b"")) and (scanner.error is not None) is bool(message)


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><title>\xe7\x99\xbb\xe5\xbd\x95</title>",
        b"\xef\xbb\xbf\n<html>",
        b'{"error":{"message":"no"}}',
        b'{ "detail": "\xe6\xb2\xa1\xe6\x9c\x89" }',
    ],
)
def test_text_in_place_of_audio_never_starts_an_answer(body: bytes) -> None:
    scanner = ByteStream()
    assert scanner.feed(body) == b"" and scanner.feed(b" more") == b"" and scanner.finish() == b""
    assert not scanner.started and not scanner.complete


@pytest.mark.parametrize(
    "body", [b"ID3\x04\x00", b"RIFF....WAVE", b"OggS", b"fLaC", b"\xff\xf3", b'{"\x00\x01\xff\x00', b"<\x80"]
)
def test_audio_passes_whatever_it_begins_with(body: bytes) -> None:
    scanner = ByteStream()
    assert scanner.feed(body) == body and scanner.finish() == b"" and scanner.complete


def test_the_envelope_of_a_large_answer_is_read_without_its_content() -> None:
    class Answer(Envelope):
        choices: msgspec.Raw = msgspec.Raw()

    found = msgspec.json.decode(b'{"choices":[1],"error":{}}', type=Answer)
    assert not found.is_error(True) and bytes(found.choices) == b"[1]"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"type":"response.created","response":{"metadata":{"type":"error"}}}', "response.created"),
        (b'{"response":{"metadata":{"type":"error"}},"type":"response.created"}', "response.created"),
        (b'{"response":{"tools":[{"default":{"type":"response.failed"}}]},"type":"response.in_progress"}',
         "response.in_progress"),
        (b'{"response":{"metadata":{"type":"error"}}}', None),
        (b'{"error":{"type":"server_error"},"sequence_number":1,"type":"error"}', "error"),
        (b'{"error":{"type":"error","message":"no"}}', None),
        (b'{"choices":[]}', None),
    ],
)  # fmt: skip
def test_the_type_of_an_event_is_its_own(data: bytes, kind: str | None) -> None:
    assert event_type(data) == kind
