"""Admin pages of sign-in providers such as an OIDC server or GitHub."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount import providers
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.validators import slug_re
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget, UnfoldBooleanSwitchWidget

from accounts.admin.base import BaseAdmin, display, request_ip
from accounts.models import AuditEvent, User
from accounts.rights import exceeds
from accounts.sign_in.adapter import seal_secret, secret_destination
from accounts.sign_in.discovery import Discovery, discover
from portal.lib import net
from portal.services import outside

IDENTITY: Final = frozenset(("provider", "provider_id", "server_url"))  # fields that say who tells who people are
_WORD: Final = "your-word"  # in a redirect URL, until one is typed

for _model in (EmailAddress, SocialAccount, SocialApp, SocialToken, Authenticator):
    if admin.site.is_registered(_model):  # allauth's own pages show secrets and are not audited
        admin.site.unregister(_model)


class ProviderForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """The form of a sign-in provider. Its secret is written, never shown."""

    discovery: Discovery | None = None  # of the typed address, asked before the transaction
    person: Any = None  # who has the page open

    provider = forms.ChoiceField(label=_("Kind"))
    server_url = forms.CharField(
        required=False,
        max_length=300,
        label=_("Address of the OIDC server"),
        widget=UnfoldAdminTextInputWidget(),
        help_text=_("Of its issuer, such as https://id.example.org/realms/staff. Only for OpenID Connect."),
    )
    new_secret = forms.CharField(
        required=False,
        label=_("New client secret"),
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text=_("Stored encrypted. Leave empty to keep it."),
    )

    trusted = forms.BooleanField(
        required=False,
        label=_("Trust its e-mail addresses"),
        widget=UnfoldBooleanSwitchWidget(),
        help_text=_(
            "Whoever it says has an address enters the account with that address at once. Only for a server of your "
            "own, which verifies them. Without it, people sign in to their account once more, and are then connected."
        ),
    )

    class Meta:
        model = SocialApp
        fields = ("provider", "name", "provider_id", "client_id")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["provider"]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101
        field.choices = sorted(
            ((one.id, one.name) for one in providers.registry.get_class_list()),
            key=lambda choice: choice[0] != "openid_connect",
        )
        self.fields["provider_id"].help_text = _(
            "A word of yours for the addresses of an OIDC server, such as staff. Only for OpenID Connect."
        )
        self._given_for = secret_destination(self.instance)  # checking the form overwrites the row's fields
        if self.instance.pk:
            self.initial["server_url"] = self.instance.settings.get("server_url", "")
            self.initial["trusted"] = bool(self.instance.settings.get("email_authentication"))

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        self._check_rights(data)
        if data.get("provider") == "openid_connect":
            if not data.get("server_url"):
                self.add_error("server_url", _("Type the address of the server."))
            word = data.get("provider_id")
            if not word:
                self.add_error("provider_id", _("Choose a word."))
            elif not slug_re.fullmatch(word):
                self.add_error("provider_id", _("Use letters, digits, hyphens and underscores only."))
            elif SocialApp.objects.filter(provider_id=word).exclude(pk=self.instance.pk).exists():
                self.add_error("provider_id", _("Another provider has this word already."))
        if data.get("server_url"):
            try:
                data["server_url"] = net.check_url(data["server_url"], tuple(outside.allowances()))
            except net.AddressRefused as reason:
                why = reason.translated(gettext)
                remedy = (
                    _("%(why)s. A superuser can allow it under “Allowed upstream addresses”.")
                    if isinstance(reason, net.NotPublic)
                    else _("%(why)s.")
                )
                self.add_error("server_url", remedy % {"why": why[0].upper() + why[1:]})
            else:
                self._check_discovery(data)
        if not self.instance.pk and not data.get("new_secret"):
            self.add_error("new_secret", _("Paste the secret that the provider gave you."))
        elif not data.get("new_secret") and not self.errors:
            moved = SocialApp(provider=data["provider"], settings={"server_url": data.get("server_url", "")})
            if secret_destination(moved) != self._given_for:
                self.add_error("new_secret", _("The secret was given for another address. Paste the one for this one."))
        return data

    def _check_rights(self, data: dict[str, Any]) -> None:
        """Refuse another server under a name by which people with more rights sign in: it could say that it is them."""
        known = self.instance
        names = {known.provider_id or known.provider} if known.pk else set()
        if not known.pk or IDENTITY & set(self.changed_data):
            names.add((data.get("provider_id") or "") or str(data.get("provider")))
            if any(exceeds(user, self.person) for user in connected(names)):
                raise forms.ValidationError(
                    _(
                        "People who have rights that you do not have sign in with this provider. Only somebody who has "
                        "them, too, can say where it is."
                    )
                )

    def _check_discovery(self, data: dict[str, Any]) -> None:
        """Refuse an address at which there is no such server; one that does not answer now may be right."""
        found = self.discovery
        moved = {"provider", "server_url"} & set(self.changed_data)
        if data.get("provider") == "openid_connect" and moved and found is not None and found.fault and not found.away:
            said = _("%(why)s The portal asked for %(url)s. Type the address of the issuer, as the server names it.")
            self.add_error("server_url", said % {"why": found.fault, "url": found.url})

    def save(self, commit: bool = True) -> Any:
        app = self.instance
        app.settings = {
            **(app.settings or {}),
            "server_url": self.cleaned_data.get("server_url", ""),
            "email_authentication": self.cleaned_data["trusted"],
        }
        if (IDENTITY | {"trusted"}) & set(self.changed_data):
            app.settings["trusted_by"] = getattr(self.person, "pk", None)
        if self.cleaned_data.get("new_secret"):
            app.settings["sealed_secret"], app.secret = seal_secret(self.cleaned_data["new_secret"].strip()), ""
        app.settings["secret_for"] = secret_destination(app)
        return super().save(commit)


def connected(names: Collection[str]) -> list[User]:
    """Return the users who are connected to providers with these names."""
    return list(User.objects.filter(socialaccount__provider__in=names).distinct())


@admin.register(SocialApp)
class ProviderAdmin(BaseAdmin):
    """Providers with whose accounts people can sign in. Changes take effect at once."""

    form = ProviderForm
    rights_title = _("sign-in providers")
    list_display = ("name", "provider", "client_id", "callback")
    search_fields = ("name", "client_id")
    fields = ("provider", "name", "provider_id", "server_url", "client_id", "new_secret", "trusted")

    def get_list_display(self, request: HttpRequest) -> Any:
        @display(description=_("Redirect URL to register there"))
        def callback(app: SocialApp) -> str:
            return _callback_url(request, app.provider, app.provider_id)

        return [callback if name == "callback" else name for name in super().get_list_display(request)]

    @display(description=_("Redirect URL to register there"))
    def callback(self, app: SocialApp) -> str:
        """The redirect URL, without the portal's address; the list has it with the address."""
        return _callback_url(None, app.provider, app.provider_id)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.discovery, form.person = getattr(request, "discovery", None), request.user
        urls = {one.id: _callback_url(request, one.id, _WORD) for one in providers.registry.get_class_list()}
        now = _callback_url(request, obj.provider, obj.provider_id) if obj is not None else urls["openid_connect"]
        if "client_id" in form.base_fields:  # which the provider gives for the redirect URL
            form.base_fields["client_id"].help_text = format_html(
                '{} <code id="callback" class="ar-secret" data-callbacks="{}">{}</code>',
                _("Register this redirect URL at the provider; it gives you the client ID and its secret:"),
                json.dumps(urls),
                now,
            )
        return form

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Ask a typed server for its configuration before the transaction begins in which the form is saved."""
        typed = request.POST.get("server_url", "").strip()
        allowed = self.has_change_permission(request) or self.has_add_permission(request)
        if typed and allowed and request.POST.get("provider") == "openid_connect":
            try:
                address = net.check_url(typed, tuple(outside.allowances()))
            except net.AddressRefused:
                pass  # the form says so
            else:
                request.discovery = discover(address)  # type: ignore[attr-defined]  # read by the form
        return super().changeform_view(request, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: SocialApp, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if settings.CONFIG.signup == "off":
            text = _(
                "Sign-up is off (AIRELAYS_SIGNUP): only people who have an account already come in by this provider."
            )
            self.message_user(request, text, messages.INFO)
        found: Discovery | None = form.discovery
        if found is None:
            return
        if found.fault:
            text = _("%(why)s The portal asked for %(url)s. Nobody can sign in until it has an answer there.")
            self.message_user(request, text % {"why": found.fault, "url": found.url}, messages.WARNING)
        else:
            text = _("The server answered: it is the issuer %(issuer)s.")
            self.message_user(request, text % {"issuer": found.issuer[:300]}, messages.SUCCESS)

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        return self._audit(request, obj, "add")

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        return self._audit(request, obj, "change")

    def _audit(self, request: HttpRequest, app: Any, did: str) -> None:
        """Audit a change without comparing fields, since the settings contain the encrypted secret."""
        AuditEvent.write(
            f"sign-in-provider.{did}",
            request.user,
            app,
            request_ip(request),
            provider=app.provider,
            client_id=app.client_id,
            server=app.settings.get("server_url") or None,
            trusted=app.settings.get("email_authentication") or None,
        )
        self.message_user(
            request,
            _("Register the redirect URL at the provider: %(url)s")
            % {"url": _callback_url(request, app.provider, app.provider_id)},
            messages.INFO,
        )


def _callback_url(request: HttpRequest | None, provider: str, word: str) -> str:
    """Return the redirect URL of a provider, complete where there is a request."""
    name = f"{provider}_callback"
    path = reverse(name, args=[_WORD]) if provider == "openid_connect" else reverse(name)
    path = path.replace(_WORD, word or _WORD)
    return request.build_absolute_uri(path) if request is not None else path
