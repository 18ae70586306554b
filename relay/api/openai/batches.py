"""/v1/batches."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Router

from relay.api.auth import counted_auth
from relay.api.request import caller_of, json_body, query_of
from relay.api.respond import json_response
from relay.endpoints.batches import batches

router = Router(auth=counted_auth)


@router.post("/batches", url_name="batches")
async def create_batch(request: HttpRequest) -> HttpResponse:
    """Have the requests of a file made in the background."""
    return json_response(await batches.create_batch(caller_of(request), await json_body(request)))


@router.get("/batches", url_name="batches")
async def list_batches(request: HttpRequest) -> HttpResponse:
    """The batches of the token's user, newest first."""
    return json_response(await batches.list_batches(caller_of(request), query_of(request)))


@router.get("/batches/{batch_id}", url_name="batch")
async def retrieve_batch(request: HttpRequest, batch_id: str) -> HttpResponse:
    """How far a batch is, and where its results are."""
    return json_response(await batches.retrieve_batch(caller_of(request), batch_id))


@router.post("/batches/{batch_id}/cancel", url_name="batch-cancel")
async def cancel_batch(request: HttpRequest, batch_id: str) -> HttpResponse:
    """End it. What runs is waited for; what was answered is kept."""
    return json_response(await batches.cancel_batch(caller_of(request), batch_id))
