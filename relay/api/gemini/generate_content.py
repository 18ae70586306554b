"""/v1beta/models/{model}:…, of Gemini's API. /v1 and /v1alpha are the same."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from ninja import Router

from relay.api.auth import token_auth
from relay.api.request import caller_of, exchange_of, query_of
from relay.endpoints import embed_content as embedding
from relay.endpoints.text.apis import generate_content as endpoint
from relay.gateway.runtime import runtime

router = Router(auth=token_auth)


@router.post("/models/{path:name}:generateContent", url_name="generate-content")
async def generate_content(request: HttpRequest, name: str) -> HttpResponseBase:
    """Answer a conversation in Gemini's API."""
    return await endpoint.generate_content(exchange_of(request), caller_of(request), await runtime(), name, None)


@router.post("/models/{path:name}:streamGenerateContent", url_name="stream-generate-content")
async def stream_generate_content(request: HttpRequest, name: str) -> HttpResponseBase:
    """Answer a conversation in Gemini's API as a stream: of events with `alt=sse`, otherwise as a list."""
    sse = query_of(request).get("alt", "") == "sse"
    return await endpoint.generate_content(exchange_of(request), caller_of(request), await runtime(), name, sse)


@router.post("/models/{path:name}:countTokens", url_name="gemini-count-tokens")
async def count_tokens(request: HttpRequest, name: str) -> HttpResponseBase:
    """How many tokens a request of Gemini's API would have."""
    return await endpoint.count_tokens(exchange_of(request), caller_of(request), await runtime(), name)


@router.post("/models/{path:name}:embedContent", url_name="embed-content")
async def embed_content(request: HttpRequest, name: str) -> HttpResponseBase:
    """Make a vector of a text, in Gemini's API."""
    return await embedding.embed_content(exchange_of(request), caller_of(request), await runtime(), name, False)


@router.post("/models/{path:name}:batchEmbedContents", url_name="batch-embed-contents")
async def batch_embed_contents(request: HttpRequest, name: str) -> HttpResponseBase:
    """Make vectors of several texts, in Gemini's API."""
    return await embedding.embed_content(exchange_of(request), caller_of(request), await runtime(), name, True)
