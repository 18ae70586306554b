"""The user's tokens: list, create, reveal, rotate, revoke. Secrets appear only in responses to POST."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import BadRequest
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import F, Func, OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST
from django_ratelimit.core import is_ratelimited

from accounts.models import AuditEvent
from accounts.sign_in.throttle import too_many_attempts
from portal.lib import money
from portal.pages.shared.agents import agent_snippets, agent_target, import_links
from portal.pages.shared.forms import OwnTokenForm, TokenLimitsForm
from portal.pages.shared.scope import signed_in_user, tokens_of
from portal.pages.shared.snippets import snippets
from relay.billing.ledger import movements
from relay.catalog.first_call import choose_call
from relay.catalog.offers import usable_offers
from relay.models import Token, UsageRecord
from relay.models.budget import PERIOD_WORDS
from relay.tokens import lifecycle
from relay.usage.limits import spending_limits, used_up_budgets
from relay.usage.receipts import quota_accounts

REVEALS = "30/h"
ROWS = 50


def _ip(request: HttpRequest) -> str | None:
    return request.META.get("REMOTE_ADDR") or None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row of the list."""

    token: Token
    state: str
    used: int  # nano-USD
    quota: int | None  # nano-USD; None: no quota
    last_used: datetime | None
    budgets: list[tuple[str, int, bool]]  # period in words, nano-USD, and whether nothing is left of it


@login_required
def token_list(request: HttpRequest) -> HttpResponse:
    """List the tokens with their limits and time of last use, 50 a page, in 9 queries."""
    account = quota_accounts()
    # Func instead of Max, which would add a GROUP BY: this way it is one lookup in an index.
    last = (
        UsageRecord.objects.filter(token=OuterRef("pk")).order_by().annotate(last=Func(F("started_at"), function="MAX"))
    )
    tokens_ = tokens_of(signed_in_user(request)).prefetch_related("models_allowed", "budgets")
    annotated = tokens_.annotate(
        used=Subquery(account.values("used")[:1]),
        granted=Subquery(account.values("granted")[:1]),
        limited=Subquery(account.values("limited")[:1]),
        last_used=Subquery(last.values("last")),
    )
    page = Paginator(annotated, ROWS).get_page(request.GET.get("page"))
    listed: list[Any] = list(page)
    spent = used_up_budgets([token.pk for token in listed], time.time())
    rows = [_row(token, spent) for token in listed]
    return render(request, "portal/tokens.html", {"rows": rows, "page": page, "here": "tokens"})


def _row(token: Any, spent: set[tuple[int, str]]) -> TokenRow:
    used, quota = token.used or 0, token.granted if token.limited else None
    budgets = [
        (_(PERIOD_WORDS[one.period]), money.nano(one.limit), (token.pk, one.period) in spent)
        for one in token.budgets.all()
    ]
    state = token.state(left=None if quota is None else quota - used)
    return TokenRow(token, state, used, quota, token.last_used, budgets)


