"""GET /v1/usage, /v1/usage/{request id}, and the paths under /dashboard/billing that one-api's clients use."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Router

from relay.api.auth import token_auth
from relay.api.request import exchange_of
from relay.api.respond import json_response
from relay.errors import RequestNotFound
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.usage import receipts, refusals
from relay.usage.limits import in_one_line, spending_limits

router = Router(auth=token_auth)
billing = Router(auth=token_auth)


def _caller(request: HttpRequest) -> Caller:
    caller = exchange_of(request).caller
    assert caller is not None  # noqa: S101  # token_auth has run
    return caller


@router.get("/usage", url_name="usage")
async def token_usage(request: HttpRequest) -> HttpResponse:
    """What this token has used, and what limits it. Works for a token that has nothing left, too.

    With `Accept: text/plain` it is what limits the token, in one line, for status lines.
    """
    caller = _caller(request)
    exchange = exchange_of(request)
    if exchange.headers.get(b"accept", b"").lower().startswith(b"text/plain"):
        found = await snapshot_cache.in_thread(spending_limits, caller.user_id, caller.token_id, exchange.wall)
        return HttpResponse(f"{in_one_line(found, exchange.wall)}\n", content_type="text/plain; charset=utf-8")
    return json_response(
        await snapshot_cache.in_thread(receipts.token_usage, caller.user_id, caller.token_id, exchange_of(request).wall)
    )


@router.get("/usage/{request_id}", url_name="receipt")
async def request_receipt(request: HttpRequest, request_id: str) -> HttpResponse:
    """The receipt of one request of this token's user."""
    caller = _caller(request)
    found = await snapshot_cache.in_thread(receipts.find_receipt, request_id, caller.user_id)
    if found is None:
        found = await snapshot_cache.in_thread(refusals.find_refusal, request_id, caller.user_id)
    if found is None:
        raise RequestNotFound(
            f"There is no receipt of “{request_id[:64]}” for your account. Use the x-request-id of the answer; of "
            "requests that were refused before routing, only the first of a minute have one."
        )
    return json_response(found)


@billing.get("/subscription", url_name="billing-subscription")
async def billing_subscription(request: HttpRequest) -> HttpResponse:
    """The limits of this token, in the form of one-api."""
    caller = _caller(request)
    return json_response(
        await snapshot_cache.in_thread(
            receipts.subscription, caller.user_id, caller.token_id, exchange_of(request).wall
        )
    )


@billing.get("/usage", url_name="billing-usage")
async def billing_usage(request: HttpRequest) -> HttpResponse:
    """What this token has spent, in the form of one-api."""
    return json_response(await snapshot_cache.in_thread(receipts.total_usage, _caller(request).token_id))
