"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponse
from ninja import Router

from portal.lib.money import plain
from relay.api.auth import token_auth
from relay.api.request import exchange_of
from relay.api.respond import json_response
from relay.billing.prices import ONE, Price
from relay.errors import ModelNotFound
from relay.gateway.access.authorization import usable_models
from relay.gateway.runtime import runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.views import ModelView

router = Router(auth=token_auth)


@router.get("/models", url_name="models")
async def list_models(request: HttpRequest) -> HttpResponse:
    """The models that this token can call."""
    data = await _model_objects(request)
    ids = [entry["id"] for entry in data]
    return json_response(
        {
            "object": "list",
            "data": data,
            "has_more": False,
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
        }
    )


@router.get("/models/{path:name}", url_name="model")
async def retrieve_model(request: HttpRequest, name: str) -> HttpResponse:
    """One model. One that this token cannot call is not found."""
    for found in await _model_objects(request, name):
        return json_response(found)
    raise ModelNotFound(
        f"The model “{name[:100]}” does not exist, or your token cannot call it. GET /v1/models lists those that are.",
        param="model",
    )


async def _model_objects(request: HttpRequest, name: str = "") -> list[dict[str, object]]:
    """The objects of all models that the caller can call, or of the one of this name."""
    exchange, snapshot = exchange_of(request), snapshot_cache.snapshot
    caller, fallback = exchange.caller, (await runtime()).fallback_price
    assert caller is not None  # noqa: S101  # token_auth has run
    return [
        model_object(model, snapshot.terms(caller).multiplier, exchange.wall, fallback)
        for model in usable_models(caller, snapshot, exchange.wall, fallback is not None)
        if not name or model.name == name
    ]


_PRICES = (
    ("input", "input"),
    ("cached_input", "cached_input"),
    ("cache_write", "cache_write"),
    ("output", "output"),
    ("reasoning", "reasoning"),
    ("audio_input", "audio_input"),
    ("audio_output", "audio_output"),
    ("image_input", "image_input"),
    ("call", "per_call"),
    ("image", "per_image"),
    ("second", "per_second"),
    ("character", "per_character"),
)


def pricing(model: ModelView, multiplier: int, now: float, fallback: Price | None = None) -> dict[str, str] | None:
    """The caller's prices in USD as text: per 1M tokens, or per unit. None when the price depends on the channel.

    `fallback`: the price of models without one.
    """
    price = (model.price.at(now, 0) if model.price is not None else None) or (None if model.varied else fallback)
    if price is None:
        return None
    found = {"currency": "USD", "tokens_per": "1000000"}
    for name, shown in _PRICES:
        value = getattr(price, name)
        if value or (value is not None and name in {"input", "output"}):
            found[shown] = plain(-(-value * multiplier // ONE))
    return found


def model_object(model: ModelView, multiplier: int, now: float, fallback: Price | None = None) -> dict[str, object]:
    """A model object that the SDKs of both OpenAI and Anthropic can read."""
    found: dict[str, object] = {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "type": "model",
        "display_name": model.name,
        "created_at": datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z"),
    }
    if model.context_window:
        found["context_window"] = model.context_window
    if model.max_output_tokens:
        found["max_output_tokens"] = model.max_output_tokens
    if model.abilities:
        found["abilities"] = list(model.abilities)
    price = pricing(model, multiplier, now, fallback)
    if price is not None:
        found["pricing"] = price
    return found
