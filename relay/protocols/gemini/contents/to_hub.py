"""Converts the contents of a Gemini client's request to messages of the hub form. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, encode, text_of
from relay.protocols.chat_completions.dialects import EXTRA
from relay.protocols.chat_completions.hub import FAILED_TOOL, THINKING, document_part, raw_part, thinking_entry
from relay.protocols.chat_completions.signatures.returned import Returned
from relay.protocols.chat_completions.signatures.sealed import thoughts_in
from relay.protocols.fields import BadRequest
from relay.protocols.gemini.contents.from_hub import PROTOCOL
from relay.protocols.gemini.contents.signatures import VENDOR, signed
from relay.protocols.gemini.objects import data_url, is_base64
from relay.protocols.gemini.request import camel, member, object_in, objects_in, text_in

_RESULTS: Final = frozenset(("result", "output"))  # members of a response that are all of it
# Members of parts that are converted, or that say nothing to a model.
_CONVERTED: Final = frozenset(
    ("text", "thought", "thoughtSignature", "inlineData", "fileData", "functionCall", "functionResponse")
)
_RESULT: Final = frozenset(("id", "name", "response", "parts"))
_AUDIO: Final = {"audio/mp3": "mp3", "audio/mpeg": "mp3", "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav"}


@dataclass(slots=True)
class Messages:
    """The messages of one request. A call has no id of its own at older models: it is known by its place."""

    messages: list[Json] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    _open: list[tuple[str, str]] = field(default_factory=list)  # ids and names of calls without a result
    _calls: int = 0

    def add(self, contents: Sequence[Json]) -> None:
        """Raises BadRequest."""
        for number, content in enumerate(contents):
            where = f"contents[{number}]"
            role, parts = text_of(content, "role") or "user", objects_in(content, "parts")
            if role == "model":
                self._add_model(parts, where)
            elif role in {"user", "function", "tool"}:
                self._add_user(parts, where)
            elif role == "system":
                self.messages.append({"role": "system", "content": text_in(content)})
            else:
                raise BadRequest(f"The role of {where} must be “user” or “model”.", f"{where}.role")

    # -- the model's -------------------------------------------------------------------------------------------------

    def _add_model(self, parts: Sequence[Json], where: str) -> None:
        texts: list[str] = []
        thoughts: list[str] = []
        thinking: list[Json] = []
        calls: list[Json] = []
        images: list[Json] = []
        returned = Returned()
        for number, part in enumerate(parts):
            place = f"{where}.parts[{number}]"
            self._lose(part)
            signature = member(part, "thoughtSignature")
            signature = signature if isinstance(signature, str) else ""
            known = thoughts_in(signature)
            thinking += known
            own = signature if not known else ""
            if called := object_in(part, "functionCall"):
                call = self._call(called, place)
                if own:
                    returned.add_call(signed(own), text_of(call, "id"), len(calls))
                    call.update(signed(own))
                calls.append(call)
                continue
            if own:
                returned.extra = signed(own)[EXTRA]
            if isinstance(text := part.get("text"), str):
                (thoughts if part.get("thought") is True else texts).append(text)
            elif blob := object_in(part, "inlineData"):
                images.append({"type": "image_url", "image_url": {"url": data_url(blob)}})
            elif said := _code_of(part):
                texts.append(said)
        if not (texts or calls or thoughts or images):
            return
        message: Json = {"role": "assistant", "content": "".join(texts) or None}
        if thoughts:
            message["reasoning_content"] = "".join(thoughts)
        if calls:
            message["tool_calls"] = calls
        if images:
            message["images"] = images
        if packed := returned.packed(VENDOR):
            thinking.append(thinking_entry("", [], [], packed))
        if thinking:
            message[THINKING] = thinking
        for call in calls:
            call.pop(EXTRA, None)  # it is in the packed signature, which its vendor alone is given
        self.messages.append(message)

    def _call(self, called: Json, where: str) -> Json:
        name = text_of(called, "name")
        if not name:
            raise BadRequest(
                f"The name of the function in {where}.functionCall is missing.", f"{where}.functionCall.name"
            )
        call_id = text_of(called, "id") or f"call_{self._calls}"
        self._calls += 1
        self._open.append((call_id, name))
        arguments = called.get("args")
        written = encode(arguments if arguments is not None else {}).decode()
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": written}}

    # -- the user's --------------------------------------------------------------------------------------------------

    def _add_user(self, parts: Sequence[Json], where: str) -> None:
        """Results of functions become messages of their own; media in them follow as the user's."""
        content: list[Json] = []
        later: list[Json] = []
        for number, part in enumerate(parts):
            self._lose(part)
            if answered := object_in(part, "functionResponse"):
                later += self._result(answered, f"{where}.parts[{number}].functionResponse")
            else:
                content += _user_part(part, f"{where}.parts[{number}]")
        if content := [*later, *content]:
            if all(part["type"] == "text" for part in content):
                joined: object = "\n".join(text_of(part, "text") for part in content)
            else:
                joined = content
            self.messages.append({"role": "user", "content": joined})

    def _result(self, answered: Json, where: str) -> list[Json]:
        """Add the result of a function; returns the media in it, with a label."""
        name, given = text_of(answered, "name"), text_of(answered, "id")
        found = next((one for one in self._open if given and one[0] == given), None)
        if found is None and not given:
            found = next((one for one in self._open if one[1] == name), None)
        if found is not None:
            self._open.remove(found)
        call_id = found[0] if found is not None else given or f"call_{name}"
        self.dropped += [
            f"contents[].parts[].functionResponse.{other}"
            for other, value in answered.items()
            if other not in _RESULT and value not in (None, False, "")
        ]
        response = answered.get("response")
        message: Json = {"role": "tool", "tool_call_id": call_id, "content": _text_of_result(response)}
        if isinstance(response, dict) and list(response) == ["error"] and isinstance(response["error"], str):
            message |= {"content": response["error"], FAILED_TOOL: True}
        self.messages.append(message)
        media = [
            part
            for number, one in enumerate(objects_in(answered, "parts"))
            for part in _user_part(one, f"{where}.parts[{number}]")
        ]
        return [{"type": "text", "text": f"Files of the result of {call_id}:"}, *media] if media else []

    def _lose(self, part: Json) -> None:
        """Note the members that no other API has a place for."""
        self.dropped += [
            f"contents[].parts[].{name}"
            for name, value in part.items()
            if camel(name) in {"videoMetadata", "mediaResolution", "mediaProcessing"} and value not in (None, {}, "")
        ]


