"""Balances, movements and redemption codes."""

from typing import Annotated, Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from ninja import Query, Schema
from pydantic import Field, StrictBool

from accounts.admin.base import request_ip
from accounts.models import AuditEvent
from portal.lib import money
from portal.lib.crypto import Undecryptable
from relay.admin.people.wallet import AmountForm
from relay.billing import redemption, wallets
from relay.billing.ledger import movements
from relay.manage.requests import cursors, once
from relay.manage.requests.access import known_parameters, need, need_scope
from relay.manage.requests.problems import Conflict, Invalid, Missing, invalid, of_validation
from relay.manage.resources import rows
from relay.manage.resources.pages import Page
from relay.manage.resources.resources import BY_PATH
from relay.manage.resources.routes import ERRORS, KEY, OBJECTS, PathId, router
from relay.manage.resources.schemas import Id, Sent, list_of
from relay.models import LedgerEntry, RedemptionBatch, RedemptionCode

_MOST_CODES = 5000


class Amount(Sent):
    """How much is added or taken, and why."""

    usd: Annotated[str, Field(max_length=40)] | float | int = Field(description="In USD, to the nano-dollar.")
    reason: str = Field(max_length=200, description="Kept in the ledger; the user sees it.")


class Limit(Sent):
    """Whether a balance limits its user."""

    unlimited: StrictBool


class Movement(Schema):
    """One movement of a balance by people."""

    object: str
    id: int
    at: str
    kind: str
    amount_usd: str = Field(description="Added, or taken if the kind is deduct.")
    user: int
    actor: int | None
    reason: str


class MovementQuery(Schema):
    user: Id = Field(description="Whose.")
    limit: int = Field(50, ge=1, le=200)
    cursor: str = Field("", max_length=400)


class Code(Schema):
    """A redemption code."""

    object: str
    id: int
    batch: int
    hint: str
    state: str = Field(description="open, redeemed, disabled or expired.")
    redeemed_by: int | None
    redeemed_at: str | None
    code: str | None = Field(None, description="The code itself, where it is asked for.")


class CodeQuery(Schema):
    batch: Id = Field(description="Of which batch.")
    limit: int = Field(50, ge=1, le=200)
    cursor: str = Field("", max_length=400)


class Codes(Schema):
    """All codes of a batch, in clear."""

    object: str
    data: list[Code]


class Count(Schema):
    """How many were changed."""

    object: str
    count: int


def _user(request: HttpRequest, pk: int) -> tuple[Page, Any]:
    page = rows.page_of(request, BY_PATH["users"])
    user = page.find(pk, lock=True)
    need(page.page.has_wallet_permission(request))
    return page, user


def book(request: HttpRequest, pk: int, usd: Any, reason: str, *, adds: bool) -> tuple[int, Any]:
    """Top up or deduct, with the checks of the page's form, inside the current transaction."""
    page, user = _user(request, pk)
    form = AmountForm({"amount": str(usd), "reason": reason})
    if not form.is_valid():
        raise invalid(form.errors, {"amount": "usd"})
    amount = money.nano(form.cleaned_data["amount"])
    try:
        wallets.book(
            user,
            amount if adds else -amount,
            form.cleaned_data["reason"],
            actor=request.user,
            ip=request_ip(request),
        )
    except movements.NotEnough as error:
        raise Invalid(f"usd: {error}", {"usd": [str(error)]}, code="not_enough") from None
    except ValidationError as error:
        raise of_validation(error) from None
    return 200, rows.again(BY_PATH["users"], page, user)


@router.post(
    "/users/{int:pk}/top-up", response={200: OBJECTS["users"], **ERRORS}, tags=["users"], openapi_extra=KEY,
    summary="Add to a balance", operation_id="top_up", url_name="users-top-up",
)  # fmt: skip
def top_up(request: HttpRequest, pk: PathId, payload: Amount) -> HttpResponse:
    """Add to a balance. Send an Idempotency-Key: sent twice, it then adds once."""
    need_scope(request, "money", write=True)
    return once.do(request, lambda: book(request, pk, payload.usd, payload.reason, adds=True))


@router.post(
    "/users/{int:pk}/deduct", response={200: OBJECTS["users"], **ERRORS}, tags=["users"], openapi_extra=KEY,
    summary="Take from a balance", operation_id="deduct", url_name="users-deduct",
)  # fmt: skip
def deduct(request: HttpRequest, pk: PathId, payload: Amount) -> HttpResponse:
    """Take from a balance what is not spent or held by running requests."""
    need_scope(request, "money", write=True)
    return once.do(request, lambda: book(request, pk, payload.usd, payload.reason, adds=False))


@router.post(
    "/users/{int:pk}/unlimited", response={200: OBJECTS["users"], **ERRORS}, tags=["users"], openapi_extra=KEY,
    summary="Lift or set the limit of a balance", operation_id="set_unlimited", url_name="users-unlimited",
)  # fmt: skip
def unlimited(request: HttpRequest, pk: PathId, payload: Limit) -> HttpResponse:
    need_scope(request, "money", write=True)

    def work() -> tuple[int, Any]:
        page, user = _user(request, pk)
        wallets.set_unlimited(user, payload.unlimited, actor=request.user, ip=request_ip(request))
        return 200, rows.again(BY_PATH["users"], page, user)

    return once.do(request, work)


