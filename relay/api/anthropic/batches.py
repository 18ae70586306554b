"""/v1/messages/batches."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import Router

from relay.api.auth import counted_auth
from relay.api.request import caller_of, exchange_of, query_of
from relay.api.respond import json_response
from relay.endpoints.batches import message_batches
from relay.gateway.runtime import runtime

router = Router(auth=counted_auth)


def _address(request: HttpRequest) -> str:
    """The portal's address as the client knows it; empty where that cannot be told, so that paths are relative."""
    try:
        found: str = settings.CONFIG.origin(request)
    except DisallowedHost:
        return ""
    return found


@router.post("/messages/batches", url_name="message-batches")
async def create_message_batch(request: HttpRequest) -> HttpResponse:
    """Have requests of Anthropic's API made in the background."""
    beta = query_of(request).get("beta", "") == "true"
    return json_response(
        await message_batches.create_batch(
            exchange_of(request), caller_of(request), await runtime(), beta, _address(request)
        )
    )


@router.get("/messages/batches", url_name="message-batches")
async def list_message_batches(request: HttpRequest) -> HttpResponse:
    """The message batches of the token's user, newest first."""
    return json_response(await message_batches.list_batches(caller_of(request), query_of(request), _address(request)))


@router.get("/messages/batches/{batch_id}", url_name="message-batch")
async def retrieve_message_batch(request: HttpRequest, batch_id: str) -> HttpResponse:
    """How far a message batch is, and where its results are."""
    return json_response(await message_batches.retrieve_batch(caller_of(request), batch_id, _address(request)))


@router.delete("/messages/batches/{batch_id}", url_name="message-batch")
async def delete_message_batch(request: HttpRequest, batch_id: str) -> HttpResponse:
    """Delete a message batch that has ended, with its results."""
    return json_response(await message_batches.delete_batch(caller_of(request), batch_id))


@router.post("/messages/batches/{batch_id}/cancel", url_name="message-batch-cancel")
async def cancel_message_batch(request: HttpRequest, batch_id: str) -> HttpResponse:
    """End a message batch. What runs is waited for; what was answered is kept."""
    return json_response(await message_batches.cancel_batch(caller_of(request), batch_id, _address(request)))


@router.get("/messages/batches/{batch_id}/results", url_name="message-batch-results")
async def retrieve_message_results(request: HttpRequest, batch_id: str) -> HttpResponseBase:
    """The results of a message batch that has ended: JSON lines, one for each request."""
    return await message_batches.fetch_results(exchange_of(request), caller_of(request), batch_id)
