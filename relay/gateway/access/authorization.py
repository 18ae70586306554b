"""Decides what a caller may use: addresses, purposes, models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from portal.lib import net
from relay.errors import Forbidden, ModelNotFound, PlanAuthError
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Routes
from relay.gateway.snapshot.snapshot import Snapshot
from relay.gateway.snapshot.views import ModelView, PlanView
from relay.models.model_names import spellings
from relay.models.token import fits_purpose

# The endpoints that a token's purpose allows, by the first word of their names. The list of models and the caller's own
# usage are open to every token.
PURPOSES: Final[Mapping[str, frozenset[str]]] = {
    "chat": frozenset(
        (
            "chat",
            "completions",
            "responses",
            "messages",
            "generate_content",
            "interactions",
            "embeddings",
            "moderations",
            "rerank",
        )
    ),
    "images": frozenset(("images",)),
    "audio": frozenset(("audio", "realtime")),
    "tasks": frozenset(("tasks",)),
}
_LONGEST_NAME: Final = 200  # characters that a client may write: names have 120, and a prefix or the rest of a family


def check_address(caller: Caller, ip: str) -> None:
    """Raises Forbidden when the token is limited to other addresses."""
    if caller.networks and not caller.may_come_from(net.parse_address(ip)):
        raise Forbidden(
            "This token may not be used from your address. Use it from one of its allowed addresses, or create another "
            "token on the portal; an administrator can change the addresses of this one.",
            code="ip_not_allowed",
        )


def find_model(snapshot: Snapshot, name: str) -> ModelView | None:
    """The model of a name: its own or a further one, with the prefixes of LiteLLM or GeekAI, or in a family such as
    “gpt-4-gizmo-*”.
    """
    model = snapshot.named(name)
    if model is not None or len(name) > _LONGEST_NAME:
        return model
    meant = name
    for meant in spellings(name):
        if (model := snapshot.named(meant)) is not None:
            return model
    return snapshot.family_member(meant)


def permitted_model(caller: Caller, snapshot: Snapshot, name: str, now: float) -> ModelView:
    """The model, if it exists and the caller may use it. Raises ModelNotFound, Forbidden."""
    plan = snapshot.plan_of(caller)
    if plan is not None and (own := plan_model(plan, name)) is not None:
        return own
    model = find_model(snapshot, name)
    shown = name if len(name) <= 100 else name[:99] + "…"
    if model is None and plan is None and caller.user_id in snapshot.lack_plans:
        raise PlanAuthError("missing")
    if model is None:
        near = ", ".join(get_close_matches(name[:_LONGEST_NAME], plan.models, 3, 0.5)) if plan is not None else ""
        raise ModelNotFound(
            f"The model “{shown}” does not exist here. GET /v1/models lists the models of your token."
            + (f" Closest of your ChatGPT plan: {near}." if near else ""),
            param="model",
        )
    if caller.models is not None and model.id not in caller.models:
        raise Forbidden(
            f"Your token is limited to other models than “{shown}”. GET /v1/models lists them. Create another "
            "token on the portal, or ask its administrator to add the model to this one.",
            param="model",
        )
    if not caller.may_use(model, now):
        raise Forbidden(
            f"Your token may not use the model “{shown}”. Ask the portal's administrator for the permission, or "
            "choose one from GET /v1/models.",
            param="model",
        )
    return model


def plan_model(plan: PlanView, name: str) -> ModelView | None:
    """The model of a plan by a name as requests have it."""
    if len(name) > _LONGEST_NAME:
        return None
    return next((plan.models[meant] for meant in (name, *spellings(name)) if meant in plan.models), None)


def check_named(caller: Caller, snapshot: Snapshot, names: Iterable[str], now: float) -> None:
    """Check the models that parts of a request name, such as its tools. Raises Forbidden.

    One that the portal does not have is left to the upstream to judge.
    """
    for name in names:
        if find_model(snapshot, name) is not None:
            permitted_model(caller, snapshot, name, now)


def check_purpose(caller: Caller, family: str) -> None:
    """Raises Forbidden when the token is for another purpose. `family`: the first word of an endpoint's name."""
    if caller.purpose and family not in PURPOSES[caller.purpose]:
        raise Forbidden(
            f"This token is for {caller.purpose} only. Use a token that is for everything, or for this.",
            code="purpose_not_allowed",
        )


def serving_routes(caller: Caller, model: ModelView) -> Routes:
    """The routes by which requests of the caller can be sent: they have a key, and their address may be used.

    Keys that cool down count, since they come back by themselves. Those that were taken out of service do not.
    """
    return caller.routes(model).serving


def may_call(caller: Caller, model: ModelView, now: float, sells_unpriced: bool) -> bool:
    """Whether requests of the caller for a model can succeed: permission, purpose, a price, and a channel that serves.

    `sells_unpriced`: whether models without a price are served, by the setting UNPRICED.
    """
    if not caller.may_use(model, now) or not fits_purpose(caller.purpose, model.abilities):
        return False
    routes = serving_routes(caller, model)
    return bool(routes) and (sells_unpriced or model.priced_at(now, routes.tariffs))


def usable_models(caller: Caller, models: Iterable[ModelView], now: float, sells_unpriced: bool) -> list[ModelView]:
    """Those models that the caller can call. Families are left out: they are patterns."""
    return [model for model in models if not model.name.endswith("*") and may_call(caller, model, now, sells_unpriced)]
