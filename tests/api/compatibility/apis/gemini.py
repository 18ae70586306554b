"""Gemini's generateContent, as clients and upstreams speak it."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.api.compatibility.apis.common import at, put
from tests.api.compatibility.conversation import (
    SCHEMA,
    TOOLS,
    Ask,
    Inexpressible,
    Json,
    Part,
    Reply,
    Turn,
    Used,
    has_member,
    joined,
    parameters_of,
)
from tests.support.apis.answers import Answer
from tests.support.peers import gemini as peer

NAME: Final = "gemini"
ENDS: Final = frozenset(("stop", "calls", "length", "refusal"))
_CONFIG: Final = "generationConfig"
_OPTIONS: Final = {
    "limit": f"{_CONFIG}.maxOutputTokens",
    "temperature": f"{_CONFIG}.temperature",
    "top_p": f"{_CONFIG}.topP",
    "top_k": f"{_CONFIG}.topK",
    "penalty": f"{_CONFIG}.presencePenalty",
    "seed": f"{_CONFIG}.seed",
    "count": f"{_CONFIG}.candidateCount",
    "stop": f"{_CONFIG}.stopSequences",
    "logprobs": f"{_CONFIG}.logprobs",
    "budget": f"{_CONFIG}.thinkingConfig.thinkingBudget",
}
_MODES: Final = {"auto": "AUTO", "any": "ANY", "none": "NONE"}
_LEVEL: Final = f"{_CONFIG}.thinkingConfig.thinkingLevel"
_MIME: Final = f"{_CONFIG}.responseMimeType"
_FINISHES: Final = {"stop": "STOP", "calls": "STOP", "sequence": "STOP", "length": "MAX_TOKENS", "refusal": "SAFETY"}


# -- requests ----------------------------------------------------------------------------------------------------------


def write_ask(ask: Ask) -> Json:
    if any(turn.role == "system" for turn in ask.turns) or ask.options.get("developer"):
        raise Inexpressible("system messages in the middle")
    body: Json = {
        "contents": [
            {"role": {"assistant": "model"}.get(turn.role, turn.role), "parts": [_part(part) for part in turn.parts]}
            for turn in ask.turns
        ]
    }
    if ask.system:
        body["systemInstruction"] = {"parts": [{"text": ask.system}]}
    for name, value in ask.options.items():
        if name in _OPTIONS:
            put(body, _OPTIONS[name], value)
        elif name == "tools":
            declared = [{"name": one, "parametersJsonSchema": parameters_of(one)} for one in value]
            body["tools"] = [{"functionDeclarations": declared}]
        elif name == "choice":
            tool = value.removeprefix("tool:")
            config = {"mode": "ANY", "allowedFunctionNames": [tool]} if tool != value else {"mode": _MODES[value]}
            body["toolConfig"] = {"functionCallingConfig": config}
        elif name in {"schema", "json"}:
            put(body, _MIME, "application/json")
        elif name == "effort":
            put(body, _LEVEL, value.upper())
        elif name == "search":
            body["tools"] = [{"googleSearch": {}}]
        elif name == "tier":
            body["serviceTier"] = value.upper()
        else:
            raise Inexpressible(name)
    if "schema" in ask.options:
        put(body, f"{_CONFIG}.responseJsonSchema", SCHEMA)
    if ask.options.get("effort") == "none":
        body[_CONFIG]["thinkingConfig"] = {"thinkingBudget": 0}
    if "logprobs" in ask.options:
        put(body, f"{_CONFIG}.responseLogprobs", True)
    return body


def _part(part: Part) -> Json:
    match part.kind:
        case "text":
            return {"text": part.value}
        case "image" | "pdf" | "audio":
            kind = {"image": "image/png", "pdf": "application/pdf", "audio": "audio/wav"}[part.kind]
            return {"inlineData": {"mimeType": kind, "data": part.value}}
        case "image_url" | "pdf_url":
            kind = {"image_url": "image/png", "pdf_url": "application/pdf"}[part.kind]
            return {"fileData": {"mimeType": kind, "fileUri": part.value}}
        case "call":
            call = {"id": f"call_{part.name}", "name": part.name, "args": {TOOLS[part.name]: part.value}}
            return {"functionCall": call, "thoughtSignature": peer.BYPASS}
        case "result":
            told = {"error" if part.failed else "result": part.value}
            found: Json = {"id": f"call_{part.name}", "name": part.name, "response": told}
            return {"functionResponse": {**found, "parts": [_part(one) for one in part.inner]} if part.inner else found}
    raise Inexpressible(part.kind)


def fault(body: Json, native: bool) -> str:
    """Why a strict upstream refuses it. The peers look themselves."""
    return ""


def read_ask(body: Json) -> Ask:
    system = at(body, "systemInstruction.parts") or ()
    found = Ask(system=joined(part["text"] for part in system))
    for content in body["contents"]:
        role = {"model": "assistant"}.get(content.get("role", "user"), content.get("role", "user"))
        found.turns.append(Turn(role, tuple(one for part in content["parts"] for one in _read_part(part))))
    found.options |= {name: value for name, path in _OPTIONS.items() if (value := at(body, path)) is not None}
    if level := at(body, _LEVEL):
        found.options["effort"] = {"MINIMAL": "none"}.get(level, level.lower())  # as far as it can be turned off
    if found.options.get("budget") == 0:
        found.options["effort"] = "none"
    if tier := body.get("serviceTier"):
        found.options["tier"] = tier.lower()
    declared = [one for tool in body.get("tools") or () for one in tool.get("functionDeclarations") or ()]
    if declared:
        schemas = {one["name"]: one.get("parametersJsonSchema") or one.get("parameters") for one in declared}
        found.options["tools"] = tuple(name for name, schema in schemas.items() if has_member(schema, TOOLS[name]))
    if any("googleSearch" in tool for tool in body.get("tools") or ()):
        found.options["search"] = True
    config = at(body, "toolConfig.functionCallingConfig") or {}
    if names := config.get("allowedFunctionNames"):
        found.options["choice"] = f"tool:{names[0]}"
    elif mode := config.get("mode"):
        found.options["choice"] = next(name for name, one in _MODES.items() if one == mode)
    if at(body, _MIME) == "application/json":
        schema = at(body, f"{_CONFIG}.responseJsonSchema") or at(body, f"{_CONFIG}.responseSchema")
        found.options["schema" if has_member(schema, "city") else "json"] = True
    if not at(body, f"{_CONFIG}.responseLogprobs"):
        found.options.pop("logprobs", None)
    return found


def _read_part(part: Json) -> list[Part]:
    signature = part.get("thoughtSignature", "")
    signed = [Part("thought", "", signature)] if signature and signature != peer.BYPASS else []
    if part.get("text") and part.get("thought"):
        return [Part("thought", part["text"], signature)]
    if part.get("text"):
        return [*signed, Part("text", part["text"])]
    if called := part.get("functionCall"):
        return [*signed, Part("call", called["args"][TOOLS[called["name"]]], called["name"])]
    if answered := part.get("functionResponse"):
        told = answered["response"]
        text = str(told.get("result") or told.get("output") or told.get("error") or "")
        inner = tuple(one for piece in answered.get("parts") or () for one in _read_part(piece))
        return [Part("result", text, answered["name"], "error" in told, inner)]
    if blob := part.get("inlineData"):
        kinds = {"image/png": "image", "application/pdf": "pdf", "audio/wav": "audio"}
        return [Part(kinds.get(blob["mimeType"], blob["mimeType"]), blob["data"])]
    if file := part.get("fileData"):
        return [Part("pdf_url" if file.get("mimeType") == "application/pdf" else "image_url", file["fileUri"])]
    return signed


# -- answers -----------------------------------------------------------------------------------------------------------


def write_reply(reply: Reply) -> tuple[Json, Reply]:
    """A complete answer, and what it says in this API."""
    if reply.redacted or reply.used.written:
        raise Inexpressible("what Gemini lacks")
    parts: list[Json] = [{"text": reply.thought, "thought": True}] if reply.thought else []
    parts += [{"text": reply.text}] if reply.text else []
    for number, part in enumerate(reply.calls):
        call = {"id": f"up{number}", "name": part.name, "args": {TOOLS[part.name]: part.value}}
        parts.append({"functionCall": call} | ({} if number else {"thoughtSignature": peer.SIGNATURE}))
    if reply.signature:
        parts[-1]["thoughtSignature"] = reply.signature
    whole = peer.response(*parts, finish=_FINISHES[reply.end])
    first = whole["candidates"][0]
    if reply.refusal:
        first["content"]["parts"] = []
    if reply.cited:
        segment = {"startIndex": 0, "endIndex": len(reply.text), "text": reply.text}
        first["groundingMetadata"] = {
            "webSearchQueries": ["Paris"],
            "groundingChunks": [{"web": {"uri": reply.cited[0], "title": reply.cited[1]}}],
            "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0]}],
        }
    if reply.logprobs:
        chosen, other = {"token": "Hello", "logProbability": -0.5}, {"token": "Hi", "logProbability": -2.0}
        first["logprobsResult"] = {"chosenCandidates": [chosen], "topCandidates": [{"candidates": [chosen, other]}]}
    for index, text in enumerate(reply.others, 1):
        content = {"parts": [{"text": text}], "role": "model"}
        whole["candidates"].append({"content": content, "finishReason": "STOP", "index": index})
    whole["usageMetadata"] = _usage(reply.used)
    end = "stop" if reply.end == "sequence" else reply.end
    said = {"end": end, "refusal": "", "used": reply.used.without("written", "hour")}
    return whole, Reply(**{**vars(reply), **said})


def _usage(used: Used) -> Json:
    assert used.input is not None and used.output is not None and used.reasoning is not None
    audio_in, audio_out = used.audio_in or 0, used.audio_out or 0
    answer = used.output - used.reasoning
    found: Json = {
        "promptTokenCount": used.input,
        "candidatesTokenCount": answer,
        "totalTokenCount": used.input + used.output,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": used.input - audio_in},
            *([{"modality": "AUDIO", "tokenCount": audio_in}] if audio_in else []),
        ],
    }
    if audio_out:
        texts = {"modality": "TEXT", "tokenCount": answer - audio_out}
        found["candidatesTokensDetails"] = [texts, {"modality": "AUDIO", "tokenCount": audio_out}]
    found |= {"thoughtsTokenCount": used.reasoning} if used.reasoning else {}
    return {**found, "cachedContentTokenCount": used.cached} if used.cached else found


def events(whole: Json) -> list[bytes]:
    return [b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in peer.pieces(whole)]


def error_of(text: str) -> Json:
    return {"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}}


def error_event(text: str) -> bytes:
    return f"data: {json.dumps({'error': {'code': 500, 'message': text, 'status': 'INTERNAL'}})}\r\n\r\n".encode()


def read_reply(answer: Answer) -> Reply:
    """What a client of this API is told."""
    for event in answer.events:
        if failed := event.get("error"):
            assert {"code", "message", "status"} <= failed.keys(), failed
            return Reply(error=failed["message"], begins="candidates" in answer.events[0])
    texts: dict[int, str] = {}
    for event in answer.events:
        for candidate in event.get("candidates") or ():
            for part in at(candidate, "content.parts") or ():
                index = candidate.get("index", 0)
                texts[index] = texts.get(index, "") + ("" if part.get("thought") else part.get("text", ""))
    candidates = [one for event in answer.events for one in event.get("candidates") or ()]
    grounded: Json = next((one["groundingMetadata"] for one in candidates if one.get("groundingMetadata")), {})
    sources = [chunk["web"] for chunk in grounded.get("groundingChunks") or ()]
    probabilities: Json = next((one["logprobsResult"] for one in candidates if one.get("logprobsResult")), {})
    calls = [
        part["functionCall"] for one in candidates for part in at(one, "content.parts") or () if "functionCall" in part
    ]
    finish = next((one["finishReason"] for one in candidates if one.get("finishReason")), "")
    blocked = any(at(event, "promptFeedback.blockReason") for event in answer.events)
    end = (
        "calls"
        if calls and finish == "STOP"
        else {"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "refusal"}.get(finish, finish)
    )
    return Reply(
        text=texts.get(0, ""),
        thought=answer.thought,
        calls=tuple(Part("call", call["args"][TOOLS[call["name"]]], call["name"]) for call in calls),
        cited=(sources[0]["uri"], sources[0]["title"]) if sources else None,
        end="refusal" if blocked else end,
        others=tuple(text for index, text in sorted(texts.items()) if index),
        logprobs=any(one["token"] == "Hello" for one in probabilities.get("chosenCandidates") or ())
        and bool(probabilities.get("topCandidates")),
        used=_used(next((event["usageMetadata"] for event in answer.events[::-1] if "usageMetadata" in event), None)),
    )


def _used(usage: Any) -> Used:
    if usage is None:
        return Used(None, output=None)
    reasoning = usage.get("thoughtsTokenCount", 0)
    return Used(
        input=usage["promptTokenCount"],
        cached=usage.get("cachedContentTokenCount", 0),
        written=None,
        hour=None,
        output=usage.get("candidatesTokenCount", 0) + reasoning,
        reasoning=reasoning,
        audio_in=_modality(usage.get("promptTokensDetails")),
        audio_out=_modality(usage.get("candidatesTokensDetails")),
    )


def _modality(details: Any) -> int:
    return sum(one["tokenCount"] for one in details or () if one["modality"] == "AUDIO")
