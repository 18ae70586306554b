"""Decodes a stream of chat chunks into hub chunks, and finds usage, errors and the end. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from portal.lib.json import Json, encode, int_of, object_of, objects_of, text_of
from relay.protocols.characters import TextJoiner, clean, read_object
from relay.protocols.chat_completions.calls import ToolCalls, pieces_of
from relay.protocols.chat_completions.dialects import (
    FAILED,
    Content,
    citations_of,
    cited_url,
    content_of,
    failure_of,
    finish_reason,
    images_of,
    reasoning_of,
)
from relay.protocols.chat_completions.hub import THINKING, thinking_entry
from relay.protocols.chat_completions.signatures.returned import Returned
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.error_objects import is_error_object, named_error, states, unreadable_error
from relay.protocols.events import UNREADABLE, Unreadable, payload
from relay.protocols.usage import Usage, newer


@dataclass(slots=True)
class _Choice:
    """What has arrived of one choice."""

    calls: ToolCalls = field(default_factory=ToolCalls)
    returned: Returned = field(default_factory=Returned)
    halves: TextJoiner = field(default_factory=TextJoiner)
    said: bool = False  # a delta had content
    finished: bool = False
    cited: list[Json] = field(default_factory=list)  # annotations, which some vendors repeat in every chunk
    images: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ChatDecoder:
    """The decoder of one stream. Usage inside a choice (Moonshot) moves to the chunk, where the hub form has it."""

    watch_finish: bool = False  # the upstream sends no `[DONE]`, and its body may end without proof that it is whole
    vendor: str = ""  # which gets back what it wants to have back
    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the upstream's error object
    done: bool = False  # the stream reached its end
    _choices: dict[int, _Choice] = field(default_factory=dict)
    _finished: bool = False  # the first choice, or another where there is no first, has a finish_reason

    def chunks(self, event: bytes) -> list[Json]:
        data = payload(event)
        if not data:
            self.error = named_error(event)
            return []
        if data == b"[DONE]":
            self.done = True
            return self._rest()
        chunk, broken = read_object(data)
        if chunk is None:
            self.error = unreadable_error(event, data)
            return []
        answered = isinstance(chunk.get("choices"), list) or isinstance(chunk.get("usage"), dict)
        failed = next((choice["error"] for choice in objects_of(chunk, "choices") if states(choice.get("error"))), None)
        if failed is not None:  # OpenRouter
            self.error = encode({"error": clean(failed)})
        else:
            self.error = data if is_error_object(chunk, answered) else named_error(event)
        if self.error is not None:
            return []
        try:
            return self._chunks(chunk, broken)
        except Unreadable:
            self.error = UNREADABLE
            return []

    def finish(self, clean: bool) -> None:
        self.done = self.done or (self._finished and (clean or self.watch_finish))

    def _chunks(self, chunk: Json, broken: bool) -> list[Json]:
        listed = chunk.get("choices")
        if listed and (not isinstance(listed, list) or not all(isinstance(choice, dict) for choice in listed)):
            raise Unreadable
        choices = objects_of(chunk, "choices")
        usage = chunk.get("usage") or (choices[0].get("usage") if choices else None)
        found = parse_chat_usage(encode(clean(usage) if broken else usage)) if isinstance(usage, dict) else None
        if found is None:
            chunk.pop("usage", None)
        else:
            self.usage, chunk["usage"] = newer(self.usage, found), usage
        chunk["choices"] = [self._choice(chunk, choice) for choice in choices]
        if self.error is not None:
            return []
        if broken:
            whole = clean(chunk)
            return [whole] if isinstance(whole, dict) else []
        return [chunk]

    # -- choices -----------------------------------------------------------------------------------------------------

    def _choice(self, chunk: Json, choice: Json) -> Json:
        """A choice in the hub form. Raises Unreadable."""
        index = int_of(choice, "index")
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _Choice()
        finish = finish_reason(choice.get("finish_reason"))
        if finish == FAILED:
            self.error = failure_of(choice)
            return {}
        state.finished = state.finished or bool(finish)
        self._finished = self._finished or (bool(finish) and (index == 0 or 0 not in self._choices))
        if not (finish or state.finished or state.halves or state.returned) and (text := _text_alone(choice, chunk)):
            state.said = True
            choice["delta"] = {"content": text if text.isascii() else state.halves.join("content", text)}
            choice["finish_reason"] = None
            return choice
        delta = self._delta(state, _delta_of(choice, state), chunk)
        return {
            "index": index,
            "delta": delta,
            "logprobs": choice.get("logprobs"),
            "finish_reason": finish or None,
        }

    def _delta(self, state: _Choice, delta: Json, chunk: Json) -> Json:
        content = content_of(delta.get("content"))
        pieces = pieces_of(delta)
        calls, owners = state.calls.feed(pieces) if pieces else ([], [])
        for piece, call in zip(pieces, owners, strict=True):
            state.returned.add_call(piece, call.id, call.number)
        state.returned.add(delta, content)
        if state.finished:
            calls += state.calls.finish()
        out = _texts(state, delta, content, bool(pieces))
        if calls:
            out["tool_calls"] = [_joined(state, call) for call in calls]
        if state.finished and state.halves:
            _add_rest(state, out)
        state.said = state.said or bool(out)
        if "annotations" in delta or "citations" in chunk or "search_results" in chunk:
            _cite(state, out, [*objects_of(delta, "annotations"), *citations_of(chunk)])
        if "images" in delta or content.images:
            shown = [image for image in (*images_of(delta), *content.images) if _image_url(image) not in state.images]
            state.images += map(_image_url, shown)
            if shown:
                out["images"] = shown
        if (out or pieces or state.finished) and not (len(out) == 1 and "reasoning_content" in out):
            self._give_back(state, out)
        return out

    def _give_back(self, state: _Choice, out: Json) -> None:
        """Add what the vendor wants to have back, before the text or the calls that it belongs to."""
        signature = state.returned.packed(self.vendor)
        if signature:
            out[THINKING] = [thinking_entry("", [], [], signature)]

    def _rest(self) -> list[Json]:
        """What the end of the stream completes: names of calls, and halves of characters."""
        found: list[Json] = []
        for index, state in self._choices.items():
            out: Json = {}
            try:
                calls = state.calls.finish()
            except Unreadable:
                self.error, self.done = UNREADABLE, False
                return []
            if calls:
                out["tool_calls"] = [_joined(state, call) for call in calls]
            _add_rest(state, out)
            self._give_back(state, out)
            if out:
                found.append({"choices": [{"index": index, "delta": out, "finish_reason": None}]})
        return found


def _text_alone(choice: Json, chunk: Json) -> str:
    """The text of a delta that has nothing else: nearly all chunks."""
    delta = choice.get("delta")
    if not isinstance(delta, dict) or "citations" in chunk or "search_results" in chunk:
        return ""
    for name, value in delta.items():
        if value is not None and name != "content" and name != "role":
            return ""
    return text_of(delta, "content")


def _delta_of(choice: Json, state: _Choice) -> Json:
    """The delta of a choice, or the whole message of one that had none. Raises Unreadable."""
    delta = choice.get("delta")
    if delta is not None and not isinstance(delta, dict):
        raise Unreadable
    if delta or state.said:  # Perplexity sends the message so far beside each delta
        return delta or {}
    message = object_of(choice, "message")
    return message or ({"content": choice["text"]} if isinstance(choice.get("text"), str) else {})


def _texts(state: _Choice, delta: Json, content: Content, called: bool) -> Json:
    """The texts of a delta. One that goes on in another kind of text lacks the half of a character for good."""
    refusal = delta.get("refusal")
    if refusal is not None and not isinstance(refusal, str):
        raise Unreadable
    texts = {
        "reasoning_content": content.thoughts or reasoning_of(delta),
        "content": content.text or text_of(object_of(delta, "audio"), "transcript"),
        "refusal": refusal or "",
    }
    out: Json = {}
    others = called or any(texts.values())
    for name, text in texts.items():
        whole = state.halves.join(name, text)
        if not text and others and state.halves:
            whole = state.halves.rest(name)
        if whole:
            out[name] = whole
    return out


def _joined(state: _Choice, call: Json) -> Json:
    function = object_of(call, "function")
    function["arguments"] = state.halves.join(call["index"], text_of(function, "arguments"))
    return call


def _add_rest(state: _Choice, out: Json) -> None:
    for key in state.halves.open_texts():
        rest = state.halves.rest(key)
        if isinstance(key, str):
            out[key] = text_of(out, key) + rest
        else:
            out["tool_calls"] = [*objects_of(out, "tool_calls"), {"index": key, "function": {"arguments": rest}}]


def _cite(state: _Choice, out: Json, annotations: list[Json]) -> None:
    """Add the annotations that were not there before. Sources beside the choices count by their address."""
    urls = {cited_url(entry) for entry in state.cited}
    for entry in annotations:
        url = cited_url(entry)
        bare = object_of(entry, "url_citation").get("end_index") == 0
        if entry not in state.cited and not (bare and url in urls):
            state.cited.append(entry)
            urls.add(url)
            out["annotations"] = [*objects_of(out, "annotations"), entry]


def _image_url(image: Json) -> str:
    return text_of(object_of(image, "image_url"), "url") or text_of(image, "image_url")
