"""The user's balance, budgets and movements, redemption of codes, and settings of notices."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django_ratelimit.core import get_usage

from accounts.merging import Merging, digest
from accounts.models import AuditEvent, User
from accounts.sign_in.throttle import too_many_attempts
from portal.lib import money, net
from portal.pages.shared.scope import entries_of, notices_of, signed_in_user
from relay.billing import notices, webhooks
from relay.billing.ledger import movements
from relay.billing.redemption import find_code
from relay.channels.urls import check_webhook_url
from relay.models import NoticeSettings
from relay.models.fields import UsdField
from relay.usage.limits import spending_limits

GUESSES = "10/h"


class NoticeForm(Merging, forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    one_row = True

    class Meta:
        model = NoticeSettings
        fields = ("low_balance", "by_email", "webhook_url")
        field_classes = {"low_balance": UsdField}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._webhook: str = self.instance.webhook_url
        own = money.exact(money.nano(Decimal(settings.CONFIG.low_balance)))
        self.fields["low_balance"].help_text = _("USD. Empty: the portal's own threshold, %(amount)s.") % {
            "amount": own
        }
        self.initial["webhook_url"] = self.shown("webhook_url", self._webhook)

    def shown(self, name: str, value: Any) -> Any:
        return net.mask_query(value) if name == "webhook_url" else value  # its query may be a secret

    def clean_webhook_url(self) -> str:
        url: str = self.cleaned_data["webhook_url"].strip()
        if url == self.initial["webhook_url"] or (self.seen and digest(url) == self.seen.get("webhook_url")):
            return self._webhook
        if not url:
            return ""
        try:
            return check_webhook_url(url)
        except net.AddressRefused as reason:
            raise forms.ValidationError(str(reason)) from None


@login_required
@never_cache
def balance(request: HttpRequest) -> HttpResponse:
    """The balance page; POST redeems a code."""
    user = signed_in_user(request)
    wrong = ""
    if request.method == "POST":
        wrong_ones = get_usage(request, group="redeem", key="user", rate=GUESSES)
        if wrong_ones is not None and wrong_ones["count"] >= wrong_ones["limit"]:
            return too_many_attempts(request)
        code = find_code(request.POST.get("code", ""))
        try:
            if code is None:
                raise movements.NotRedeemable(_("This is not a code of this portal. Check it for typing errors."))
            amount = movements.redeem(code, user)
        except movements.NotRedeemable as error:
            wrong = str(error)
            get_usage(request, group="redeem", key="user", rate=GUESSES, increment=True)
        else:
            AuditEvent.write("code.redeem", user, code, request.META.get("REMOTE_ADDR"), usd=money.plain(amount))
            notices.notify_redeemed(user, code, amount)
            messages.success(request, _("%(amount)s were added to your balance.") % {"amount": money.show(amount)})
            return redirect("balance")
    lines = spending_limits(user.pk, None, time.time())
    context = {
        "wallet": next((line for line in lines if line.kind == "wallet"), None),
        "budgets": [line for line in lines if line.kind == "budget"],
        "entries": entries_of(user)[:50],
        "notices": notices_of(user)[:10],
        "wrong": wrong,
        "here": "balance",
    }
    return render(request, "portal/balance.html", context, status=422 if wrong else 200)


def _settings_of(user: User) -> NoticeSettings:
    return NoticeSettings.objects.filter(user=user).first() or NoticeSettings(user=user)


def _told_of(row: NoticeSettings, user: User) -> str:
    """When and how the user is told now."""
    threshold = Decimal(settings.CONFIG.low_balance) if row.low_balance is None else row.low_balance
    shown = {"amount": money.exact(money.nano(threshold)), "address": user.email}
    mailed = row.by_email and bool(user.email) and settings.MAILS
    if mailed and row.webhook_url:
        said = _("Once your balance is below %(amount)s, you are told by e-mail to %(address)s and by your webhook.")
    elif mailed:
        said = _("Once your balance is below %(amount)s, you are told by e-mail to %(address)s.")
    elif row.webhook_url:
        said = _("Once your balance is below %(amount)s, you are told by your webhook.")
    else:
        said = _("Once your balance is below %(amount)s, you are told on the page of your balance alone.")
    return said % shown


@login_required
@never_cache
def notice_settings(request: HttpRequest) -> HttpResponse:
    """Settings of notices: threshold, e-mail, webhook. A new webhook secret is shown once."""
    user = signed_in_user(request)
    secret = ""
    if request.method == "POST":
        with transaction.atomic():
            User.objects.select_for_update().get(pk=user.pk)
            form = NoticeForm(request.POST, instance=_settings_of(user))
            if form.is_valid():
                row = form.save(commit=False)
                if row.webhook_url and (not row.sealed_secret or request.POST.get("new_secret")):
                    secret = webhooks.new_secret()
                    row.set_secret(secret)
                row.save()
                AuditEvent.write("notices.change", user, row, request.META.get("REMOTE_ADDR"))
        if not form.errors and not secret:
            messages.success(request, _told_of(row, user))
            return redirect("notices")
        if secret:
            form = NoticeForm(instance=row)  # of what is stored now, for the next change
    else:
        form = NoticeForm(instance=_settings_of(user))
    return render(
        request,
        "portal/notices.html",
        {"form": form, "secret": secret, "here": "balance"},
        status=422 if form.errors else 200,
    )
