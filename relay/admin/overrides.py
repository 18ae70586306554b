"""Overrides of channels in the administration: how they are written, and what they make of a request."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.db import transaction
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextareaWidget

from accounts.admin.auditing import difference, field_values
from accounts.admin.base import BaseAdmin, action, format_time, request_ip
from accounts.models import AuditEvent
from accounts.rights import may
from relay.endpoints.preview import APIS, STREAMED, Sent, preview, sample_request
from relay.gateway.snapshot.channels import read_withdrawn
from relay.gateway.snapshot.views import ChannelView
from relay.models import AllowedUpstream, Channel, UsageRecord
from relay.protocols.fields import BadRequest
from relay.providers.overrides.rules import FAMILIES, BadOverrides, Overrides, read_overrides
from relay.providers.vendors import VENDORS

_NEWEST: Final = 12  # records that are offered to begin with
_MOST_SHOWN: Final = 300  # characters of a text in a request
_MOST_BODY: Final = 512 * 1024
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # in JSON
_MOST_COMPARED: Final = 4_000_000  # pairs of lines that are compared, about a second
# What people do with overrides, by what it is for: each begins a rule.
EXAMPLES: Final[tuple[tuple[Any, Mapping[str, Any]], ...]] = (
    (_("Leave temperature out for a model"), {"do": "remove", "path": "temperature", "models": ["o3*"]}),
    (
        _("Think less, unless the client says how much"),
        {"do": "default", "path": "reasoning_effort", "value": "low", "apis": ["chat"]},
    ),
    (
        _("Call the limit of answers as this server does"),
        {"do": "rename", "path": "max_tokens", "to": "max_completion_tokens", "apis": ["chat"]},
    ),
    (_("Say who asks, as OpenRouter wants it"), {"do": "set_header", "header": "X-Title", "value": "Acme"}),
    (_("Never let prompts be used for training"), {"do": "set", "path": "provider.data_collection", "value": "deny"}),
    (_("Leave out names that this server refuses"), {"do": "remove", "path": "messages.*.name"}),
    (
        _("Turn a beta off"),
        {"do": "remove_header", "header": "anthropic-beta", "apis": ["messages"]},
    ),
    (
        _("Keep thinking short at Gemini"),
        {
            "do": "set",
            "path": "generationConfig.thinkingConfig.thinkingBudget",
            "value": 1024,
            "apis": ["generate_content"],
        },
    ),
)


def _words() -> dict[str, Any]:
    """The texts of the editor, and its examples."""
    return {
        "actions": {
            "set": gettext("Set"),
            "default": gettext("Set if missing"),
            "remove": gettext("Remove"),
            "rename": gettext("Rename"),
            "set_header": gettext("Set header"),
            "remove_header": gettext("Remove header"),
        },
        "what": gettext("Do what"),
        "path": gettext("Member, such as temperature or reasoning.effort"),
        "header": gettext("Header"),
        "value": gettext("Value"),
        "to": gettext("New name"),
        "models": gettext("For which models, with commas between them"),
        "every_model": gettext("every model"),
        "apis": gettext("For which APIs, with commas between them"),
        "every_api": gettext("every API"),
        "add": gettext("Add a rule"),
        "examples": gettext("Examples"),
        "delete": gettext("Delete this rule"),
        "up": gettext("Move this rule up"),
        "json": gettext("As JSON"),
        "rows": gettext("As rows"),
        "families": list(FAMILIES),
        "cases": [[str(label), rule] for label, rule in EXAMPLES],
    }


class OverridesWidget(UnfoldAdminTextareaWidget):
    """Rules as JSON, of which a script makes rows to fill in."""

    class Media:
        js = ("portal/overrides.js",)

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        given = {"rows": 8, "spellcheck": "false", "data-overrides": json.dumps(_words(), ensure_ascii=False)}
        context: dict[str, Any] = super().get_context(name, value, {**given, **(attrs or {})})
        return context

    def format_value(self, value: Any) -> Any:
        """Lay the rules out, one a line, as far as they can be read."""
        if isinstance(value, InvalidJSONInput):
            return value
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            return value
        if not found:
            return "[]"
        if not isinstance(found, list):
            return value
        lines = ",\n".join("  " + json.dumps(rule, ensure_ascii=False) for rule in found)
        return f"[\n{lines}\n]"


class PlainJSONField(forms.JSONField):
    """JSON that every database and every upstream can read.

    Refused are numbers that are none (NaN) or too long, characters that are none (lone surrogates) or that PostgreSQL
    does not store (U+0000), and what is nested too deeply.
    """

    def to_python(self, value: Any) -> Any:
        try:
            found = super().to_python(value)
            text = json.dumps(found, allow_nan=False, ensure_ascii=False)
            text.encode()
        except (ValueError, RecursionError):
            text = ""
        if not text or _NUL.search(text):
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid", params={"value": ""})
        return found

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            self.to_python(data)
        except forms.ValidationError:
            return InvalidJSONInput(data)
        return super().bound_data(data, initial)


def clean_rules(rules: Any, provider: str) -> list[Any]:
    """The rules of a form, for channels of a vendor. Raises ValidationError, which says what is wrong with which."""
    vendor = VENDORS.get(provider)
    try:
        read_overrides(rules, vendor.credentials.header if vendor is not None else "")
    except BadOverrides as error:
        raise forms.ValidationError(error.translated(gettext)) from None
    return list(rules or [])


class HasOverrides(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A form of a channel with its rules."""

    def clean_overrides(self) -> list[Any]:
        return clean_rules(self.cleaned_data["overrides"], self.cleaned_data.get("provider", ""))