def _code_of(part: Json) -> str:
    """Code that ran at Google, or what it wrote, as text."""
    code, result = object_in(part, "executableCode"), object_in(part, "codeExecutionResult")
    if code:
        return f"\n```{text_of(code, 'language').lower()}\n{text_of(code, 'code').rstrip()}\n```\n"
    return f"\n```\n{text_of(result, 'output').rstrip()}\n```\n" if result else ""


def _text_of_result(response: object) -> str:
    """A function's response as text: all of it, but for the one member that it is in by convention."""
    if isinstance(response, dict) and len(response) == 1:
        name, value = next(iter(response.items()))
        if name in _RESULTS and isinstance(value, str):
            return value
    return encode(response if response is not None else {}).decode()


def _user_part(part: Json, where: str) -> list[Json]:
    """A part of a user's content. Raises BadRequest."""
    if isinstance(text := part.get("text"), str):
        return [{"type": "text", "text": text}]
    if blob := object_in(part, "inlineData"):
        return [_inline(blob, where)]
    if file := object_in(part, "fileData"):
        uri, kind = member(file, "fileUri"), member(file, "mimeType")
        uri, kind = (uri if isinstance(uri, str) else ""), (kind if isinstance(kind, str) else "")
        if kind.startswith("image/"):
            return [{"type": "image_url", "image_url": {"url": uri}}]
        return [document_part(uri, None, f"{where}.fileData.fileUri")]
    known = [name for name, value in part.items() if value is not None]
    if not known:
        return []
    name = next((name for name in known if camel(name) not in _CONVERTED), known[0])
    return [raw_part(PROTOCOL, part, f"a part with “{name[:60]}”", f"{where}.{name[:60]}")]


def _inline(blob: Json, where: str) -> Json:
    kind = member(blob, "mimeType")
    kind = kind.lower() if isinstance(kind, str) else ""
    data = text_of(blob, "data")
    if not data or not kind or not is_base64(data):
        raise BadRequest(f"{where}.inlineData needs a “mimeType”, and “data” in Base64.", f"{where}.inlineData")
    url = data_url({**blob, "mimeType": kind})
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if kind in _AUDIO:
        return {"type": "input_audio", "input_audio": {"data": url.partition(",")[2], "format": _AUDIO[kind]}}
    if kind.startswith("video/"):
        return {"type": "video_url", "video_url": {"url": url}}
    name = member(blob, "displayName")
    filename: Json = {"filename": name if isinstance(name, str) and name else f"file.{kind.rpartition('/')[2]}"}
    return {"type": "file", "file": {**filename, "file_data": url}}
