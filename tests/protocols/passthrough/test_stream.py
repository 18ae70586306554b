"""Streams of images, speech and transcriptions."""

from __future__ import annotations

from typing import Any

from relay.protocols.passthrough.stream import TypedStream
from relay.protocols.usage import Usage
from tests.protocols.codecs import events, fed, sse


def image(number: int, tokens: int) -> dict[str, Any]:
    details = {"image_tokens": 2, "cached_tokens": 1}
    usage = {"input_tokens": 10, "output_tokens": tokens, "input_tokens_details": details}
    return {"type": "image_generation.completed", "b64_json": str(number), "usage": usage}


def test_each_image_of_a_stream_adds_its_own_usage() -> None:
    stream = TypedStream(endings=2, units=Usage(images=2))
    found = events(fed(stream, sse(image(1, 100), image(2, 200), done=False)))
    assert [event["b64_json"] for event in found] == ["1", "2"] and stream.done
    assert stream.usage == Usage(20, cached_input=2, output=300, image_input=4, images=2)


def test_fewer_images_than_were_asked_for_are_a_whole_answer_of_so_many() -> None:
    stream = TypedStream(endings=3, units=Usage(images=3))
    fed(stream, sse(image(1, 100), image(2, 200), done=False))
    assert stream.complete and stream.usage is not None and stream.usage.images == 2


def test_a_stream_without_a_last_event_is_not_complete() -> None:
    stream = TypedStream(units=Usage(images=1))
    fed(stream, sse({"type": "image_generation.partial_image", "b64_json": "x"}, done=False))
    assert stream.started and not stream.complete
