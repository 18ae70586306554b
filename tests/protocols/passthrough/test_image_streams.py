"""Streams in which images have events of their own, and some fail: Volcengine's and MiniMax's."""

from __future__ import annotations

from typing import Any

import pytest

from relay.protocols.passthrough.conversion import stream_of, whole_answer
from relay.protocols.passthrough.requests import PassthroughRequest
from relay.protocols.passthrough.stream import TypedStream
from relay.protocols.usage import Usage
from tests.protocols.codecs import events, fed, sse

SAID = "failed at http://10.1.2.3:8000/x with key sk-upstream-AAAA0123456789abcd of org-AbCdEf123456"
SECRETS = ("10.1.2.3", "AAAA0123456789", "AbCdEf123456")
BLOCKED = {"code": "OutputImageSensitiveContentDetected", "message": SAID}


def succeeded(index: int, **more: Any) -> dict[str, Any]:
    kind = "image_generation.partial_succeeded"
    return {"type": kind, "model": "m", "created": 1, "image_index": index, "url": f"https://x.example/{index}", **more}


def failed(index: int, error: Any = BLOCKED) -> dict[str, Any]:
    return {"type": "image_generation.partial_failed", "created": 1, "image_index": index, "error": error}


def completed(images: int, **more: Any) -> dict[str, Any]:
    usage = {"generated_images": images, "output_tokens": 100 * images, "total_tokens": 100 * images}
    return {"type": "image_generation.completed", "model": "m", "created": 1, "usage": usage, **more}


def stream(number: int = 1) -> TypedStream:
    return TypedStream(number, Usage(images=number), Usage(10, output=500 * number))


@pytest.mark.parametrize("asked", [1, 3])
def test_as_many_images_are_counted_as_were_delivered(asked: int) -> None:
    codec = stream(asked)
    *found, last = events(fed(codec, sse(*map(succeeded, range(3)), completed(7))))
    assert [event["image_index"] for event in found] == [0, 1, 2] and last == completed(7)
    assert codec.usage == Usage(output=700, images=3) and codec.complete and codec.media().images == 3


def test_what_failed_is_no_image_and_is_told_without_secrets() -> None:
    codec = stream(2)
    shown = fed(codec, sse(succeeded(0), failed(1), completed(1)))
    assert codec.usage is not None and codec.usage.images == 1 and codec.error is None and codec.complete
    told = events(shown)[1]
    assert (told["type"], told["image_index"]) == ("image_generation.partial_failed", 1)
    assert told["error"]["code"] == BLOCKED["code"] and told["error"]["message"].startswith("failed at")
    assert not any(secret in shown.decode() for secret in SECRETS)


@pytest.mark.parametrize(
    "error", [SAID, {"message": SAID}, {"type": "error", "message": SAID}, [SAID], {"inner": {"message": SAID}}, None]
)
def test_errors_of_any_form_are_no_images_and_keep_no_secret(error: Any) -> None:
    event = {**failed(1, error), "message": SAID, "detail": {"host": SAID}}
    for order in (event, dict(reversed(event.items()))):
        codec = stream(2)
        shown = fed(codec, sse(succeeded(0), order, completed(1))).decode()
        assert codec.media().images == 1 and not any(secret in shown for secret in SECRETS)
        assert len(events(shown.encode())) == 3


@pytest.mark.parametrize("ends", [[completed(0)], [], ["[DONE]"]])
def test_nothing_but_failures_has_not_begun(ends: list[Any]) -> None:
    codec = stream(2)
    fed(codec, sse(failed(0), failed(1), *[end for end in ends if end != "[DONE]"], done="[DONE]" in ends))
    assert not codec.started and not codec.complete
    assert (codec.error is not None and b"Sensitive" in codec.error) is bool(ends)
    assert codec.media() == Usage()


def test_an_end_without_an_image_is_an_error() -> None:
    codec = stream(2)
    fed(codec, sse(completed(2)))
    assert codec.error is not None and codec.usage is None and not codec.started


def test_a_cut_counts_what_was_delivered() -> None:
    codec = stream(3)
    fed(codec, sse(succeeded(0), failed(1), succeeded(2), done=False))
    assert not codec.complete and codec.usage is None and codec.media() == Usage(images=2, output=2 * 1056)


def test_what_is_named_by_its_event_alone_is_read_alike() -> None:
    codec = stream(2)
    pieces = []
    for event in (succeeded(0), failed(1), completed(1)):
        kind = event.pop("type")
        pieces.append(b"event: " + kind.encode() + b"\n" + sse(event, done=False))
    shown = fed(codec, b"".join(pieces)).decode()
    assert codec.usage is not None and codec.usage.images == 1 and not any(secret in shown for secret in SECRETS)


def test_an_error_at_the_end_counts_what_it_reports_and_what_was_delivered() -> None:
    codec = stream(3)
    error = {"type": "error", "error": {"message": SAID, "http_code": "500"}, "usage": {"total_tokens": 100}}
    fed(codec, sse(succeeded(0), error))
    assert codec.error is not None and codec.usage is not None and codec.usage.images == 1
    assert codec.usage.input + codec.usage.output == 100


def test_an_end_with_an_error_after_images_says_so() -> None:
    codec = stream(3)
    fed(codec, sse(succeeded(0), completed(1, error=BLOCKED)))
    assert codec.failed is not None and codec.usage is not None and codec.usage.images == 1
    assert not any(secret in codec.terminal.decode() for secret in SECRETS)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "transcript.text.delta", "delta": "x", "error": {"message": SAID}},
        {"type": "transcript.failed", "message": SAID},
        {"type": "speech.audio.done", "error": {"message": SAID, "code": "x"}},
        {"error": {"message": SAID}, "type": "transcript.text.done"},
    ],
)
def test_an_error_inside_another_event_is_one(event: dict[str, Any]) -> None:
    codec = TypedStream()
    out = fed(codec, sse({"type": "transcript.text.delta", "delta": "a"}, event))
    assert codec.error is not None and SAID not in out.decode() and not codec.complete
    empty = TypedStream()
    fed(empty, sse({"type": "transcript.text.delta", "delta": '"error" is no error', "error": None}, done=False))
    assert empty.error is None and empty.started


# -- the form that was not asked for -----------------------------------------------------------------------------------

ASKED = PassthroughRequest(output_limit=500, choices=2, units=Usage(images=2))


def test_such_a_stream_is_a_whole_answer_where_one_was_asked_for() -> None:
    body, error = whole_answer("images.generations", sse(succeeded(0, size="1x1"), failed(1), completed(1)), ASKED)
    answer = events(b"data: " + body + b"\n\n")[0]
    assert error is None and answer["data"][0] == {"url": "https://x.example/0", "size": "1x1"}
    assert answer["data"][1] == {"error": BLOCKED} and answer["usage"]["output_tokens"] == 100
    _, error = whole_answer("images.generations", sse(failed(0), completed(0)), ASKED)
    assert error is not None and b"Sensitive" in error


def test_an_entry_that_failed_is_an_event_of_its_own() -> None:
    answer = b'{"created": 1, "data": [{"url": "u"}, {"error": {"code": "x"}}], "usage": {"total_tokens": 5}}'
    found = events(stream_of("images.edits", answer))
    assert [event["type"] for event in found] == ["image_edit.partial_failed", "image_edit.completed"]
    assert found[1]["usage"] == {"total_tokens": 5} and "error" not in found[1]
