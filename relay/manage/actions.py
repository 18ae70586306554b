"""What is done to one row beside changing its fields: rotating tokens, ending cooldowns, testing channels."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from ninja import Query, Schema
from pydantic import Field

from accounts.admin.base import request_ip
from accounts.rights import exceeds
from relay.admin.forms import EXCEEDS
from relay.channels import cooldowns, health_checks
from relay.channels.keys import put_back
from relay.manage.money import Count
from relay.manage.requests import once
from relay.manage.requests.access import need, need_scope
from relay.manage.requests.problems import Conflict, Forbidden
from relay.manage.resources import rows
from relay.manage.resources.resources import BY_PATH
from relay.manage.resources.routes import ERRORS, KEY, OBJECTS, Deleted, PathId, router
from relay.manage.resources.schemas import Id
from relay.models import Token
from relay.tokens import lifecycle


class CooldownQuery(Schema):
    channel: Id = Field(description="Of which channel.")


class Tested(Schema):
    """The outcome of a test of a channel."""

    object: str
    channel: int
    ok: bool
    message: str
    latency_ms: int | None


def _token(request: HttpRequest, pk: int) -> tuple[Any, Token]:
    page = rows.page_of(request, BY_PATH["tokens"])
    token = page.find(pk, lock=True)
    need(page.page.has_change_permission(request, token))
    return page, token


@router.post(
    "/tokens/{int:pk}/rotate", response={200: OBJECTS["tokens"], **ERRORS}, tags=["tokens"], openapi_extra=KEY,
    summary="Give a token a new secret", operation_id="rotate_token", url_name="tokens-rotate",
)  # fmt: skip
def rotate(request: HttpRequest, pk: PathId) -> HttpResponse:
    """The new secret is in `key`, once. The old one is refused from then on."""
    need_scope(request, "tokens", write=True)

    def work() -> tuple[int, Any]:
        page, token = _token(request, pk)
        if token.revoked_at:
            raise Conflict(_("A revoked token cannot be rotated. Create a new one."), code="revoked")
        if exceeds(token.user, request.user):
            raise Forbidden(str(EXCEEDS), code="missing_right")
        secret = lifecycle.rotate_token(token, actor=request.user, ip=request_ip(request))
        return 200, {**rows.again(BY_PATH["tokens"], page, token), "key": secret}

    return once.do(request, work)


def revoke_token(request: HttpRequest, pk: int) -> tuple[int, Any]:
    page, token = _token(request, pk)
    lifecycle.revoke_token(token, actor=request.user, ip=request_ip(request))
    return 200, rows.again(BY_PATH["tokens"], page, token)


@router.post(
    "/tokens/{int:pk}/revoke", response={200: OBJECTS["tokens"], **ERRORS}, tags=["tokens"], openapi_extra=KEY,
    summary="Revoke a token for good", operation_id="revoke_token", url_name="tokens-revoke",
)  # fmt: skip
def revoke(request: HttpRequest, pk: PathId) -> HttpResponse:
    """The token is refused from now on, and what it has running is ended. This cannot be undone."""
    need_scope(request, "tokens", write=True)
    return once.do(request, lambda: revoke_token(request, pk))


def _end(request: HttpRequest, **chosen: Any) -> int:
    page = rows.page_of(request, BY_PATH["cooldowns"])
    found = page.rows().filter(**chosen)
    need(page.page.has_end_permission(request))
    return cooldowns.end_cooldowns(list(found.select_related("channel")), request.user, request_ip(request))


@router.delete(
    "/cooldowns/{int:pk}", response={200: Deleted, **ERRORS}, tags=["cooldowns"], openapi_extra=KEY,
    summary="End a cooldown", operation_id="delete_cooldown", url_name="cooldowns-delete",
)  # fmt: skip
def end_cooldown(request: HttpRequest, pk: PathId) -> HttpResponse:
    """The next request may use again what was cooling down."""
    need_scope(request, "routing", write=True)

    def work() -> tuple[int, Any]:
        rows.page_of(request, BY_PATH["cooldowns"]).find(pk)
        _end(request, pk=pk)
        return 200, {"object": "cooldown", "id": pk, "deleted": True}

    return once.do(request, work)


@router.delete(
    "/cooldowns", response={200: Count, **ERRORS}, tags=["cooldowns"], openapi_extra=KEY,
    summary="End the cooldowns of a channel", operation_id="delete_cooldowns", url_name="cooldowns-of-channel",
)  # fmt: skip
def end_cooldowns(request: HttpRequest, asked: Query[CooldownQuery]) -> HttpResponse:
    need_scope(request, "routing", write=True)
    return once.do(request, lambda: (200, {"object": "count", "count": _end(request, channel=asked.channel)}))


def run_test(request: HttpRequest, pk: int) -> tuple[Any, Any]:
    """Test a channel with a real request, as its page does. Outside of a transaction: an upstream is waited for."""
    page = rows.page_of(request, BY_PATH["channels"])
    channel = page.find(pk)
    need(page.page.has_change_permission(request, channel))
    return channel, health_checks.test_channel(channel, request.user, request_ip(request))


@router.post(
    "/channels/{int:pk}/test", response={200: Tested, **ERRORS}, tags=["channels"],
    summary="Test a channel", operation_id="test_channel", url_name="channels-test",
)  # fmt: skip
def test_channel(request: HttpRequest, pk: PathId) -> HttpResponse:
    """Send a real request with each key of the channel. It costs a few tokens."""
    need_scope(request, "channels", write=True)
    channel, result = run_test(request, pk)
    return once.answered(
        200,
        {
            "object": "channel_test",
            "channel": channel.pk,
            "ok": result.ok,
            "message": result.message,
            "latency_ms": getattr(result, "latency_ms", None),
        },
    )


@router.post(
    "/keys/{int:pk}/put-back", response={200: OBJECTS["keys"], **ERRORS}, tags=["keys"], openapi_extra=KEY,
    summary="Put a key back into service", operation_id="put_back_key", url_name="keys-put-back",
)  # fmt: skip
def put_key_back(request: HttpRequest, pk: PathId) -> HttpResponse:
    """Put a key back that the portal took out of service, without a test."""
    need_scope(request, "channels", write=True)

    def work() -> tuple[int, Any]:
        channels, page = rows.page_of(request, BY_PATH["channels"]), rows.page_of(request, BY_PATH["keys"])
        key = page.find(pk, lock=True)
        need(channels.page.has_change_permission(request))
        put_back(key, request.user, request_ip(request))
        return 200, rows.again(BY_PATH["keys"], page, key)

    return once.do(request, work)
