"""An upstream as Google Cloud's Vertex AI, for `tests.support.upstream`: as strict as the real one.

Source: Vertex AI's REST reference, google-genai 3.6.1 and the Vertex client of Anthropic's SDK 2.14; November 2026.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from tests.support.peers import gemini, messages
from tests.support.peers.clouds.google_tokens import TokenEndpoint
from tests.support.upstream import Call, Script

PLACE = "projects/sample-project/locations/us-central1"
VERSIONS = ("vertex-2023-10-16", "2026-10-21")
_GEMINI = re.compile(rf"/v1(?:beta1)?/{PLACE}/publishers/google/models/[\w.@-]+:(\w+)(?:\?alt=sse)?")
_CLAUDE = re.compile(rf"/v1/{PLACE}/publishers/anthropic/models/([\w.@-]+):(rawPredict|streamRawPredict)")
# What countTokens takes.
_COUNTED = {"contents", "systemInstruction", "tools", "generationConfig", "instances", "model"}


async def unauthenticated(call: Call) -> None:
    text = (
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
    )
    reason = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "ACCESS_TOKEN_TYPE_UNSUPPORTED",
        "domain": "googleapis.com",
    }
    await gemini.refuse(call, 401, "UNAUTHENTICATED", text, reason)


def _is_let_in(call: Call, tokens: TokenEndpoint) -> bool:
    return call.headers.get("authorization", "").removeprefix("Bearer ") in tokens.valid


def gemini_saying(tokens: TokenEndpoint, *parts: dict[str, Any], **more: Any) -> Script:
    """Answers every request for a model of Gemini, which must be right, with these parts."""
    whole = gemini.response(*parts, createTime="2026-11-30T03:00:00.000000Z", **more)
    whole["usageMetadata"] = {**whole["usageMetadata"], "trafficType": "ON_DEMAND"}

    async def script(call: Call) -> None:
        found = _GEMINI.fullmatch(call.path)
        if not _is_let_in(call, tokens):
            await unauthenticated(call)
        elif found is None:
            await call.reply(
                404, b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>", {"content-type": "text/html"}
            )
        elif found[1] == "countTokens" and (unknown := call.json.keys() - _COUNTED):
            text = f'Invalid JSON payload received. Unknown name "{min(unknown)}": Cannot find field.'
            await gemini.refuse(call, 400, "INVALID_ARGUMENT", text)
        else:  # the API itself is that of Google's other address, where a key is in this header
            await gemini.answer(replace(call, headers={**call.headers, "x-goog-api-key": "-"}), whole)

    return script


def embedding(tokens: TokenEndpoint) -> Script:
    """Makes a vector for each text: at `:predict` for models that are no Gemini, otherwise as Gemini does."""

    async def script(call: Call) -> None:
        found = _GEMINI.fullmatch(call.path)
        method, body = found[1] if found is not None else "", call.json
        gemini_model = "gemini" in call.model
        if not _is_let_in(call, tokens):
            await unauthenticated(call)
        elif method not in (("embedContent", "batchEmbedContents") if gemini_model else ("predict",)):
            await gemini.refuse(call, 400, "FAILED_PRECONDITION", f"The model does not support {method}.")
        elif method == "predict":
            bad = body.keys() - {"instances", "parameters"} or any(
                one.keys() - {"content", "task_type", "title"} for one in body["instances"]
            )
            statistics = {"token_count": 3.0, "truncated": False}
            vectors = [{"embeddings": {"values": [0.5, 0.25], "statistics": statistics}} for _one in body["instances"]]
            answer = {"predictions": vectors, "metadata": {"billableCharacterCount": 8}}
            await (gemini.refuse(call, 400, "INVALID_ARGUMENT", "bad") if bad else call.reply(200, answer))
        else:
            asked = body["requests"] if method == "batchEmbedContents" else [body]
            if unknown := {name for one in asked for name in one} - {"content", "embedContentConfig"}:
                text = f'Invalid JSON payload received. Unknown name "{min(unknown)}": Cannot find field.'
                await gemini.refuse(call, 400, "INVALID_ARGUMENT", text)
                return
            made = [{"values": [0.5, 0.25]} for _one in asked]
            usage = {"promptTokenCount": 4 * len(asked), "totalTokenCount": 4 * len(asked)}
            told = {"embeddings": made} if method == "batchEmbedContents" else {"embedding": made[0]}
            await call.reply(200, {**told, "usageMetadata": usage})

    return script


def claude_saying(tokens: TokenEndpoint, *content: dict[str, Any], **more: Any) -> Script:
    """Answers every request for a model of Anthropic, which must be right, with a message."""
    answer = messages.saying(*content, **more)

    async def script(call: Call) -> None:
        found = _CLAUDE.fullmatch(call.path)
        if not _is_let_in(call, tokens):
            await unauthenticated(call)
        elif found is None:
            await call.reply(
                404, b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>", {"content-type": "text/html"}
            )
        elif wrong := _wrong_envelope(call, *found.groups()):
            await messages.refuse(call, 400, "invalid_request_error", wrong)
        else:
            path = "/v1/messages/count_tokens" if found[1] == "count-tokens" else "/v1/messages"
            await answer(replace(call, path=path, headers={**call.headers, "anthropic-version": "2023-06-01"}))

    return script


def _wrong_envelope(call: Call, model: str, method: str) -> str:
    body, counting = call.json, model == "count-tokens"
    if "model" in body and not counting:
        return "model: Extra inputs are not permitted"
    if counting and "model" not in body:
        return "model: Field required"
    if not counting and body.get("anthropic_version") not in VERSIONS:
        return "anthropic_version: Field required"
    if bool(body.get("stream")) != (method == "streamRawPredict"):
        return "stream: does not fit the method"
    return ""


def listing(tokens: TokenEndpoint, publisher: str, *models: str) -> Script:
    """The list of a publisher's models."""

    async def script(call: Call) -> None:
        if not _is_let_in(call, tokens):
            await unauthenticated(call)
        elif call.path.partition("?")[0] != f"/v1beta1/publishers/{publisher}/models":
            await call.reply(
                404, b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>", {"content-type": "text/html"}
            )
        else:
            listed = [
                {"name": f"publishers/{publisher}/models/{name}", "versionId": "default", "launchStage": "GA"}
                for name in models
            ]
            await call.reply(200, {"publisherModels": listed})

    return script
