"""The last steps of the set-up guide: a first user, and a first token."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.admin.base import request_ip
from accounts.models import AuditEvent, User
from accounts.rights import exceeds
from portal.lib import money
from portal.lib.texts import whole_number
from relay.admin.forms import EXCEEDS
from relay.billing.ledger import movements
from relay.catalog.first_call import choose_call, curl
from relay.catalog.offers import usable_offers
from relay.models import Channel
from relay.models.fields import UsdField
from relay.tokens import lifecycle


class SetupUserForm(forms.Form):
    """The form of a new user with a password and a balance."""

    username = forms.CharField(max_length=150, label=gettext_lazy("User name"))
    email = forms.EmailField(required=False, label=gettext_lazy("E-mail"))
    password = forms.CharField(
        min_length=8,
        label=gettext_lazy("Password"),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        strip=False,
    )
    balance = UsdField(
        required=False,
        label=gettext_lazy("Balance in USD"),
        help_text=gettext_lazy("Empty: unlimited, and the portal pays."),
    )

    def clean_username(self) -> str:
        name: str = User.normalize_username(self.cleaned_data["username"].strip())
        User.username_validator(name)
        if User.objects.filter(username=name).exists():
            raise forms.ValidationError(_("This name is taken."))
        return name


def save_user(request: HttpRequest) -> User | dict[str, Any]:
    """Make the user of a valid form. Otherwise returns what the page shows."""
    form = SetupUserForm(request.POST or None)
    if request.method != "POST" or not form.is_valid():
        return {"form": form, "people": User.objects.filter(is_superuser=False).count()}
    data = form.cleaned_data
    with transaction.atomic():
        user = User.objects.create_user(data["username"], data["email"], data["password"])
        AuditEvent.write("user.add", request.user, user, request_ip(request))
        if data["balance"] is None:
            movements.set_unlimited(user, True)
        elif data["balance"]:
            movements.top_up(user, money.nano(data["balance"]), actor=request.user, reason=_("First balance"))
    messages.success(request, _("%(name)s can sign in now.") % {"name": user})
    return user


def give_token(request: HttpRequest, channel: Channel | None) -> dict[str, Any]:
    """Make the token that was asked for. Returns what the page shows: its secret, and a first call with it."""
    people = User.objects.filter(is_active=True).order_by("is_superuser", "-pk")
    chosen = whole_number(request.POST.get("user") or request.GET.get("user"))
    user = people.filter(pk=chosen).first() if chosen is not None else people.first()
    secret, command = "", ""
    if user is not None and exceeds(user, request.user):
        messages.error(request, EXCEEDS)
    elif request.method == "POST" and user is not None:
        made, secret = lifecycle.create_token(
            user,
            request.POST.get("name", "").strip()[:60] or _("First token"),
            actor=request.user,
            ip=request_ip(request),
        )
        offers = usable_offers(user, made)
        wanted = channel.models.values_list("name", flat=True) if channel is not None else ()
        preferred = next((offer.model.name for offer in offers if offer.chats and offer.model.name in set(wanted)), "")
        call = choose_call(offers, made.purpose, preferred)
        command = curl(f"{settings.CONFIG.origin(request)}/v1", secret, call) if call is not None else ""
    return {"people": people[:200], "user_chosen": user, "secret": secret, "command": command}