@router.get(
    "/movements", response={200: list_of("MovementList", Movement), **ERRORS}, tags=["users"],
    summary="List: movements of a balance", operation_id="list_movements", url_name="movements",
)  # fmt: skip
def movement_list(request: HttpRequest, asked: Query[MovementQuery]) -> HttpResponse:
    """What people added to a user's balance and took from it, the newest first."""
    need_scope(request, "money")
    page = Page(request, LedgerEntry)
    found = page.rows().filter(user=asked.user, token=None, kind__in=movements.BY_PEOPLE)
    return _paged(request, found, {"user": asked.user}, asked.limit, asked.cursor, _movement)


def _movement(row: LedgerEntry) -> dict[str, Any]:
    return {
        "object": "movement",
        "id": row.pk,
        "at": row.at.isoformat(),
        "kind": row.kind,
        "amount_usd": money.plain(row.amount),
        "user": row.user_id,
        "actor": row.actor_id,
        "reason": row.reason,
    }


def _paged(request: HttpRequest, found: Any, filters: Any, limit: int, cursor: str, show: Any) -> HttpResponse:
    known_parameters(request, (*filters, "limit", "cursor"))
    if cursor:
        found = found.filter(pk__lt=int(cursors.read(request.path, filters, cursor)))
    page = list(found.order_by("-pk")[: limit + 1])
    after = cursors.write(request.path, filters, str(page[limit - 1].pk)) if len(page) > limit else None
    return once.answered(200, {"object": "list", "data": [show(one) for one in page[:limit]], "next_cursor": after})


def _code(code: RedemptionCode, secret: str = "") -> dict[str, Any]:
    return {
        "object": "redemption_code",
        "id": code.pk,
        "batch": code.batch_id,
        "hint": code.hint,
        "state": code.state(),
        "redeemed_by": code.redeemed_by_id,
        "redeemed_at": code.redeemed_at.isoformat() if code.redeemed_at else None,
        **({"code": secret} if secret else {}),
    }


@router.get(
    "/redemption-codes", response={200: list_of("RedemptionCodeList", Code), **ERRORS}, tags=["redemption-batches"],
    summary="List: codes of a batch", operation_id="list_redemption_code", url_name="redemption-codes",
)  # fmt: skip
def code_list(request: HttpRequest, asked: Query[CodeQuery]) -> HttpResponse:
    """The codes of a batch, without the codes themselves."""
    need_scope(request, "money")
    batch = rows.page_of(request, BY_PATH["redemption-batches"]).find(asked.batch)
    return _paged(request, batch.codes.select_related("batch"), {"batch": batch.pk}, asked.limit, asked.cursor, _code)


def codes_in_clear(request: HttpRequest, pk: int) -> list[dict[str, Any]]:
    """The codes of a batch in clear, for those who may make such batches. It is audited, as on the page."""
    page = rows.page_of(request, BY_PATH["redemption-batches"])
    batch: RedemptionBatch = page.find(pk)
    need(page.page.has_secret_permission(request))
    try:
        found = redemption.decrypt_codes(batch)
    except Undecryptable:
        raise Conflict(_("The codes cannot be decrypted with the configured encryption keys.")) from None
    AuditEvent.write("codes.show", request.user, batch, request_ip(request))
    return [_code(code, secret) for code, secret in found[:_MOST_CODES]]


@router.post(
    "/redemption-batches/{int:pk}/show", response={200: Codes, **ERRORS}, tags=["redemption-batches"],
    summary="Show codes in clear", operation_id="show_redemption_codes", url_name="redemption-batches-show",
)  # fmt: skip
def show_codes(request: HttpRequest, pk: PathId) -> HttpResponse:
    """All codes of a batch, in clear. That they were shown is in the audit log."""
    need_scope(request, "money", write=True)
    return once.do(request, lambda: (200, {"object": "redemption_codes", "data": codes_in_clear(request, pk)}))


@router.post(
    "/redemption-batches/{int:pk}/disable", response={200: Count, **ERRORS}, tags=["redemption-batches"],
    summary="Disable codes that nobody has redeemed", operation_id="disable_redemption_codes", openapi_extra=KEY,
    url_name="redemption-batches-disable",
)  # fmt: skip
def disable_batch(request: HttpRequest, pk: PathId) -> HttpResponse:
    need_scope(request, "money", write=True)

    def work() -> tuple[int, Any]:
        page = rows.page_of(request, BY_PATH["redemption-batches"])
        batch = page.find(pk, lock=True)
        need(page.page.has_change_permission(request, batch))
        count = redemption.disable_codes(batch, actor=request.user, ip=request_ip(request))
        return 200, {"object": "count", "count": count}

    return once.do(request, work)


@router.post(
    "/redemption-codes/{int:pk}/disable", response={200: Code, **ERRORS}, tags=["redemption-batches"],
    summary="Disable a code", operation_id="disable_redemption_code", url_name="redemption-codes-disable",
    openapi_extra=KEY,
)  # fmt: skip
def disable_code(request: HttpRequest, pk: PathId) -> HttpResponse:
    need_scope(request, "money", write=True)

    def work() -> tuple[int, Any]:
        page = rows.page_of(request, BY_PATH["redemption-batches"])
        batches = page.rows()
        need(page.page.has_change_permission(request))
        code = RedemptionCode.objects.select_related("batch").filter(pk=pk, batch__in=batches.values("pk")).first()
        if code is None:
            raise Missing
        if not redemption.disable_code(code, actor=request.user, ip=request_ip(request)):
            raise Conflict(_("This code is not open any more."), code="not_open")
        code.enabled = False
        return 200, _code(code)

    return once.do(request, work)
