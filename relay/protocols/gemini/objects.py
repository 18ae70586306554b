"""What is in the answers of Gemini beside their texts, to and from the hub form. Pure.

Usage, finish reasons, log probabilities, sources, and data that stands in a request or an answer. Source: google-genai
3.6.1 (`types.Candidate`, `types.GenerateContentResponseUsageMetadata`), read in November 2026.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import mimetypes
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from portal.lib.json import Json, decode_object, int_of, object_of, objects_of, text_of
from relay.protocols.chat_completions.dialects import FAILED, finish_reason

# Finish reasons that say why there is no more, of which a reader of the hub form need not know which it is.
_FILTERED: Final = frozenset(("ESCALATION", "PUP_LIMITED_DISABLED"))
_UNSAID: Final = frozenset(("OTHER", "FINISH_REASON_UNSPECIFIED"))
_SHOWN: Final = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}
_DATA_URL: Final = re.compile(r"data:([^;,]*)((?:;[^;,]*)*?)(;base64)?,(.*)\Z", re.S | re.I)
_MOST_PRECISE: Final = -9999.0  # what OpenAI has for a probability of 0


def finish_of(reason: str, called: bool, said: bool) -> str:
    """A `finishReason` in OpenAI's words, FAILED for one that says the answer failed; empty when there is none.

    `called`: the answer has a call. `said`: it has anything.
    """
    if not reason or reason == "FINISH_REASON_UNSPECIFIED":
        return ""
    if reason in _FILTERED:
        return "content_filter"
    found = finish_reason(reason)
    if found == "stop":
        if called:
            return "tool_calls"
        return FAILED if not said and reason in _UNSAID else "stop"
    return found


def shown_finish(finish: str) -> str:
    """The `finishReason` for a finish reason of the hub form."""
    return _SHOWN.get(finish, "STOP")


# -- usage -------------------------------------------------------------------------------------------------------------


def chat_usage(metadata: Json) -> Json:
    """A `usageMetadata` as the usage of a chat completion, in which thoughts are part of the completion."""
    thoughts, answer = int_of(metadata, "thoughtsTokenCount"), int_of(metadata, "candidatesTokenCount")
    prompt = int_of(metadata, "promptTokenCount") + int_of(metadata, "toolUsePromptTokenCount")
    if "promptTokenCount" not in metadata:
        prompt = max(prompt, int_of(metadata, "totalTokenCount") - thoughts - answer)
    details: Json = {"cached_tokens": int_of(metadata, "cachedContentTokenCount")}
    audio, pictures = (_of_modality(metadata, "promptTokensDetails", kind) for kind in ("AUDIO", "IMAGE"))
    details["audio_tokens"] = audio
    if pictures:
        details["image_tokens"] = pictures
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer + thoughts,
        "total_tokens": prompt + answer + thoughts,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": thoughts,
            "audio_tokens": _of_modality(metadata, "candidatesTokensDetails", "AUDIO"),
        },
    }


def _of_modality(metadata: Json, name: str, wanted: str) -> int:
    entries = objects_of(metadata, name)
    return sum(int_of(entry, "tokenCount") for entry in entries if text_of(entry, "modality") == wanted)


def usage_metadata(usage: Json) -> Json:
    """The usage of a chat completion as a `usageMetadata`, in which thoughts are beside the candidates."""
    details, details_out = (object_of(usage, f"{side}_tokens_details") for side in ("prompt", "completion"))
    prompt, completion = int_of(usage, "prompt_tokens"), int_of(usage, "completion_tokens")
    thoughts = min(int_of(details_out, "reasoning_tokens"), completion)
    found: Json = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": completion - thoughts,
        "totalTokenCount": prompt + completion,
    }
    if thoughts:
        found["thoughtsTokenCount"] = thoughts
    if cached := int_of(details, "cached_tokens"):
        found["cachedContentTokenCount"] = cached
    for name, whole, part in (
        ("promptTokensDetails", prompt, details),
        ("candidatesTokensDetails", completion - thoughts, details_out),
    ):
        media = {"AUDIO": int_of(part, "audio_tokens"), "IMAGE": int_of(part, "image_tokens")}
        counts = {"TEXT": max(0, whole - sum(media.values())), **media}
        found[name] = [{"modality": kind, "tokenCount": tokens} for kind, tokens in counts.items() if tokens]
    return found


def created_at(response: Json) -> int:
    """Seconds since 1970 of a `createTime`; 0 when there is none."""
    try:
        found = datetime.datetime.fromisoformat(text_of(response, "createTime"))
    except ValueError:
        return 0
    return int(found.timestamp()) if found.tzinfo is not None else 0


# -- log probabilities -------------------------------------------------------------------------------------------------


def chat_logprobs(result: Json) -> Json | None:
    """A `logprobsResult` in the form of chat completions; None when it has none."""
    chosen, top = objects_of(result, "chosenCandidates"), objects_of(result, "topCandidates")
    if not chosen:
        return None
    entries: list[Json] = []
    for number, candidate in enumerate(chosen):
        others = objects_of(top[number], "candidates") if number < len(top) else []
        entries.append({**_logprob(candidate), "top_logprobs": [_logprob(other) for other in others]})
    return {"content": entries, "refusal": None}


def _logprob(candidate: Json) -> Json:
    token, value = text_of(candidate, "token"), candidate.get("logProbability")
    number = value if isinstance(value, (int, float)) else _MOST_PRECISE
    return {"token": token, "logprob": max(number, _MOST_PRECISE), "bytes": list(token.encode("utf-8", "replace"))}


def logprobs_result(logprobs: Json) -> Json:
    """The log probabilities of a chat completion as a `logprobsResult`."""
    entries = objects_of(logprobs, "content")
    return {
        "chosenCandidates": [_candidate(entry) for entry in entries],
        "topCandidates": [
            {"candidates": [_candidate(other) for other in objects_of(entry, "top_logprobs")]} for entry in entries
        ],
    }


def _candidate(entry: Json) -> Json:
    return {"token": text_of(entry, "token"), "logProbability": entry.get("logprob")}


# -- sources -----------------------------------------------------------------------------------------------------------


def annotations_of(candidate: Json, text: str) -> list[Json]:
    """The sources of a candidate as the annotations of a chat completion's message.

    `text`: what the candidate has said, in which Gemini counts bytes and OpenAI characters.
    """
    grounding = object_of(candidate, "groundingMetadata")
    chunks = objects_of(grounding, "groundingChunks")
    found: list[Json] = []
    cited: set[int] = set()
    for support in objects_of(grounding, "groundingSupports"):
        segment, indices = object_of(support, "segment"), support.get("groundingChunkIndices")
        for index in indices if isinstance(indices, list) else ():
            if isinstance(index, int) and 0 <= index < len(chunks) and (source := _source(chunks[index])):
                cited.add(index)
                found.append(_annotation(source, segment, text))
    for index, chunk in enumerate(chunks):
        if index not in cited and (source := _source(chunk)):
            found.append(_annotation(source, {}, text))
    citations = object_of(candidate, "citationMetadata")
    for citation in (*objects_of(citations, "citations"), *objects_of(citations, "citationSources")):
        if text_of(citation, "uri"):
            found.append(_annotation(citation, citation, text))
    return found


def _source(chunk: Json) -> Json:
    """The place that a chunk of a grounding is from, with its `uri` and `title`; empty: nowhere that has an address."""
    for name in ("web", "maps", "retrievedContext"):
        if text_of(source := object_of(chunk, name), "uri"):
            return source
    return {}


def _annotation(source: Json, segment: Json, text: str) -> Json:
    uri = text_of(source, "uri")
    start, end = (_characters(text, int_of(segment, name)) for name in ("startIndex", "endIndex"))
    cited: Json = {"url": uri, "title": text_of(source, "title") or uri, "start_index": start, "end_index": end}
    return {"type": "url_citation", "url_citation": cited}


def _characters(text: str, size: int) -> int:
    """How many characters so many bytes of a text are."""
    if text.isascii():
        return min(size, len(text)) if text else size
    return len(text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore"))


def grounding_metadata(annotations: Sequence[Json], text: str) -> Json:
    """The annotations of a message as a `groundingMetadata`; empty when they cite no address."""
    chunks: dict[str, Json] = {}
    supports: list[Json] = []
    for annotation in annotations:
        cited = object_of(annotation, "url_citation")
        if not (uri := text_of(cited, "url")):
            continue
        chunks.setdefault(uri, {"web": {"uri": uri, "title": text_of(cited, "title") or uri}})
        start, end = int_of(cited, "start_index"), int_of(cited, "end_index")
        if end > start:
            said = text[start:end]
            segment: Json = {
                "startIndex": len(text[:start].encode("utf-8", "replace")),
                "endIndex": len(text[:end].encode("utf-8", "replace")),
                "text": said,
            }
            supports.append({"segment": segment, "groundingChunkIndices": [list(chunks).index(uri)]})
    if not chunks:
        return {}
    return {"groundingChunks": list(chunks.values()), "groundingSupports": supports}


# -- data --------------------------------------------------------------------------------------------------------------


def blob_of(url: str, unnamed: str) -> Json | None:
    """A data URL as a `Blob`; None for an address. `unnamed`: the type of data that does not say what it is."""
    found = _DATA_URL.match(url)
    if found is None:
        return None
    data = found[4]
    if found[3] is None:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return {"mimeType": found[1] or unnamed, "data": data}


def file_of(url: str, unnamed: str) -> Json:
    """An address as a `FileData`, which Gemini fetches."""
    kind, _ = mimetypes.guess_type(url.partition("?")[0])
    return {"mimeType": kind or unnamed, "fileUri": url}


def data_url(blob: Json) -> str:
    """A `Blob`, in either spelling, as a data URL, in the Base64 that all read; empty when it has no data."""
    data = text_of(blob, "data").replace("-", "+").replace("_", "/")
    kind = text_of(blob, "mimeType") or text_of(blob, "mime_type")
    return f"data:{kind or 'application/octet-stream'};base64,{data}" if data else ""


def is_base64(data: str) -> bool:
    """Whether it is Base64, in either alphabet."""
    try:
        base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


# -- parts of answers --------------------------------------------------------------------------------------------------


def call_part(call_id: str, function: Mapping[str, object]) -> Json | None:
    """A call of a tool as a part; None where its arguments are no object, which Gemini's are."""
    written = text_of(function, "arguments").strip()
    arguments = decode_object(written) if written else {}
    if arguments is None:
        return None
    return {
        "functionCall": {**({"id": call_id} if call_id else {}), "name": text_of(function, "name"), "args": arguments}
    }


def malformed_call(name: str) -> Json:
    """The members of a candidate whose model has called a function with what is no JSON object."""
    message = f"The model called {name[:64]} with arguments that are no JSON object."
    return {"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": message}


def image_part(url: str) -> Json:
    """An image that a model made as a part."""
    head, _, data = url.partition(",")
    if head.startswith("data:"):
        return {"inlineData": {"mimeType": head[5:].partition(";")[0] or "image/png", "data": data}}
    return {"fileData": {"mimeType": "image/png", "fileUri": url}}
