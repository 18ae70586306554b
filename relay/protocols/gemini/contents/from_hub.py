"""Converts messages of the hub form to Gemini's contents. Pure.

Consecutive messages of one side are one content, but for results of functions, which stand alone behind their calls.
Source: ai.google.dev/gemini-api/docs/function-calling and /thought-signatures, read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, decode_object, object_of, objects_of, text_of
from relay.protocols.chat_completions.dialects import images_of
from relay.protocols.chat_completions.hub import DOCUMENT, EXTENSIONS, FAILED_TOOL, RAW, unsupported_block_error
from relay.protocols.fields import BadRequest, lost_members, unsupported
from relay.protocols.gemini.contents.signatures import BYPASS, signature_of
from relay.protocols.gemini.objects import blob_of, file_of
from relay.protocols.gemini.request import check_stored

PROTOCOL: Final = "generate_content"  # of raw blocks
NEW_FORMS: Final = 3  # the first generation that has ids of calls, and images in results
_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_AUDIO: Final = {"mp3": "audio/mp3", "wav": "audio/wav"}
_SIGNED: Final = frozenset(("extra_content",))
_MESSAGE: Final = (
    EXTENSIONS
    | _SIGNED
    | frozenset(("id", "role", "content", "refusal", "tool_calls", "annotations", "reasoning_content", "images"))
)
_RESULT: Final = EXTENSIONS | frozenset(("role", "content", "tool_call_id", "name"))
_PART: Final = EXTENSIONS | frozenset(
    ("type", "text", "refusal", "image_url", "file", "input_audio", "video_url", "where", "annotations")
)
_CALL: Final = _SIGNED | frozenset(("id", "index", "type", "function"))
_IMAGE: Final = ("url",)


@dataclass(slots=True)
class Contents:
    """The contents of one request."""

    generation: int  # of the model
    names: Mapping[str, str]  # what Gemini is told of each tool
    system: Json | None = None
    contents: list[Json] = field(default_factory=list)
    _called: dict[str, str] = field(default_factory=dict)  # names of the tools of the last calls, by id

    def add(self, messages: Sequence[Json]) -> None:
        """Add messages in the order that `strict_messages` gives them. Raises BadRequest."""
        for number, message in enumerate(messages):
            role, where = text_of(message, "role"), f"messages[{number}]"
            if role == "system" and number == 0:
                self.system = {"parts": [{"text": text}]} if (text := plain_text(message, where)) else None
            elif role == "user":
                self._append("user", _parts(message.get("content"), where))
            elif role == "assistant":
                self._append("model", self._model_parts(message, where))
            elif role == "tool":
                self._add_result(message, where)
            else:
                error = f"The role of {where} must be system, developer, user, assistant or tool."
                raise BadRequest(error, f"{where}.role")
        if not self.contents and self.system is not None:  # which Gemini does not take alone
            self.contents.append({"role": "user", "parts": self.system["parts"]})
            self.system = None

    def _append(self, role: str, parts: list[Json]) -> None:
        if not parts:
            return
        last = self.contents[-1] if self.contents else {}
        results = any("functionResponse" in part for part in objects_of(last, "parts"))
        if last.get("role") == role and not results:
            last["parts"] = [*objects_of(last, "parts"), *parts]
        else:
            self.contents.append({"role": role, "parts": parts})

    # -- the model's -------------------------------------------------------------------------------------------------

    def _model_parts(self, message: Json, where: str) -> list[Json]:
        parts: list[Json] = []
        if thoughts := text_of(message, "reasoning_content"):
            parts.append({"text": thoughts, "thought": True})
        text = plain_text(message, where) or text_of(message, "refusal")
        if text.strip():
            parts.append({"text": text})
        parts += [part for image in images_of(message) for part in [_image(image, f"{where}.images")]]
        if parts and (signature := signature_of(message)):
            parts[-1]["thoughtSignature"] = signature
        calls = objects_of(message, "tool_calls")
        self._called = {}
        signatures = list(map(signature_of, calls))
        if calls and not any(signatures) and self.generation >= NEW_FORMS:
            signatures[0] = BYPASS  # on the first alone, as Gemini itself signs parallel calls
        for number, (call, signature) in enumerate(zip(calls, signatures, strict=True)):
            parts.append(self._call(call, signature, f"{where}.tool_calls[{number}]"))
        return parts

    def _call(self, call: Json, signature: str, where: str) -> Json:
        function = object_of(call, "function")
        name = text_of(function, "name")
        if not name:
            raise unsupported("The upstream of this model takes calls of functions only.", f"{where}.type")
        called: Json = {
            "name": self.names.get(name, name),
            "args": decode_object(text_of(function, "arguments")) or {},
            **self._id(text_of(call, "id")),
        }
        self._called[text_of(call, "id")] = text_of(called, "name")
        return {"functionCall": called, **({"thoughtSignature": signature} if signature else {})}

    def _id(self, call_id: str) -> Json:
        return {"id": call_id} if self.generation >= NEW_FORMS and _ID.fullmatch(call_id) else {}

    # -- results -----------------------------------------------------------------------------------------------------

    def _add_result(self, message: Json, where: str) -> None:
        """The result of a call, in one content with those of the other calls of its turn."""
        call_id, content = text_of(message, "tool_call_id"), message.get("content")
        media: list[Json] = []
        if isinstance(content, list):
            media = [part for part in _parts(content, where) if "text" not in part]
        text = _text_of(content)
        name = "error" if message.get(FAILED_TOOL) else "result"
        response: Json = {name: text or ("See the attached files." if media else "")}
        answered: Json = {"name": self._called.get(call_id, call_id), "response": response, **self._id(call_id)}
        beside: list[Json] = []
        if media and self.generation >= NEW_FORMS:
            answered["parts"] = media
        elif media:
            beside = [{"text": f"Files of the result of {answered['name']}:"}, *media]
        last = self.contents[-1] if self.contents else {}
        if last.get("role") == "user" and any("functionResponse" in part for part in objects_of(last, "parts")):
            last["parts"] = [*objects_of(last, "parts"), {"functionResponse": answered}, *beside]
        else:
            self.contents.append({"role": "user", "parts": [{"functionResponse": answered}, *beside]})


def lost_of_messages(messages: Sequence[Json]) -> list[str]:
    """The names of members of messages that Gemini has no place for, such as a speaker's `name`."""
    found: list[str] = []
    for message in messages:
        if RAW in message:
            continue
        known = _RESULT if text_of(message, "role") == "tool" else _MESSAGE
        found += lost_members([message], known, "messages[].")
        if isinstance(message.get("content"), list):
            parts = objects_of(message, "content")
            found += lost_members(parts, _PART, "messages[].content[].")
            images = [
                {**image, "detail": ""} if image.get("detail") == "auto" else image
                for image in (object_of(part, "image_url") for part in parts)
            ]
            found += lost_members(images, _IMAGE, "messages[].content[].image_url.")
        found += lost_members(objects_of(message, "tool_calls"), _CALL, "messages[].tool_calls[].")
    return list(dict.fromkeys(found))


