"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal

from django.http import HttpRequest, HttpResponse
from ninja import Router

from portal.lib.money import plain
from relay.api.auth import token_auth
from relay.api.request import exchange_of, query_of
from relay.api.respond import json_response
from relay.billing.price_ranges import Amounts, Tier, price_ranges, with_general
from relay.billing.prices import ONE, Price, PriceList
from relay.endpoints.errors import invalid
from relay.errors import ModelNotFound
from relay.gateway.access.authorization import find_model, serving_routes, usable_models
from relay.gateway.access.codex_models import CatalogueTags
from relay.gateway.runtime import runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.views import ModelView, Route
from relay.protocols.anthropic_messages.models import model_info, model_page
from relay.protocols.codex.catalogue import catalogue, is_known
from relay.protocols.fields import BadRequest
from relay.protocols.gemini.models import model_entry, model_list
from relay.providers.model_facts import modalities

router = Router(auth=token_auth)


@router.get("/models", url_name="models")
async def list_models(request: HttpRequest) -> HttpResponse:
    """The models that this token can call.

    Asked with `client_version`, as Codex does, it is Codex's catalogue, with an `ETag`.
    """
    data = await _model_objects(request, _listed(request))
    if "client_version" in request.GET:
        return _catalogue(request, data, (await runtime()).catalogue_tags)
    page = {"messages": model_page, "generate_content": model_list}.get(exchange_of(request).error_shape.api)
    if page is not None:
        try:
            return json_response(page(data, query_of(request)))
        except BadRequest as bad:
            raise invalid(bad) from None
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
    caller, snapshot = exchange_of(request).caller, snapshot_cache.snapshot
    plan = snapshot.plan_of(caller) if caller is not None else None
    model = (plan.models.get(name) if plan is not None else None) or find_model(snapshot, name)
    for found in await _model_objects(request, [model] if model is not None else [], name):
        shown = {"messages": model_info, "generate_content": model_entry}.get(exchange_of(request).error_shape.api)
        return json_response(shown(found) if shown is not None else found)
    raise ModelNotFound(
        f"The model “{name[:100]}” does not exist, or your token cannot call it. GET /v1/models lists those that are.",
        param="model",
    )


def _listed(request: HttpRequest) -> Iterable[ModelView]:
    caller, snapshot = exchange_of(request).caller, snapshot_cache.snapshot
    return snapshot.models_of(caller) if caller is not None else ()


def _catalogue(request: HttpRequest, data: list[dict[str, object]], tags: CatalogueTags) -> HttpResponse:
    exchange = exchange_of(request)
    assert exchange.caller is not None  # noqa: S101  # token_auth has run
    tag = tags.tag(exchange.caller, exchange.wall, fresh=True)
    known = exchange.headers.get(b"if-none-match", b"").decode("latin-1")
    response = HttpResponse(b"" if is_known(known, tag) else catalogue(data), content_type="application/json")
    if not response.content:
        response.status_code = 304
        del response.headers["Content-Type"]
    response.headers["ETag"] = tag
    return response


async def _model_objects(request: HttpRequest, models: Iterable[ModelView], asked: str = "") -> list[dict[str, object]]:
    """The objects of those models that the caller can call, under each of their names.

    `asked`: the name by which one model was asked for; only the object of that name then.
    """
    exchange, snapshot = exchange_of(request), snapshot_cache.snapshot
    caller, fallback = exchange.caller, (await runtime()).fallback_price
    assert caller is not None  # noqa: S101  # token_auth has run
    found = []
    for model in usable_models(caller, models, exchange.wall, fallback is not None):
        routes, multiplier = serving_routes(caller, model), snapshot.terms(caller).multiplier
        own = model_object(model, routes.tariffs, multiplier, exchange.wall, fallback)
        if not asked:
            found += [own, *(alias_object(own, alias, len(model.aliases) > 1) for alias in model.aliases)]
        else:
            found.append(alias_object(own, asked, len(model.aliases) > 1) if asked in model.aliases else own)
    return found


