"""An upstream that speaks Gemini's generateContent, for `tests.support.upstream`: as strict as the real one.

Source: google-genai 3.6.1, ai.google.dev/gemini-api/docs/{function-calling,thought-signatures,troubleshooting}, and
reports of refused requests in public trackers, all of which are about `parameters` where they name an unknown keyword
(zed-industries/zed #52670, google-gemini/gemini-cli #13326); November 2026.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from tests.support.upstream import Call, Script

USAGE: dict[str, Any] = {
    "promptTokenCount": 9,
    "cachedContentTokenCount": 4,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 3,
    "totalTokenCount": 16,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
}
TEXT: dict[str, Any] = {"text": "Hello there."}
THOUGHT: dict[str, Any] = {"text": "They greet me.", "thought": True}
SIGNATURE = "AY89a18iOcE="
CALL: dict[str, Any] = {
    "functionCall": {"id": "8f2b1a3c", "name": "weather", "args": {"city": "Paris"}},
    "thoughtSignature": SIGNATURE,
}
BYPASS = "skip_thought_signature_validator"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_TOP = {
    "contents", "systemInstruction", "system_instruction", "tools", "toolConfig", "tool_config", "safetySettings",
    "safety_settings", "generationConfig", "generation_config", "cachedContent", "labels", "serviceTier", "store",
    "model", "generateContentRequest", "content", "requests", "taskType", "outputDimensionality",
}  # fmt: skip
# Members of `Schema`, the form of `parameters`; `additionalProperties` is Vertex's alone. What `parametersJsonSchema`
# has is any JSON: of its keywords those that the API does not know are passed over.
_SCHEMA = {
    "type", "format", "title", "description", "nullable", "enum", "items", "maxItems", "minItems", "properties",
    "required", "minProperties", "maxProperties", "minimum", "maximum", "minLength", "maxLength", "pattern", "example",
    "anyOf", "propertyOrdering", "default",
}  # fmt: skip


def response(*parts: dict[str, Any], finish: str = "STOP", **more: Any) -> dict[str, Any]:
    return {
        "candidates": [
            {"content": {"parts": list(parts) or [TEXT], "role": "model"}, "finishReason": finish, "index": 0}
        ],
        "usageMetadata": USAGE,
        "modelVersion": "gemini-mock",
        "responseId": "r9aLaOzzM8uJxs0P",
        **more,
    }


def pieces(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The responses of a stream: texts in pieces, usage with all of them, the reason with the last, which is empty."""
    found: list[dict[str, Any]] = []
    head = {name: value for name, value in whole.items() if name not in {"candidates", "usageMetadata"}}
    early = {"promptTokenCount": 9, "totalTokenCount": 9}
    last: list[dict[str, Any]] = []
    for candidate in whole.get("candidates", ()):
        for part in candidate["content"]["parts"]:
            texts = re.findall(r".{1,5}", part["text"], re.S) if part.get("text") else [None]
            for text in texts:
                piece = part if text is None else {**part, "text": text}
                content = {"parts": [piece], "role": "model"}
                one = {"content": content, "index": candidate["index"]}
                found.append({"candidates": [one], "usageMetadata": early, **head})
        last.append({**candidate, "content": {"parts": [{"text": ""}], "role": "model"}})
    ending = {"candidates": last} if last else {}
    return [*found, {**ending, "usageMetadata": whole["usageMetadata"], **head}]


def saying(*parts: dict[str, Any], finish: str = "STOP", **more: Any) -> Script:
    """An upstream that answers every request, which must be right, with these parts."""
    whole = response(*parts, finish=finish, **more)

    async def script(call: Call) -> None:
        await answer(call, whole)

    return script


async def answer(call: Call, whole: dict[str, Any]) -> None:
    method = call.path.partition("?")[0].rpartition(":")[2]
    if wrong := fault(call):
        await refuse(call, 400, "INVALID_ARGUMENT", wrong)
    elif method == "countTokens":
        await call.reply(200, {"totalTokens": 77, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 77}]})
    elif method == "embedContent":
        await call.reply(200, {"embedding": {"values": [0.5, -0.25]}})
    elif method == "batchEmbedContents":
        await call.reply(
            200, {"embeddings": [{"values": [0.5, number]} for number, _ in enumerate(call.json["requests"])]}
        )
    elif method == "streamGenerateContent":
        if "alt=sse" not in call.path:
            await call.reply(200, pieces(whole))
            return
        await call.open_stream()
        for one in pieces(whole):
            await call.send(b"data: " + json.dumps(one).encode() + b"\r\n\r\n")
        await call.end()
    else:
        await call.reply(200, whole)


async def refuse(call: Call, status: int, name: str, text: str, *details: dict[str, Any]) -> None:
    error: dict[str, Any] = {"code": status, "message": text, "status": name}
    if details:
        error["details"] = list(details)
    await call.reply(status, {"error": error}, {"content-type": "application/json; charset=UTF-8"})


