"""/v1beta/interactions, of Gemini's API. /v1 and /v1alpha are the same."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import Router

from relay.api.auth import counted_auth, token_auth
from relay.api.request import caller_of, exchange_of, query_of
from relay.api.respond import json_response
from relay.endpoints.text.interactions import create, stored
from relay.errors import InvalidRequest
from relay.gateway.runtime import runtime

router = Router(auth=counted_auth)


@router.post("/interactions", url_name="interactions", auth=token_auth)
async def create_interaction(request: HttpRequest) -> HttpResponseBase:
    """Answer with an interaction of a model or an agent: at once, as a stream of events, or in the background."""
    return await create.create_interaction(exchange_of(request), caller_of(request), await runtime())


@router.get("/interactions/{interaction_id}", url_name="interaction")
async def retrieve_interaction(request: HttpRequest, interaction_id: str) -> HttpResponseBase:
    """An interaction that is kept; with `stream=true` its events, those behind `last_event_id`."""
    caller, query = caller_of(request), query_of(request)
    after = query.get("last_event_id", "")
    if _is_true(query, "stream"):
        return await stored.replay(exchange_of(request), caller, interaction_id, after)
    if after:
        raise InvalidRequest("Send “last_event_id” with “stream=true”.", param="last_event_id")
    return json_response(await stored.fetch_interaction(caller, interaction_id, _is_true(query, "include_input")))


@router.delete("/interactions/{interaction_id}", url_name="interaction")
async def delete_interaction(request: HttpRequest, interaction_id: str) -> HttpResponse:
    """Forget an interaction."""
    return json_response(await stored.delete_interaction(await runtime(), caller_of(request), interaction_id))


@router.post("/interactions/{interaction_id}/cancel", url_name="interaction-cancel")
async def cancel_interaction(request: HttpRequest, interaction_id: str) -> HttpResponse:
    """End an interaction that is made in the background."""
    return json_response(await stored.cancel_interaction(caller_of(request), interaction_id))


def _is_true(query: dict[str, str], name: str) -> bool:
    return query.get(name, "").lower() == "true"
