"""POST /v1/completions, embeddings, moderations, images, audio, rerank."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from ninja import Router

from relay.api.auth import token_auth
from relay.api.request import exchange_of
from relay.endpoints.passthrough import pass_through
from relay.endpoints.text.plans.completions import is_for_plan, plan_completions
from relay.gateway.runtime import runtime
from relay.gateway.snapshot.cache import snapshot_cache

router = Router(auth=token_auth)


async def _serve(request: HttpRequest, endpoint: str) -> HttpResponseBase:
    exchange = exchange_of(request)
    assert exchange.caller is not None  # noqa: S101  # token_auth has run
    return await pass_through(exchange, exchange.caller, await runtime(), endpoint)


@router.post("/completions", url_name="completions")
async def create_completion(request: HttpRequest) -> HttpResponseBase:
    """Continue a text, plain or as a stream of events. The older of OpenAI's APIs for text."""
    exchange = exchange_of(request)
    caller = exchange.caller
    if caller is not None and snapshot_cache.snapshot.plan_of(caller) is not None:
        run = await runtime()
        body = await exchange.read_body(run.config.max_body_bytes)
        if is_for_plan(exchange, caller, body):
            return await plan_completions(exchange, caller, run, body)
        return await pass_through(exchange, caller, run, "completions", body)
    return await _serve(request, "completions")


@router.post("/embeddings", url_name="embeddings")
async def create_embedding(request: HttpRequest) -> HttpResponseBase:
    """Turn texts into vectors, as numbers or as Base64."""
    return await _serve(request, "embeddings")


@router.post("/moderations", url_name="moderations")
async def create_moderation(request: HttpRequest) -> HttpResponseBase:
    """Tell whether texts or images are harmful."""
    return await _serve(request, "moderations")


@router.post("/images/generations", url_name="images-generations")
async def create_image(request: HttpRequest) -> HttpResponseBase:
    """Make images from a text, plain or with partial images as a stream of events."""
    return await _serve(request, "images.generations")


@router.post("/images/edits", url_name="images-edits")
async def edit_image(request: HttpRequest) -> HttpResponseBase:
    """Change images by a text, plain or with partial images as a stream of events."""
    return await _serve(request, "images.edits")


@router.post("/images/variations", url_name="images-variations")
async def vary_image(request: HttpRequest) -> HttpResponseBase:
    """Make images that resemble one."""
    return await _serve(request, "images.variations")


@router.post("/audio/speech", url_name="audio-speech")
async def create_speech(request: HttpRequest) -> HttpResponseBase:
    """Speak a text: the sound itself, or a stream of events."""
    return await _serve(request, "audio.speech")


@router.post("/audio/transcriptions", url_name="audio-transcriptions")
async def create_transcription(request: HttpRequest) -> HttpResponseBase:
    """Write down what is said in a recording."""
    return await _serve(request, "audio.transcriptions")


@router.post("/audio/translations", url_name="audio-translations")
async def create_translation(request: HttpRequest) -> HttpResponseBase:
    """Write down in English what is said in a recording."""
    return await _serve(request, "audio.translations")


@router.post("/rerank", url_name="rerank")
async def create_rerank(request: HttpRequest) -> HttpResponseBase:
    """Order texts by how well they answer a question, in the form of Jina and Cohere."""
    return await _serve(request, "rerank")