class _OverridesForm(forms.Form):
    """The page on which overrides are tried out."""

    overrides = PlainJSONField(required=False, widget=OverridesWidget)
    api = forms.ChoiceField(choices=[(name, f"/v1/{name.replace('.', '/')}") for name in APIS])
    model = forms.CharField(max_length=160)
    body = forms.CharField(max_length=_MOST_BODY, required=False)

    def __init__(self, channel: Channel, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.channel = channel

    def clean_overrides(self) -> list[Any]:
        return clean_rules(self.cleaned_data["overrides"], self.channel.provider)


class OverridesAdmin(BaseAdmin):
    """The page of a channel on which its overrides are tried on a request, and saved."""

    @action(description=_("Overrides"), url_path="overrides", icon="tune", permissions=["change"])
    def edit_overrides(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show what a request becomes, and save the rules with `_save`."""
        channel = get_object_or_404(Channel, pk=object_id)
        newest = _newest(request, channel)
        shape = newest.get(request.GET.get("like", "")) or next(iter(newest.values()), None) or _first_shape(channel)
        initial: dict[str, Any] = {
            "overrides": channel.overrides or [],
            "api": shape[0],
            "model": shape[1],
            "body": _pretty(sample_request(*shape)),
        }
        form = _OverridesForm(channel, request.POST or None, initial=initial)
        shown: tuple[Sent, Sent] | None = None
        error = ""
        if request.method == "POST" and form.is_valid():
            data = form.cleaned_data
            if "_save" in request.POST:
                return self._save_overrides(request, channel, data["overrides"])
            shown, error = _try(channel, data)
        elif request.method != "POST":
            shown, error = _try(channel, initial)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Overrides of “%(channel)s”") % {"channel": channel},
            "content_title": _("Overrides"),
            "object": channel,
            "form": form,
            "media": self.media + form.media,
            "newest": [(key, label) for key, (*_shape, label) in _labelled(newest).items()],
            "error": error,
            "sides": _difference(*shown) if shown else (),
            "ignored": shown[1].ignored if shown else (),
            "examples": [(label, json.dumps(rule, ensure_ascii=False)) for label, rule in EXAMPLES],
            "was": json.dumps(channel.overrides or []),
        }
        return render(request, "admin/relay/channel/overrides.html", context)

    def _save_overrides(self, request: HttpRequest, channel: Channel, rules: list[Any]) -> HttpResponse:
        with transaction.atomic():
            row = Channel.objects.select_for_update().get(pk=channel.pk)
            if json.dumps(row.overrides or []) != request.POST.get("was", ""):
                text = _("Somebody else has changed the overrides since you opened the page. Yours are not saved.")
                self.message_user(request, text, messages.ERROR)
                return redirect(request.path)
            before = field_values(row)
            row.overrides = rules
            row.save()
            changes = difference(before, field_values(Channel.objects.get(pk=row.pk)))
            if changes:
                AuditEvent.write("channel.change", request.user, row, request_ip(request), changes=changes)
        self.message_user(request, _("The overrides of “%(channel)s” are saved.") % {"channel": channel})
        return redirect("admin:relay_channel_change", channel.pk)


Shape = tuple[str, str, bool]  # API, public name of the model, whether it was a stream


def _newest(request: HttpRequest, channel: Channel) -> dict[str, Shape]:
    """The newest requests of a channel whose like can be shown, by their ids, for those who may see requests."""
    if not may(request.user, "relay.view_usagerecord"):
        return {}
    rows = UsageRecord.objects.filter(channel=channel.pk, endpoint__in=APIS).order_by("-started_at")
    found = rows.values_list("request_id", "endpoint", "model", "streamed")[:_NEWEST]
    return {
        request_id: (STREAMED.get(endpoint, endpoint) if streamed else endpoint, model, streamed)
        for request_id, endpoint, model, streamed in found
    }


def _labelled(newest: Mapping[str, Shape]) -> dict[str, tuple[str, str, bool, str]]:
    started = dict(UsageRecord.objects.filter(request_id__in=newest).values_list("request_id", "started_at"))
    return {
        key: (api, model, stream, f"{format_time(started[key])} · {api} · {model}{' · stream' if stream else ''}")
        for key, (api, model, stream) in newest.items()
        if key in started
    }


def _first_shape(channel: Channel) -> Shape:
    """A request to begin with where there has been none: of the API that the channel speaks itself."""
    first = channel.served.select_related("model").order_by("pk").first()
    name = first.model.name if first is not None else channel.test_model or "gpt-5"
    served = channel.vendor.served(channel.text_api, (first.upstream_name if first is not None else "") or name)
    return next((api for api in APIS if api in served), APIS[0]), name, False


def _try(channel: Channel, data: Mapping[str, Any]) -> tuple[tuple[Sent, Sent] | None, str]:
    """The request before and after, or what is wrong with it."""
    view = read_withdrawn(channel.pk, 0, AllowedUpstream.allowances())
    assert view is not None  # noqa: S101  # it was read a moment ago
    link = channel.served.filter(model__name=data["model"]).first()
    upstream = (link.upstream_name if link is not None else "") or data["model"]
    try:
        rules = read_overrides(data["overrides"], channel.vendor.credentials.header)
        return _shown(view.of_model(upstream), rules, data, upstream), ""
    except BadRequest as bad:
        return None, bad.message
    except BadOverrides as bad_rules:
        return None, bad_rules.translated(gettext)


def _shown(view: ChannelView, rules: Overrides | None, data: Mapping[str, Any], upstream: str) -> tuple[Sent, Sent]:
    return preview(view, rules, data["api"], data["model"], upstream, str(data["body"]).encode())


def _pretty(body: object) -> str:
    return json.dumps(body, ensure_ascii=False, indent=2)


def _lines_of(sent: Sent) -> str:
    head = [f"POST {sent.url}", *(f"{name.lower()}: {value}" for name, value in sorted(sent.headers.items()))]
    return "\n".join([*head, "", _pretty(_short(sent.body))])


def _short(value: object) -> object:
    """A body with its long texts, such as pictures, cut."""
    if isinstance(value, str) and len(value) > _MOST_SHOWN:
        return f"{value[:_MOST_SHOWN]}… ({len(value)})"
    if isinstance(value, list):
        return [_short(one) for one in value]
    return {name: _short(one) for name, one in value.items()} if isinstance(value, dict) else value


def _difference(before: Sent, after: Sent) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """The lines of both requests, each with whether it differs."""
    one, other = _lines_of(before).split("\n"), _lines_of(after).split("\n")
    start = _same_lines(one, other)
    end = _same_lines(one[start:][::-1], other[start:][::-1])
    was, now = one[start : len(one) - end], other[start : len(other) - end]
    changes: Sequence[tuple[str, int, int, int, int]] = [("replace", 0, len(was), 0, len(now))]
    if len(was) * len(now) <= _MOST_COMPARED:
        changes = difflib.SequenceMatcher(None, was, now, autojunk=False).get_opcodes()
    head, tail = [(line, False) for line in one[:start]], [(line, False) for line in one[len(one) - end :]]
    left = [(line, kind != "equal") for kind, a, b, _c, _d in changes for line in was[a:b]]
    right = [(line, kind != "equal") for kind, _a, _b, c, d in changes for line in now[c:d]]
    return [*head, *left, *tail], [*head, *right, *tail]


def _same_lines(one: list[str], other: list[str]) -> int:
    """How many lines are the same at the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (line, another) in pairs if line != another), min(len(one), len(other)))