def refusing(status: int, name: str, text: str, *details: dict[str, Any]) -> Script:
    async def script(call: Call) -> None:
        await refuse(call, status, name, text, *details)

    return script


def fault(call: Call) -> str:
    """What the API finds wrong with a request; empty: nothing."""
    body = call.json
    if "x-goog-api-key" not in call.headers or "key=" in call.path:
        return "API key not valid. Please pass a valid API key."
    for name in body:
        if name not in _TOP:
            return f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
    if not call.path.partition("?")[0].endswith("GenerateContent") and ":generateContent" not in call.path:
        return ""
    contents = body.get("contents")
    if not contents:
        return "* GenerateContentRequest.contents: contents is not specified"
    contents = [contents] if isinstance(contents, dict) else contents
    return _wrong_contents(contents, "gemini-3" in call.model) or _wrong_tools(body)


def _wrong_contents(contents: list[dict[str, Any]], signed: bool) -> str:
    waiting = 0
    for number, content in enumerate(contents):
        if content.get("role", "user") not in {"user", "model"}:
            return "Please use a valid role: user, model."
        parts = content.get("parts")
        parts = [parts] if isinstance(parts, dict) else parts
        if not parts:
            return f"* GenerateContentRequest.contents[{number}].parts: contents.parts must not be empty."
        for part in parts:
            if "text" in part and not part["text"] and "thoughtSignature" not in part:
                return "Unable to submit request because it has an empty text parameter."
            signature = part.get("thoughtSignature", part.get("thought_signature"))
            if signature and signature != BYPASS and not _is_base64(signature):
                return "Base64 decoding failed for thought_signature."
        results = sum("functionResponse" in part for part in parts)
        if results != waiting:
            return (
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn."
            )
        calls = [part for part in parts if "functionCall" in part]
        if signed and calls and not calls[0].get("thoughtSignature"):
            name = calls[0]["functionCall"]["name"]
            return f"Function call `{name}` in the `{number + 1}.` content block is missing a `thought_signature`."
        waiting = len(calls)
    return ""


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except ValueError:
        return False
    return True


def _wrong_tools(body: dict[str, Any]) -> str:
    declared = [one for tool in body.get("tools", ()) for one in tool.get("functionDeclarations", ())]
    for one in declared:
        if not _NAME.fullmatch(one["name"]):
            return "Invalid function name. Must start with a letter or an underscore."
        if "parameters" in one and "parametersJsonSchema" in one:
            return "parameters and parameters_json_schema must not both be set."
        place = f"tools[0].function_declarations[{declared.index(one)}].parameters"
        if wrong := _wrong_schema(one.get("parameters"), place) or _wrong_json_schema(one.get("parametersJsonSchema")):
            return wrong
    config = body.get("toolConfig", {}).get("functionCallingConfig", {})
    if config.get("allowedFunctionNames") and config.get("mode") not in {"ANY", "VALIDATED"}:
        return "allowed_function_names should only be set when the function calling mode is ANY or VALIDATED."
    if config.get("mode") == "ANY" and not declared:
        return "Function calling config is set without function_declarations."
    return ""


def _wrong_schema(schema: Any, place: str) -> str:
    if not isinstance(schema, dict):
        return ""
    for name, value in schema.items():
        name = re.sub("_([a-z])", lambda found: found[1].upper(), name)
        if name not in _SCHEMA:
            return f"Invalid JSON payload received. Unknown name \"{name}\" at '{place}': Cannot find field."
        if name == "type" and not isinstance(value, str):
            return f"Invalid value at '{place}': Proto field is not repeating, cannot start list."
        if name == "enum" and any(not isinstance(one, str) for one in value):
            return f"Invalid value at '{place}.enum' (TYPE_STRING)"
        inner = value.values() if name == "properties" else value if name == "anyOf" else ()
        inner = [value] if name == "items" else inner
        if wrong := next(filter(None, (_wrong_schema(one, f"{place}.{name}") for one in inner)), ""):
            return wrong
    if str(schema.get("type")).lower() == "array" and "items" not in schema:
        return f"* GenerateContentRequest.{place}.items: missing field."
    return ""


def _wrong_json_schema(schema: Any) -> str:
    """What is refused of a JSON Schema: a root that is no object, and references to nothing."""
    if schema is None:
        return ""
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        return "parameters schema should be of type OBJECT."
    known = {f"#/{holder}/{name}" for holder in ("$defs", "definitions") for name in schema.get(holder) or {}} | {"#"}
    return _undefined(schema, known, "")


def _undefined(value: Any, known: set[str], place: str) -> str:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str) and value["$ref"] not in known:
            return f"reference to undefined schema at {place}"
        parts: Any = value.items()
    else:
        parts = enumerate(value) if isinstance(value, list) else ()
    return next(filter(None, (_undefined(one, known, f"{place}.{name}".strip(".")) for name, one in parts)), "")