@login_required
@never_cache
def token_new(request: HttpRequest) -> HttpResponse:
    user = signed_in_user(request)
    form = OwnTokenForm(user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        with transaction.atomic():
            token, secret = lifecycle.create_token(
                user,
                data["name"],
                actor=user,
                ip=_ip(request),
                expires_at=form.expires_at(),
                models_allowed=data["models_allowed"],
                allowed_ips=data["allowed_ips"],
                purpose=data["purpose"],
            )
            if data["quota"] is not None:
                movements.set_quota(token, money.nano(data["quota"]))
        return _show(request, token, secret, _("Your new token"))
    return render(
        request, "portal/token_new.html", {"form": form, "here": "tokens"}, status=422 if form.errors else 200
    )


@login_required
@never_cache
def token_detail(request: HttpRequest, pk: int) -> HttpResponse:
    token = get_object_or_404(tokens_of(signed_in_user(request)), pk=pk)
    return _detail(request, token, TokenLimitsForm(instance=token))


@login_required
@require_POST
def token_limits(request: HttpRequest, pk: int) -> HttpResponse:
    """Change validity, quota and budgets of a token, unless staff have fixed them."""
    with transaction.atomic():
        token = _locked(request, pk)
        if token.limits_fixed:
            messages.error(request, _("The limits of this token are fixed. Ask an administrator to change them."))
            return redirect("token", pk)
        form = TokenLimitsForm(request.POST, instance=token)
        if form.is_valid():
            changes = form.apply()
            if changes:
                AuditEvent.write("token.limits", request.user, token, _ip(request), **changes)
    if form.errors:
        token.refresh_from_db()  # the form has set what was typed
        return _detail(request, token, form)
    messages.success(request, _("The limits of “%(token)s” are changed.") % {"token": token.name})
    return redirect("token", pk)


def _locked(request: HttpRequest, pk: int) -> Token:
    """A token of the user as it is now; nobody else changes it before the caller's transaction ends."""
    return get_object_or_404(tokens_of(signed_in_user(request)).select_for_update(), pk=pk)


def _detail(request: HttpRequest, token: Token, form: TokenLimitsForm) -> HttpResponse:
    lines = [line for line in spending_limits(token.user_id, token.pk, time.time()) if line.scope == "token"]
    last = UsageRecord.objects.filter(token=token).order_by("-started_at").values_list("started_at", flat=True).first()
    quota = next((line for line in lines if line.kind == "quota" and line.limit is not None), None)
    context = {
        "token": token,
        "state": token.state(left=None if quota is None or quota.limit is None else quota.limit - quota.used),
        "revealable": _revealable(token),
        "form": form,
        "lines": lines,
        "last_used": last,
        "here": "tokens",
    }
    return render(request, "portal/token.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
@never_cache
def token_reveal(request: HttpRequest, pk: int) -> HttpResponse:
    token = get_object_or_404(tokens_of(signed_in_user(request)), pk=pk)
    if is_ratelimited(request, group="token-reveal", key="user", rate=REVEALS, increment=True):
        return too_many_attempts(request)
    secret = lifecycle.reveal_token(token, actor=request.user, ip=_ip(request))
    if secret is None:
        messages.error(
            request, _("No copy of this token is kept here, so it cannot be shown. Rotate it to get a new one.")
        )
        return redirect("token", pk)
    return _show(request, token, secret, token.name)


@login_required
@require_POST
@never_cache
def token_rotate(request: HttpRequest, pk: int) -> HttpResponse:
    token = get_object_or_404(tokens_of(signed_in_user(request)), pk=pk)
    secret = lifecycle.rotate_token(token, actor=request.user, ip=_ip(request))
    return _show(request, token, secret, _("%(token)s: the new token") % {"token": token.name})


@login_required
@require_POST
def token_revoke(request: HttpRequest, pk: int) -> HttpResponse:
    token = get_object_or_404(tokens_of(signed_in_user(request)), pk=pk)
    lifecycle.revoke_token(token, actor=request.user, ip=_ip(request))
    messages.success(
        request, _("“%(token)s” is revoked. Apps that use it are refused from now on.") % {"token": token.name}
    )
    return redirect("tokens")


@login_required
@require_POST
def token_enabled(request: HttpRequest, pk: int) -> HttpResponse:
    """Enable or disable a token: what the button said, whatever was done on another page meanwhile."""
    wanted = request.POST.get("enabled", "")
    with transaction.atomic():
        token = _locked(request, pk)
        if wanted not in ("0", "1"):
            raise BadRequest("enabled is 0 or 1")
        if token.enabled != (wanted == "1"):
            token.enabled = wanted == "1"
            token.save(update_fields=["enabled"])
            AuditEvent.write("token.enable" if token.enabled else "token.disable", request.user, token, _ip(request))
    messages.success(
        request,
        (
            _("“%(token)s” is enabled. Apps that use it are answered.")
            if token.enabled
            else _("“%(token)s” is disabled. Apps that use it are refused until you enable it again.")
        )
        % {"token": token.name},
    )
    return redirect("token", pk)


def _revealable(token: Token) -> bool:
    return bool(settings.CONFIG.tokens_revealable and token.sealed)


def _show(request: HttpRequest, token: Token, secret: str, title: str) -> HttpResponse:
    offers = usable_offers(signed_in_user(request), token)
    call = choose_call(offers, token.purpose)
    target = None
    if call is not None and call.kind == "chat":
        target = agent_target(settings.CONFIG.origin(request), secret, call.model, offers)
    context = {
        "token": token,
        "secret": secret,
        "title": title,
        "snippets": snippets(request, secret, call) if call is not None else [],
        "agents": agent_snippets(target) if target is not None else [],
        "links": import_links(target) if target is not None else [],
        "revealable": _revealable(token),
        "here": "tokens",
    }
    return render(request, "portal/token_secret.html", context)
