"""/v1/responses and /v1/conversations."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import Router

from portal.lib.texts import whole_number
from relay.api.auth import counted_auth, token_auth
from relay.api.request import caller_of, exchange_of, json_body, query_of
from relay.api.respond import json_response
from relay.endpoints.text import compaction, conversations, deletion, responses
from relay.errors import InvalidRequest
from relay.gateway.runtime import runtime
from relay.protocols.naming.references import Reference

router = Router(auth=counted_auth)


@router.post("/responses", url_name="responses", auth=token_auth)
async def create_response(request: HttpRequest) -> HttpResponseBase:
    """Answer with a response: at once, as a stream of events, or in the background."""
    return await responses.create_response(exchange_of(request), caller_of(request), await runtime())


@router.post("/responses/compact", url_name="responses-compact", auth=token_auth)
async def compact_response(request: HttpRequest) -> HttpResponseBase:
    """Make a conversation short, so that it can go on."""
    return await compaction.compact(exchange_of(request), caller_of(request), await runtime())


@router.post("/responses/input_tokens", url_name="responses-input-tokens", auth=token_auth)
async def count_input_tokens(request: HttpRequest) -> HttpResponseBase:
    """How many tokens a request would have."""
    return await compaction.count_input(exchange_of(request), caller_of(request), await runtime())


@router.get("/responses/{response_id}", url_name="response")
async def retrieve_response(request: HttpRequest, response_id: str) -> HttpResponseBase:
    """A response that is kept; with `stream=true` its events, after number `starting_after`."""
    caller = caller_of(request)
    query = query_of(request)
    if query.get("stream", "").lower() == "true":
        after = whole_number(query.get("starting_after", -1), -1)
        if after is None:
            raise InvalidRequest(
                "The parameter “starting_after” must be the number of an event.", param="starting_after"
            )
        return await responses.replay_response(exchange_of(request), caller, response_id, after)
    return json_response(await responses.fetch_response(caller, response_id))


@router.delete("/responses/{response_id}", url_name="response")
async def delete_response(request: HttpRequest, response_id: str) -> HttpResponse:
    """Forget a response."""
    return json_response(await deletion.delete_response(await runtime(), caller_of(request), response_id))


@router.post("/responses/{response_id}/cancel", url_name="response-cancel")
async def cancel_response(request: HttpRequest, response_id: str) -> HttpResponse:
    """End a response that is made in the background."""
    return json_response(await responses.cancel_response(caller_of(request), response_id))


@router.get("/responses/{response_id}/input_items", url_name="response-input-items")
async def list_input_items(request: HttpRequest, response_id: str) -> HttpResponse:
    """What was asked in the turn of a response."""
    query = query_of(request)
    return json_response(
        conversations.list_page(await responses.fetch_input_items(caller_of(request), response_id), query)
    )


@router.post("/conversations", url_name="conversations")
async def create_conversation(request: HttpRequest) -> HttpResponse:
    """Begin a conversation that is kept here."""
    named: list[Reference] = []
    body = await json_body(request, named)
    return json_response(await conversations.create_conversation(caller_of(request), await runtime(), body, named))


@router.get("/conversations/{conversation_id}", url_name="conversation")
async def retrieve_conversation(request: HttpRequest, conversation_id: str) -> HttpResponse:
    """One conversation."""
    return json_response(await conversations.retrieve_conversation(caller_of(request), conversation_id))


@router.post("/conversations/{conversation_id}", url_name="conversation")
async def update_conversation(request: HttpRequest, conversation_id: str) -> HttpResponse:
    """Change its metadata."""
    return json_response(
        await conversations.update_conversation(
            caller_of(request), await runtime(), conversation_id, await json_body(request)
        )
    )


@router.delete("/conversations/{conversation_id}", url_name="conversation")
async def delete_conversation(request: HttpRequest, conversation_id: str) -> HttpResponse:
    """Delete it with its items."""
    return json_response(await conversations.delete_conversation(caller_of(request), conversation_id))


@router.post("/conversations/{conversation_id}/items", url_name="conversation-items")
async def create_items(request: HttpRequest, conversation_id: str) -> HttpResponse:
    """Add items at the end."""
    named: list[Reference] = []
    body = await json_body(request, named)
    added = await conversations.add_items(caller_of(request), await runtime(), conversation_id, body, named)
    return json_response(conversations.list_page(added, {"order": "asc", "limit": "100"}))


@router.get("/conversations/{conversation_id}/items", url_name="conversation-items")
async def list_items(request: HttpRequest, conversation_id: str) -> HttpResponse:
    """Its items, newest first unless told otherwise."""
    return json_response(await conversations.list_items(caller_of(request), conversation_id, query_of(request)))


@router.get("/conversations/{conversation_id}/items/{item_id}", url_name="conversation-item")
async def retrieve_item(request: HttpRequest, conversation_id: str, item_id: str) -> HttpResponse:
    """One item."""
    return json_response(await conversations.retrieve_item(caller_of(request), conversation_id, item_id))


@router.delete("/conversations/{conversation_id}/items/{item_id}", url_name="conversation-item")
async def delete_item(request: HttpRequest, conversation_id: str, item_id: str) -> HttpResponse:
    """Delete one item."""
    return json_response(await conversations.delete_item(caller_of(request), conversation_id, item_id))