_PRICES = (
    ("input", "input"),
    ("cached_input", "cached_input"),
    ("cached_audio_input", "cached_audio_input"),
    ("cache_write", "cache_write"),
    ("cache_write_1h", "cache_write_1h"),
    ("output", "output"),
    ("reasoning", "reasoning"),
    ("audio_input", "audio_input"),
    ("audio_output", "audio_output"),
    ("image_input", "image_input"),
    ("call", "per_call"),
    ("image", "per_image"),
    ("second", "per_second"),
    ("character", "per_character"),
    ("search", "per_search"),
)
_UNITS = frozenset(("call", "image", "second", "character", "search"))  # zero: nothing is charged for them


def pricing(
    model: ModelView, routes: Iterable[Route], multiplier: int, now: float, fallback: Price | None = None
) -> dict[str, object] | None:
    """The caller's prices in USD as text: per 1M tokens, or per unit. None when there is no price.

    Where the routes that can serve have several prices it is the highest, and `lowest` has those that differ. `tiers`
    are the prices of longer prompts. `fallback`: the price of models without one.
    """
    general = _tiers(model.price, now)
    lists = [
        with_general(_tiers(route.price, now), general) or ([_tier(fallback)] if fallback is not None else [])
        for route in routes
    ]
    found: dict[str, object] = {}
    tiers = []
    for one in price_ranges(lists):
        shown: dict[str, object] = _amounts(one.highest, multiplier)
        if one.differs:
            low = _amounts(one.lowest, multiplier)
            shown["lowest"] = {name: low[name] for name in low if low[name] != shown[name]}
        if one.above_tokens:
            tiers.append({"above_tokens": one.above_tokens, **shown})
        else:
            found = {"currency": "USD", "tokens_per": "1000000", **shown}
    if tiers:
        found["tiers"] = tiers
    return found or None


def _tiers(prices: PriceList | None, now: float) -> list[Tier]:
    return [_tier(price) for price in prices.tiers(now)] if prices is not None else []


def _tier(price: Price) -> Tier:
    """A tier in nano-USD."""
    amounts = {name: getattr(price, name) for name, _shown in _PRICES}
    return price.above_tokens, {
        name: Decimal(value) for name, value in amounts.items() if value or (value is not None and name not in _UNITS)
    }


def _amounts(amounts: Amounts, multiplier: int) -> dict[str, object]:
    return {shown: plain(-(-int(amounts[name]) * multiplier // ONE)) for name, shown in _PRICES if name in amounts}


def model_object(
    model: ModelView, routes: Iterable[Route], multiplier: int, now: float, fallback: Price | None = None
) -> dict[str, object]:
    """A model object that the SDKs of both OpenAI and Anthropic can read. `routes`: by which it can be served.

    `context_length`, `architecture` and `expiration_date` are what readers of OpenRouter's list look for.
    """
    found: dict[str, object] = {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "type": "model",
        "display_name": model.display_name or model.name,
        "created_at": datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z"),
    }
    if model.context_window:
        found["context_window"] = found["context_length"] = model.context_window
    if model.max_output_tokens:
        found["max_output_tokens"] = model.max_output_tokens
    if model.abilities:
        found["abilities"] = list(model.abilities)
        found["architecture"] = modalities(model.abilities)
    if model.reasoning_levels:
        found["reasoning_levels"] = list(model.reasoning_levels)
    if model.retires_on is not None:
        found["expiration_date"] = day = model.retires_on.isoformat()
        found["retires_at"] = f"{day}T00:00:00Z"
    price = pricing(model, routes, multiplier, now, fallback)
    if price is not None:
        found["pricing"] = price
    return found


def alias_object(own: dict[str, object], alias: str, one_of_several: bool) -> dict[str, object]:
    """The object of a model under a further name. OpenRouter calls what it stands for so as well.

    It is shown as the model is, so that lists which have only such names say what they stand for.
    """
    name = own["display_name"]
    shown = f"{name} ({alias})" if one_of_several else name
    return {**own, "id": alias, "display_name": shown, "alias_target": {"slug": own["id"], "name": name}}
