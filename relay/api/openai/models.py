"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponse
from ninja import Router

from portal.lib.money import plain
from relay.api.auth import token_auth
from relay.api.request import exchange_of
from relay.api.respond import json_response
from relay.billing.prices import ONE
from relay.errors import ModelNotFound
from relay.gateway.access.authorization import usable_models
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.views import ModelView

router = Router(auth=token_auth)


@router.get("/models", url_name="models")
async def list_models(request: HttpRequest) -> HttpResponse:
    """The models that this token may use."""
    exchange = exchange_of(request)
    assert exchange.caller is not None  # noqa: S101  # token_auth has run
    terms = snapshot_cache.snapshot.terms(exchange.caller)
    data = [
        model_object(model, terms.multiplier, exchange.wall)
        for model in usable_models(exchange.caller, snapshot_cache.snapshot, exchange.wall)
    ]
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
    """One model. One that this token may not use is not found."""
    exchange = exchange_of(request)
    assert exchange.caller is not None  # noqa: S101  # token_auth has run
    for model in usable_models(exchange.caller, snapshot_cache.snapshot, exchange.wall):
        if model.name == name:
            return json_response(
                model_object(model, snapshot_cache.snapshot.terms(exchange.caller).multiplier, exchange.wall)
            )
    raise ModelNotFound(
        f"The model “{name[:100]}” does not exist or is not available to your token. GET /v1/models lists those that "
        "are.",
        param="model",
    )


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


def pricing(model: ModelView, multiplier: int, now: float) -> dict[str, str] | None:
    """The caller's prices in USD as text: per 1M tokens, or per unit. None when the model has no price of its own."""
    price = model.price.at(now, 0) if model.price is not None else None
    if price is None:
        return None
    found = {"currency": "USD", "tokens_per": "1000000"}
    for name, shown in _PRICES:
        value = getattr(price, name)
        if value or (value is not None and name in {"input", "output"}):
            found[shown] = plain(-(-value * multiplier // ONE))
    return found


def model_object(model: ModelView, multiplier: int, now: float) -> dict[str, object]:
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
    price = pricing(model, multiplier, now)
    if price is not None:
        found["pricing"] = price
    return found
