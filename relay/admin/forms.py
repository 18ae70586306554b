"""Forms of admin pages that need more than a plain model form."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django import forms
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from accounts.models import LIMIT_FIELDS, AuditEvent, User
from accounts.rights import exceeds
from portal.lib import clock, money, net
from relay.admin.overrides import HasOverrides, OverridesWidget, PlainJSONField
from relay.admin.pasted import check_no_aliases, parse_key, parse_keys, parse_served, unique_lines
from relay.admin.widgets import BASE_URL_HELP, VendorSelect
from relay.channels.cooldowns import close_circuits
from relay.channels.keys import secrets_of
from relay.channels.urls import allowance_for, base_url_of, check_typed_url
from relay.models import AllowedUpstream, ApiKey, Channel, Incident, Model, ModelAlias, Token
from relay.models.catalog import MOST_ALIASES, Ability, check_alias
from relay.models.fields import UsdField
from relay.providers.model_facts import REASONING_LEVELS
from relay.providers.parameters import BadPolicy, check_policy
from relay.providers.vendors import VENDORS


class LimitingListForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A row with a list that limits it, and the flag that says that it is limited.

    An entry in the list sets the flag. To lift the limit, the list must be emptied and the flag cleared: the one
    without the other may be a slip, and would open something to everybody.
    """

    limiting_list = ""
    limit_flag = ""

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if data.get(self.limiting_list) and not data.get(self.limit_flag, True):
            if self.initial.get(self.limit_flag):
                self.add_error(
                    self.limit_flag,
                    gettext("To lift the limit, remove what is chosen under “%(list)s”, too.")
                    % {"list": self.fields[self.limiting_list].label},
                )
            else:
                data[self.limit_flag] = True
        return data

    def limits_to_nothing(self) -> bool:
        """Whether what was saved is limited to an empty list."""
        return bool(self.cleaned_data.get(self.limit_flag)) and not self.cleaned_data.get(self.limiting_list)


class IncidentForm(LimitingListForm):
    """An incident, shown to the users of some models or to everyone."""

    limiting_list, limit_flag = "affected", "models_limited"

    class Meta:
        model = Incident
        fields = ("title", "text", "severity", "started_at", "resolved_at", "affected", "models_limited")


def _with_button(reason: str, entry: str) -> str:
    button = gettext("Allow %(address)s and save") % {"address": entry}
    return format_html(
        '{} <button class="ar-button" name="allow_address" value="{}">{}</button>', reason, entry, button
    )


class BaseUrlForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A form of a channel with the fields `provider` and `base_url`, which are checked together.

    An address that is not public can be allowed in place by those who may: the error has the button for it, whose
    answer is `allow_address` in the form's data.
    """

    allows_addresses = False  # whether its reader may allow addresses that are not public
    offer = staticmethod(_with_button)  # says how such an address is allowed
    to_allow = ""  # what is to be allowed when the form is saved, see `allow_address`
    completed = ""  # what was made of the typed base URL, in words; empty: it is stored as it was typed

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        vendor = VENDORS.get(data.get("provider", ""))
        if vendor is None or "base_url" not in data:
            return data
        if self.instance.pk and not {"provider", "base_url"} & set(self.changed_data):
            return data
        typed = data["base_url"]
        try:
            entry = allowance_for(vendor, typed)
            also = [net.Allowance.parse(entry)] if self.allows_addresses and self._agreed() == entry else []
            data["base_url"] = base_url_of(vendor, typed, also)
            self.to_allow = entry if also else ""
            self.completed = said_of_base_url(typed, data["base_url"])
        except net.NotPublic as reason:
            self.add_error("base_url", self.offer(str(reason), entry) if self.allows_addresses else str(reason))
        except (net.AddressRefused, ValueError) as reason:  # ValueError: it is no URL at all
            refused = reason if isinstance(reason, net.AddressRefused) else gettext("This is not a valid URL.")
            self.add_error("base_url", str(refused))
        return data

    def _agreed(self) -> str:
        return str(self.data.get("allow_address", ""))

    def allow_address(self, actor: Any, ip: str | None) -> None:
        """Allow the address that the reader has agreed to, for channels."""
        if not self.to_allow:
            return
        row, made = AllowedUpstream.objects.get_or_create(
            address=self.to_allow, defaults={"note": gettext("allowed with a channel")}
        )
        if made:
            AuditEvent.write("allowedupstream.add", actor, row, ip, address=self.to_allow)


class ChannelForm(LimitingListForm, BaseUrlForm, HasOverrides):
    """A channel, with fields to add keys and models to it."""

    limiting_list, limit_flag = "groups", "groups_limited"
    new_keys = forms.CharField(
        required=False,
        label=_("Add API keys"),
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}),
        help_text=_("One a line, or JSON files. They are stored encrypted and never shown again."),
    )
    new_models = forms.CharField(
        required=False,
        label=_("Add models"),
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "spellcheck": "false"}),
        help_text=_(
            "Model names, one a line; “public-name = upstream-name” when they differ. Unknown names become new "
            "models, not open."
        ),
    )

    class Meta:
        model = Channel
        fields = (
            "name",
            "provider",
            "base_url",
            "enabled",
            "tags",
            "priority",
            "weight",
            "pool",
            "key_strategy",
            "retry_unanswered",
            "test_model",
            "test_every",
            "groups",
            "groups_limited",
            "proxy_url",
            "text_api",
            "parameters",
            "overrides",
            "sends_done",
            "stream_usage",
            "connect_timeout",
            "first_byte_timeout",
            "idle_timeout",
            "total_timeout",
            "notes",
            "cost_multiplier",
            "disconnect_policy",
            *LIMIT_FIELDS,
        )
        widgets, help_texts = {"provider": VendorSelect, "overrides": OverridesWidget}, {"base_url": BASE_URL_HELP}
        field_classes = {"overrides": PlainJSONField, "parameters": PlainJSONField}

    def clean_parameters(self) -> dict[str, str]:
        rules = self.cleaned_data["parameters"] or {}
        try:
            check_policy(rules)
        except BadPolicy as error:
            raise forms.ValidationError(error.translated(gettext)) from None
        return dict(rules)

    def clean_proxy_url(self) -> str:
        url: str = self.cleaned_data["proxy_url"]
        try:
            return check_typed_url(url, ("http",)) if url else url
        except net.AddressRefused as reason:
            raise forms.ValidationError(str(reason)) from None

    def clean_new_keys(self) -> list[str]:
        vendor = VENDORS.get(self.cleaned_data.get("provider", ""))
        return parse_keys(self.cleaned_data["new_keys"], vendor) if vendor is not None else []

    def clean_new_models(self) -> list[tuple[str, str]]:
        found = parse_served(self.cleaned_data["new_models"])
        check_no_aliases(public for public, _upstream in found)
        return found


def said_of_base_url(typed: str, stored: str) -> str:
    """Say what a typed base URL was completed to, empty when it was taken as it is."""
    if not stored or stored == typed.strip().rstrip("/"):
        return ""
    return gettext("The base URL “%(typed)s” was completed to %(stored)s.") % {"typed": typed.strip(), "stored": stored}


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """One key in the list of a channel's keys. Its secret is written, never shown."""

    secret = forms.CharField(
        required=False,
        label=_("New secret"),
        widget=UnfoldAdminPasswordWidget(
            attrs={"autocomplete": "new-password", "placeholder": _("leave empty to keep")}
        ),
    )

    class Meta:
        model = ApiKey
        fields = ("label", "enabled", "weight", *LIMIT_FIELDS)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        typed = (data.get("secret") or "").strip()
        if not self.instance.pk and not typed:
            raise forms.ValidationError({"secret": _("Paste the key.")})
        channel = data.get("channel") or (self.instance.channel if self.instance.channel_id else None)
        try:
            secret = data["secret"] = parse_key(typed, VENDORS.get(channel.provider) if channel is not None else None)
        except forms.ValidationError as wrong:
            raise forms.ValidationError({"secret": wrong.messages}) from None
        if secret and channel is not None and secret in secrets_of(channel, but=self.instance):
            raise forms.ValidationError({"secret": _("The channel has this key already.")})
        return data

    def save(self, commit: bool = True) -> ApiKey:
        secret = (self.cleaned_data.get("secret") or "").strip()
        if secret:
            self.instance.set_secret(secret)
            self.instance.reset_state()
            if self.instance.pk:
                close_circuits(key_id=self.instance.pk)  # which are about the secret of before
        saved: ApiKey = super().save(commit)
        return saved


class ModelForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A model with its further names, and with its abilities as check boxes."""

    further_names = forms.CharField(
        required=False,
        label=_("Further names"),
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2, "spellcheck": "false"}),
        help_text=_(
            "By which clients may ask for it, one a line, such as “claude-…” for Claude Code, which lists no other "
            "names. Permissions, prices, limits and records are the model's own."
        ),
    )
    abilities: forms.MultipleChoiceField = forms.MultipleChoiceField(
        label=_("Abilities"),
        required=False,
        choices=Ability.choices,
        widget=forms.CheckboxSelectMultiple,
        help_text=_("Shown in /v1/models; nothing is refused by it."),
    )
    reasoning_levels: forms.MultipleChoiceField = forms.MultipleChoiceField(
        label=_("Reasoning levels"),
        required=False,
        choices=[(level, level) for level in REASONING_LEVELS],
        widget=forms.CheckboxSelectMultiple,
        help_text=_("Values of reasoning_effort that it takes. None: those that its name tells."),
    )

    class Meta:
        model = Model
        fields = "__all__"  # noqa: DJ007  # the admin's fieldsets choose

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["further_names"] = "\n".join(self.instance.aliases.values_list("name", flat=True))

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        names = self.names()
        if not self.has_error("further_names") and "name" in data:
            model = Model(pk=self.instance.pk, name=data["name"].strip())
            for name in names:
                try:
                    check_alias(name, model)
                except forms.ValidationError as wrong:
                    self.add_error("further_names", wrong)
            if len(names) > MOST_ALIASES:
                self.add_error(
                    "further_names", gettext("A model has at most %(most)d further names.") % {"most": MOST_ALIASES}
                )
        return data

    def names(self) -> list[str]:
        """The further names that were typed."""
        return unique_lines(self.cleaned_data.get("further_names") or "")

    def save_names(self) -> list[tuple[str, str]]:
        """Give the saved model these further names and no others. Returns what was done: `add` or `delete`, a name.

        What was given to another model at this moment is left there.
        """
        wanted, rows = self.names(), list(self.instance.aliases.all())
        gone = [row for row in rows if row.name not in wanted]
        before = {row.name for row in rows}
        new = [ModelAlias(model=self.instance, name=name) for name in wanted if name not in before]
        ModelAlias.objects.filter(pk__in=[row.pk for row in gone]).delete()
        ModelAlias.objects.bulk_create(new, ignore_conflicts=True)
        there = set(self.instance.aliases.values_list("name", flat=True)) - before
        return [*(("delete", row.name) for row in gone), *(("add", name) for name in sorted(there))]


EXCEEDS: Final = _("This person has rights that you do not have: only they, or somebody who has them, can do this.")


class TokenForm(LimitingListForm):
    """A relay token, with its quota."""

    person: Any = None  # who makes it
    limiting_list, limit_flag = "models_allowed", "models_limited"
    allowed_ips = forms.CharField(
        required=False,
        label=_("Allowed addresses"),
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text=_("One address or network a line. Empty: all."),
    )
    quota = UsdField(
        required=False,
        max_digits=19,  # what a quota can be that was imported, to the nano-dollar
        decimal_places=9,
        label=_("Quota in USD"),
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
        help_text=_("The most that it may spend in all. Empty: no limit but its owner's balance."),
    )

    class Meta:
        model = Token
        fields = (
            "user",
            "name",
            "purpose",
            "enabled",
            "expires_at",
            "models_allowed",
            "models_limited",
            "limits_fixed",
            "allowed_ips",
            "notes",
            *LIMIT_FIELDS,
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance.pk:
            self.initial.setdefault("limits_fixed", True)  # what staff set for somebody holds, unless they say not
        else:
            self.initial["allowed_ips"] = "\n".join(self.instance.allowed_ips)
            account = self.instance.ledger_accounts.filter(kind="quota", limited=True).first()
            if account is not None:
                self.initial["quota"] = money.plain(account.granted)
                quota = self.fields["quota"]
                assert isinstance(quota, UsdField)  # noqa: S101
                quota.most = max(quota.most, -(-account.granted // money.NANO))  # imported ones may be larger

    def clean_user(self) -> User:
        """Give no token of somebody with more rights to a person, who would have those rights on /v1."""
        user: User = self.cleaned_data["user"]
        if exceeds(user, self.person):
            raise forms.ValidationError(EXCEEDS)
        return user

    def clean_expires_at(self) -> datetime | None:
        expires: datetime | None = self.cleaned_data["expires_at"]
        if expires is not None and "expires_at" in self.changed_data and expires <= clock.now():
            raise forms.ValidationError(_("This time is past. To end a token, disable or revoke it."))
        return expires

    def clean_allowed_ips(self) -> list[str]:
        try:
            return [str(network) for network in net.parse_networks(unique_lines(self.cleaned_data["allowed_ips"]))]
        except net.BadAddress as error:
            raise forms.ValidationError(error.translated(gettext)) from error
