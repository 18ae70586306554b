"""Images, transcripts and speech that came in the other form: a stream where an answer was asked for, or the other way
round. Pure.

Source of the events: OpenAI's API reference, November 2026; vLLM streams transcripts as chunks with `choices`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of, objects_of, text_of
from relay.protocols.events import EventReader, payload, typed_event
from relay.protocols.passthrough.images.entries import COMPLETED, FAILED, SUCCEEDED
from relay.protocols.passthrough.requests import PassthroughRequest
from relay.protocols.passthrough.stream import TypedStream

_IN: Final = ("url", "b64_json")  # members with an image
_OF_ONE: Final = (*_IN, "revised_prompt", "size", "error", "code", "message")  # of an event that are of its image
# Members of an answer with images that each of its events repeats.
_OF_ALL: Final = ("background", "output_format", "quality", "size")
_FORMATS: Final = (
    (b"RIFF", "audio/wav"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\xff", "audio/mpeg"),
)


def whole_answer(endpoint: str, stream: bytes, asked: PassthroughRequest) -> tuple[bytes, bytes | None]:
    """The answer that a complete stream stands for, empty when the stream is incomplete; and its error object.

    Of speech, the answer is the audio.
    """
    codec = TypedStream(max(1, asked.units.images), asked.units, asked.whole, images=asked.images)
    codec.feed(stream)
    codec.finish()
    if codec.error is not None or not codec.done:
        return b"", codec.error
    reader = EventReader()
    found = [decode_object(payload(event)) for event in (*reader.feed(stream), *reader.finish())]
    events = [event for event in found if event is not None]
    if endpoint.startswith("images."):
        return _images(events), None
    if endpoint == "audio.speech":
        return _audio(events), None
    return _transcript(events, asked), None


def _images(events: list[Json]) -> bytes:
    """The answer with the images of a stream, and with the errors in place of those that failed."""
    entries: list[Json] = []
    whole: Json = {}
    reports: list[Json] = []
    for event in events:
        kind = text_of(event, "type").encode()
        if kind in COMPLETED:
            whole, reports = event, [*reports, object_of(event, "usage")]
        if kind in FAILED or (kind in COMPLETED | SUCCEEDED and any(event.get(name) for name in _IN)):
            entries.append({name: event[name] for name in _OF_ONE if event.get(name)})
    if not entries:
        return b""
    created = whole.get("created_at") or whole.get("created")
    answer: Json = {"created": created, **{name: whole[name] for name in _OF_ALL if name in whole}, "data": entries}
    if any(reports):
        answer["usage"] = _added(reports)
    return encode(answer)


def _added(reports: list[Json]) -> Json:
    """The sum of usage objects, of which each image has one."""
    total: Json = {}
    for report in reports:
        for name, value in report.items():
            before = total.get(name)
            if isinstance(value, dict):
                total[name] = _added([before, value] if isinstance(before, dict) else [value])
            elif isinstance(value, int) and isinstance(before, int):
                total[name] = before + value
            else:
                total[name] = value
    return total


def _transcript(events: list[Json], asked: PassthroughRequest) -> bytes:
    if asked.encoding in {"srt", "vtt"}:
        return b""  # their times are lost
    last = next((event for event in reversed(events) if text_of(event, "type") == "transcript.text.done"), {})
    text = text_of(last, "text") or "".join(map(_delta, events))
    if asked.encoding == "text":
        return text.encode() + b"\n"
    usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
    return encode({"text": text, **({"usage": usage} if usage else {})})


def _delta(event: Json) -> str:
    return text_of(event, "delta") or "".join(
        text_of(object_of(choice, "delta"), "content") for choice in objects_of(event, "choices")
    )


def _audio(events: list[Json]) -> bytes:
    try:
        return b"".join(base64.b64decode(text_of(event, "audio"), validate=True) for event in events)
    except (binascii.Error, ValueError):
        return b""


def audio_type(audio: bytes) -> str:
    """The content type of audio, by its first bytes."""
    return next((kind for head, kind in _FORMATS if audio.startswith(head)), "application/octet-stream")


def stream_of(endpoint: str, answer: bytes) -> bytes:
    """The stream that an answer with images or a transcript stands for."""
    whole = decode_object(answer)
    if not endpoint.startswith("images."):
        text = text_of(whole, "text") if whole is not None else answer.decode("utf-8", "replace").strip()
        end: Json = {"type": "transcript.text.done", "text": text}
        if whole is not None and whole.get("usage"):
            end["usage"] = whole["usage"]
        return _written({"type": "transcript.text.delta", "delta": text}, end)
    whole = whole or {}
    kind = "image_edit.completed" if endpoint == "images.edits" else "image_generation.completed"
    shared: Json = {"created_at": whole.get("created"), **{name: whole[name] for name in _OF_ALL if name in whole}}
    entries = objects_of(whole, "data")
    bad = [entry for entry in entries if entry.get("error") and not any(entry.get(name) for name in _IN)]
    made: list[Json] = [{"type": kind, **shared, **entry} for entry in entries if entry not in bad]
    if made and whole.get("usage"):
        made[-1]["usage"] = whole["usage"]
    failed_kind = kind.replace("completed", "partial_failed")
    failed: list[Json] = [{"type": failed_kind, **entry} for entry in bad]
    return _written(*failed, *made)


def stream_of_audio(audio: bytes, input_tokens: int, output_tokens: int) -> bytes:
    """The stream that speech stands for. Tokens are estimates."""
    usage = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    return _written(
        {"type": "speech.audio.delta", "audio": base64.b64encode(audio).decode()},
        {"type": "speech.audio.done", "usage": usage},
    )


def _written(*events: Json) -> bytes:
    return b"".join(typed_event(text_of(event, "type"), encode(event)) for event in events)