def plain_text(message: Json, where: str) -> str:
    """The text of a message that has nothing else. Raises BadRequest."""
    content = message.get("content")
    if isinstance(content, list) and any(
        text_of(part, "type") not in {"text", "refusal", "", "output_text", "input_text"}
        for part in objects_of(message, "content")
    ):
        raise BadRequest(f"The content of {where} must be text.", f"{where}.content")
    return _text_of(content)


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = objects_of({"": content}, "")
    return "\n".join(text for part in parts if (text := text_of(part, "text") or text_of(part, "refusal")))


def _parts(content: object, where: str) -> list[Json]:
    """The parts of a user's content; blank texts, which Gemini refuses, are left out."""
    if isinstance(content, str):
        return [{"text": content}] if content.strip() else []
    if not isinstance(content, list):
        raise BadRequest(f"The content of {where} must be a text or a list of parts.", f"{where}.content")
    parts = [_part(part, f"{where}.content[{number}]") for number, part in enumerate(content) if isinstance(part, dict)]
    return [part for part in parts if "text" not in part or text_of(part, "text").strip()]


def _part(part: Json, where: str) -> Json:
    kind = text_of(part, "type")
    if kind in {"text", "input_text", "output_text", "refusal"}:
        return {"text": text_of(part, "text") or text_of(part, "refusal")}
    if kind == "image_url":
        return _image(part, where)
    if kind == "video_url":
        video = part.get("video_url")
        return _media(
            video if isinstance(video, str) else text_of(object_of(part, "video_url"), "url"), "video/mp4", where
        )
    if kind == "input_audio":
        audio = object_of(part, "input_audio")
        name = text_of(audio, "format")
        data = text_of(audio, "data")
        blob = blob_of(data, "audio/wav") or {"mimeType": _AUDIO.get(name, f"audio/{name or 'wav'}"), "data": data}
        return {"inlineData": blob}
    if kind == "file":
        file = object_of(part, "file")
        if not (data := text_of(file, "file_data")):
            raise unsupported(
                "Send the file as “file_data”, or upload it here and name its “file_id”.", f"{where}.file"
            )
        blob = blob_of(data, "application/pdf") or {"mimeType": "application/pdf", "data": data}
        if name := text_of(file, "filename"):
            blob["mimeType"] = _kind_by_name(blob, name)
        return {"inlineData": blob}
    if DOCUMENT in part:
        return _fetched(text_of(object_of(part, DOCUMENT), "url"), "application/pdf", where)
    if RAW in part:
        raw = object_of(part, RAW)
        if text_of(raw, "protocol") != PROTOCOL:
            raise unsupported_block_error(part)
        return object_of(raw, "value")
    message = (
        f"The upstream of this model cannot be given a content part of the type “{kind[:60]}”. Leave it out, or use "
        "another model."
    )
    raise unsupported(message, f"{where}.type")


def _kind_by_name(blob: Json, filename: str) -> str:
    """The type of a file whose data URL does not say it."""
    given = text_of(blob, "mimeType")
    if given not in {"application/octet-stream", "binary/octet-stream"}:
        return given
    return text_of(file_of(filename, given), "mimeType")


def _image(part: Json, where: str) -> Json:
    image = part.get("image_url")
    url = image if isinstance(image, str) else text_of(object_of(part, "image_url"), "url")
    return _media(url, "image/jpeg", where)


def _media(url: str, unnamed: str, where: str) -> Json:
    """An image or a film as data, or by its address, which Gemini fetches."""
    if not url:
        raise BadRequest(f"The address of {where} is missing.", where)
    blob = blob_of(url, unnamed)
    return {"inlineData": blob} if blob is not None else _fetched(url, unnamed, where)


def _fetched(url: str, unnamed: str, where: str) -> Json:
    """A file by its address. Raises BadRequest for one that Gemini would read with the portal's own account."""
    found: Json = {"fileData": file_of(url, unnamed)}
    check_stored(found, where)
    return found
