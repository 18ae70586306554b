"""Decodes the answers of Gemini into hub chunks, and finds usage, errors and the end. Pure.

A stream has no end marker: it is complete when every candidate has a finishReason, or the prompt was blocked, and the
connection ends cleanly. Function calls arrive whole. A complete answer is a stream of one event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, encode, int_of, object_of, objects_of, text_of
from relay.protocols.characters import TextJoiner, clean, read_object
from relay.protocols.chat_completions.dialects import EXTRA, FAILED, Content, failure_of
from relay.protocols.chat_completions.hub import THINKING, thinking_entry
from relay.protocols.chat_completions.signatures.returned import Returned
from relay.protocols.error_objects import is_error_object, named_error, unreadable_error
from relay.protocols.events import NOTHING_MADE, UNREADABLE, Unreadable, payload
from relay.protocols.gemini.answer import is_nothing
from relay.protocols.gemini.contents.signatures import signed
from relay.protocols.gemini.objects import annotations_of, chat_logprobs, chat_usage, created_at, data_url, finish_of
from relay.protocols.gemini.usage import Searches, parse_gemini_usage
from relay.protocols.usage import Usage, newer

# Members of a part that say nothing by themselves.
_SILENT: Final = frozenset(
    (
        "thought", "thoughtSignature", "videoMetadata", "mediaResolution", "partMetadata", "speechMetadata",
        "documentMetadata", "spreadsheetMetadata", "audioMetadata", "mediaProcessing", "audioTranscription",
    )
)  # fmt: skip
_NO_CONTENT: Final = Content()


@dataclass(slots=True)
class _Candidate:
    """What has arrived of one candidate."""

    returned: Returned = field(default_factory=Returned)
    halves: TextJoiner = field(default_factory=TextJoiner)
    text: list[str] = field(default_factory=list)  # what it has said
    calls: int = 0
    call_ids: dict[str, Json] = field(default_factory=dict)  # with the functions that they call
    cited: list[Json] = field(default_factory=list)
    said: bool = False
    finished: bool = False
    reason: str = ""  # why it is


@dataclass(slots=True)
class GeminiDecoder:
    """The decoder of one answer."""

    vendor: str = ""  # which gets back what it wants to have back
    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the upstream's error object
    done: bool = False  # the answer is complete
    head: Json = field(default_factory=dict)  # members that every chunk has
    _candidates: dict[int, _Candidate] = field(default_factory=dict)
    _blocked: bool = False  # the prompt was, so that there are no candidates
    _metadata: Json | None = None  # the newest usage, unread
    _searches: Searches = field(default_factory=Searches)

    def chunks(self, event: bytes) -> list[Json]:
        data = payload(event)
        if not data:
            self.error = named_error(event)
            return []
        found, broken = read_object(data)
        if found is None:
            self.error = unreadable_error(event, data)
            return []
        if is_error_object(found, "candidates" in found or "promptFeedback" in found):
            self.error = encode(clean(found)) if broken else data
            return []
        return self.chunks_of(found, broken)

    def chunks_of(self, response: Json, broken: bool = False) -> list[Json]:
        """The hub chunks of a decoded response, or of a piece of one."""
        try:
            out = self._response(response)
        except Unreadable:
            self.error = UNREADABLE
            return []
        if broken:
            whole = clean(out)
            return whole if isinstance(whole, list) else []
        return out

    def finish(self, clean: bool) -> None:
        self._read_usage()
        finished = bool(self._candidates) and all(candidate.finished for candidate in self._candidates.values())
        self.done = self.done or (clean and (finished or self._blocked))

    @property
    def ended(self) -> bool:
        """Whether every candidate is finished, or the prompt was blocked."""
        self.finish(clean=True)
        return self.done

    # -- responses -----------------------------------------------------------------------------------------------------

    def _response(self, response: Json) -> list[Json]:
        self._set_head(response)
        out: list[Json] = []
        listed = response.get("candidates")
        if listed is not None and (
            not isinstance(listed, list) or not all(isinstance(candidate, dict) for candidate in listed)
        ):
            raise Unreadable
        self._searches.add(response)
        for candidate in objects_of(response, "candidates"):
            out += self._candidate(candidate)
            if self.error is not None:
                return []
        feedback = object_of(response, "promptFeedback")
        if reason := text_of(feedback, "blockReason"):
            out += self._block(feedback, reason)
        metadata = response.get("usageMetadata")
        if isinstance(metadata, dict):
            self._metadata = metadata
            ending = self._blocked or any(candidate.finished for candidate in self._candidates.values())
            if ending and self._read_usage():
                out.append({**self.head, "choices": [], "usage": chat_usage(metadata)})
        if any(map(self._said_nothing, self._candidates.values())):
            self.error = NOTHING_MADE
            return []
        return out

    def _said_nothing(self, candidate: _Candidate) -> bool:
        return candidate.finished and not candidate.said and is_nothing(candidate.reason, self.usage)

    def _read_usage(self) -> bool:
        """Read the newest usage, of which every piece has one that grows; returns whether it has counts."""
        metadata, self._metadata = self._metadata, None
        usage = parse_gemini_usage(encode(clean(metadata))) if metadata is not None else None
        self.usage = self._searches.beside(newer(self.usage, usage))
        return usage is not None

    def _set_head(self, response: Json) -> None:
        if not self.head:
            response_id = text_of(response, "responseId")
            self.head = {
                "id": f"chatcmpl-{response_id}" if response_id else "",
                "object": "chat.completion.chunk",
                "created": created_at(response),
                "model": text_of(response, "modelVersion"),
            }

    def _block(self, feedback: Json, reason: str) -> list[Json]:
        if self._blocked or self._candidates:
            return []
        self._blocked = True
        refusal = text_of(feedback, "blockReasonMessage") or f"The prompt was blocked ({reason[:60]})."
        return [self._chunk(0, {"refusal": refusal}), self._chunk(0, {}, "content_filter")]

    def _candidate(self, candidate: Json) -> list[Json]:
        index = int_of(candidate, "index")
        state = self._candidates.get(index)
        if state is None:
            state = self._candidates[index] = _Candidate()
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        if (content is not None and not isinstance(content, dict)) or (
            parts is not None and not (isinstance(parts, list) and all(isinstance(part, dict) for part in parts))
        ):
            raise Unreadable
        deltas: list[Json] = []
        for part in parts or ():
            _join(deltas, self._part(state, part))
        reason = text_of(candidate, "finishReason")
        if reason and state.halves:
            _join(deltas, _rest(state))
        sources = "groundingMetadata" in candidate or "citationMetadata" in candidate
        if sources and (new := _uncited(state, annotations_of(candidate, "".join(state.text)))):
            _join(deltas, {"annotations": new})
        state.said = state.said or bool(deltas)
        out = [self._chunk(index, delta) for delta in deltas]
        if (logprobs := chat_logprobs(object_of(candidate, "logprobsResult"))) is not None:
            if out:
                objects_of(out[-1], "choices")[0]["logprobs"] = logprobs
            else:
                out.append(self._chunk(index, {"content": ""}, None, logprobs))
        finish = finish_of(reason, state.calls > 0, state.said)
        if finish == FAILED:
            message = text_of(candidate, "finishMessage")
            self.error = failure_of({"finish_reason": reason, "error": {"message": message} if message else {}})
            return []
        if finish:
            state.finished, state.reason = True, reason
            out.append(self._chunk(index, {}, finish))
        return out

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _part(self, state: _Candidate, part: Json) -> Json:
        """The delta of a part. Raises Unreadable."""
        signature = text_of(part, "thoughtSignature")
        if "functionCall" in part:
            return self._call(state, object_of(part, "functionCall"), signature)
        delta: Json = {}
        text = part.get("text")
        if text is not None:
            if not isinstance(text, str):
                raise Unreadable
            name = "reasoning_content" if part.get("thought") is True else "content"
            if whole := state.halves.join(name, text):
                delta[name] = whole
                if name == "content":
                    state.text.append(whole)
        elif "inlineData" in part:
            blob = object_of(part, "inlineData")
            if not text_of(blob, "mimeType").startswith("image/") or not (url := data_url(blob)):
                raise Unreadable
            if part.get("thought") is not True:  # a draft of an image that is thought about
                delta["images"] = [{"type": "image_url", "image_url": {"url": url}}]
        elif "executableCode" in part or "codeExecutionResult" in part:
            said = _code(part)
            state.text.append(said)
            delta["content"] = said
        elif any(name not in _SILENT and value not in (None, "", {}, []) for name, value in part.items()):
            raise Unreadable
        if signature:
            delta.update(signed(signature))
            state.returned.add(delta, _NO_CONTENT)
            self._give_back(state, delta)
        return delta

    def _call(self, state: _Candidate, called: Json, signature: str) -> Json:
        """The delta of a function call. Raises Unreadable for one without a name, or that arrives in pieces."""
        name, arguments = text_of(called, "name"), called.get("args")
        if not name or called.get("partialArgs") or called.get("willContinue"):
            raise Unreadable
        if arguments is not None and not isinstance(arguments, dict):
            raise Unreadable
        call: Json = {"index": state.calls}
        function: Json = {"name": name, "arguments": encode(arguments or {}).decode("utf-8", "replace")}
        given = text_of(called, "id")
        if given and not signature and state.call_ids.get(given) == function:
            return {}  # sent once more
        if given and given not in state.call_ids:
            call["id"] = given
            state.call_ids[given] = function
        call["type"] = "function"
        call["function"] = function
        delta: Json = {"tool_calls": [call]}
        if signature:
            call.update(signed(signature))
            state.returned.add_call(call, given, state.calls)
            self._give_back(state, delta)
        state.calls += 1
        return delta

    def _give_back(self, state: _Candidate, delta: Json) -> None:
        """Add what the vendor wants to have back, for clients that have no place for it."""
        if packed := state.returned.packed(self.vendor):
            delta[THINKING] = [thinking_entry("", [], [], packed)]

    def _chunk(self, index: int, delta: Json, finish: str | None = None, logprobs: Json | None = None) -> Json:
        choice: Json = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self.head, "choices": [choice]}


def _join(deltas: list[Json], delta: Json) -> None:
    """Add a delta; what can stand together is one, so that the parts of an answer keep their order."""
    if not delta:
        return
    last = deltas[-1] if deltas else {}
    if last.keys() == delta.keys() and len(delta) == 1 and not delta.keys() & {EXTRA, THINKING}:
        for name, value in delta.items():
            old = last[name]
            if isinstance(old, str) and isinstance(value, str):
                last[name] = old + value
            elif isinstance(old, list) and isinstance(value, list):
                last[name] = [*old, *value]
        return
    deltas.append(delta)


def _rest(state: _Candidate) -> Json:
    return {str(name): state.halves.rest(name) for name in state.halves.open_texts()}


def _uncited(state: _Candidate, annotations: list[Json]) -> list[Json]:
    new = [entry for entry in annotations if entry not in state.cited]
    state.cited += new
    return new


def _code(part: Json) -> str:
    """Code that ran at Google, or what it wrote, as a block in the text."""
    code, result = object_of(part, "executableCode"), object_of(part, "codeExecutionResult")
    if code:
        return f"\n```{text_of(code, 'language').lower()}\n{text_of(code, 'code').rstrip()}\n```\n"
    return f"\n```\n{text_of(result, 'output').rstrip()}\n```\n"


# -- complete answers --------------------------------------------------------------------------------------------------


def merged(chunks: list[Json], head: Json) -> Json:
    """The completion that hub chunks are pieces of."""
    choices: dict[int, Json] = {}
    found: Json = {**head, "object": "chat.completion"}
    for chunk in chunks:
        if isinstance(chunk.get("usage"), dict):
            found["usage"] = chunk["usage"]
        for choice in objects_of(chunk, "choices"):
            _merge_choice(choices, choice)
    whole: list[Json] = []
    for index, choice in sorted(choices.items()):
        message = object_of(choice, "message")
        if not message.get("content"):
            message["content"] = None if message.get("tool_calls") or message.get("refusal") else ""
        whole.append({**choice, "index": index})
    found["choices"] = whole
    return found


def _merge_choice(choices: dict[int, Json], choice: Json) -> None:
    index = int_of(choice, "index")
    known = choices.get(index)
    if known is None:
        opened: Json = {"role": "assistant", "content": "", "refusal": None, "annotations": []}
        known = choices[index] = {"message": opened, "logprobs": None, "finish_reason": None}
    message = object_of(known, "message")
    for name, value in object_of(choice, "delta").items():
        old = message.get(name)
        if name == "tool_calls":
            calls = [
                {key: inner for key, inner in call.items() if key != "index"} for call in objects_of({"": value}, "")
            ]
            message[name] = [*objects_of(message, name), *calls]
        elif isinstance(value, str):
            message[name] = (old if isinstance(old, str) else "") + value
        elif isinstance(value, list):
            message[name] = [*(old if isinstance(old, list) else []), *value]
        else:
            message[name] = value
    if isinstance(logprobs := choice.get("logprobs"), dict):
        before = objects_of(object_of(known, "logprobs"), "content")
        known["logprobs"] = {"content": [*before, *objects_of(logprobs, "content")], "refusal": None}
    known["finish_reason"] = choice.get("finish_reason") or known["finish_reason"]
