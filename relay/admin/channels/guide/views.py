"""The set-up guide of the admin: eight steps from an empty portal to the first answered request.

Which steps are done is read from the database, so the guide can be left and resumed at any step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.admin.base import request_ip
from accounts.models import AuditEvent, User
from accounts.rights import may
from portal.lib import clock
from portal.lib.texts import whole_number
from relay.admin.channels.guide.channel import look_again, save_channel
from relay.admin.channels.guide.people import give_token, save_user
from relay.admin.channels.guide.prices import price_form
from relay.admin.channels.model_list import kind_of, list_models, warn_unpriced
from relay.admin.pasted import check_no_aliases, parse_keys, parse_model_names, parse_served, ticked
from relay.billing.price_import import listings_for
from relay.catalog.facts import fill_facts, fill_facts_of
from relay.channels.health_checks import correct_base_url, test_channel
from relay.channels.keys import add_keys
from relay.channels.models import add_models
from relay.models import Channel, Model, Token
from relay.providers.vendors import BUILT_IN, PRIVATE


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the guide."""

    key: str  # the last part of its URL
    title: Any
    why: Any  # shown below the title
    permissions: tuple[str, ...]  # all of which are needed for it


STEPS: Final = (
    Step(
        "channel",
        gettext_lazy("Channel"),
        gettext_lazy("A channel is a configured way to an upstream: whose API it is, and where."),
        ("relay.add_channel",),
    ),
    Step(
        "keys",
        gettext_lazy("API keys"),
        gettext_lazy("What the upstream knows you by. Keys are stored encrypted and never shown again."),
        ("relay.add_apikey",),
    ),
    Step(
        "models",
        gettext_lazy("Models"),
        gettext_lazy("Which of the upstream's models this channel shall serve."),
        ("relay.add_model", "relay.add_channelmodel"),
    ),
    Step(
        "test",
        gettext_lazy("Test"),
        gettext_lazy("One real request with every key says whether it all works."),
        ("relay.change_channel",),
    ),
    Step(
        "open",
        gettext_lazy("Open models"),
        gettext_lazy("Open models are for everybody; the others need a permission, by user or group."),
        ("relay.change_model",),
    ),
    Step(
        "prices",
        gettext_lazy("Prices"),
        gettext_lazy(
            "A model without a price is refused, so that nothing is given away by mistake. Zero is a price, too."
        ),
        ("relay.add_modelprice",),
    ),
    Step(
        "user",
        gettext_lazy("User"),
        gettext_lazy("Somebody who signs in, owns tokens and has a balance."),
        ("accounts.add_user",),
    ),
    Step(
        "token",
        gettext_lazy("Token"),
        gettext_lazy("What an app presents instead of an OpenAI key."),
        ("relay.add_token",),
    ),
)
_BY_KEY: Final = {step.key: step for step in STEPS}


def _may(request: HttpRequest, step: Step) -> bool:
    return may(request.user, *step.permissions)


def current_channel(request: HttpRequest) -> Channel | None:
    """Return the channel that the guide is about: the chosen one, or else the newest.

    None that is built in, and no plan of a user, which is nobody else's.
    """
    rows = Channel.objects.exclude(provider__in=BUILT_IN | PRIVATE).order_by("-pk")
    chosen = whole_number(request.GET.get("channel") or request.POST.get("channel"))
    return (rows.filter(pk=chosen).first() if chosen is not None else None) or rows.first()


def step_progress(channel: Channel | None) -> dict[str, bool]:
    """Return which steps are done, by key."""
    models = Model.objects.filter(served_by__channel=channel) if channel else Model.objects.none()
    keyless = channel is not None and not channel.vendor.needs_key
    priced = Q(prices__valid_from__lte=clock.now())
    others = User.objects.filter(is_superuser=False)
    # One that an app can use now; an open relay's own stands for all apps.
    tokens = Token.objects.filter(Q(expires_at=None) | Q(expires_at__gt=clock.now()), enabled=True, revoked_at=None)
    tokens = tokens.filter(user__is_active=True)
    return {
        "channel": channel is not None,
        "keys": channel is not None and (keyless or channel.keys.exists()),
        "models": models.exists(),
        "test": channel is not None and bool(channel.test_ok),
        "open": models.filter(Q(is_open=True) | Q(permissions__isnull=False)).exists(),
        "prices": models.exists() and not models.exclude(pk__in=Model.objects.filter(priced).values("pk")).exists(),
        # One person may use the portal alone: then a token of their own is all that it needs.
        "user": others.exists() or tokens.exists(),
        "token": tokens.exists(),
    }


def setup_view(request: HttpRequest, step: str = "") -> HttpResponse:
    """Show a step of the guide and handle its form. Without a step, redirect to the first that is not done."""
    mine = [one for one in STEPS if _may(request, one)]
    if not mine:
        raise PermissionDenied
    channel = current_channel(request)
    done = step_progress(channel)
    if not step:
        return redirect("admin-setup-step", next((one.key for one in mine if not done[one.key]), mine[-1].key))
    if step not in _BY_KEY:
        raise Http404
    here = _BY_KEY[step]
    if not _may(request, here):
        raise PermissionDenied
    if channel is None and step in {"keys", "models", "test", "open", "prices"}:
        messages.info(request, _("First add a channel."))
        return redirect("admin-setup-step", "channel") if _BY_KEY["channel"] in mine else redirect("admin:index")
    result = _HANDLERS[step](request, channel)
    if isinstance(result, HttpResponse):
        return result
    done = step_progress(channel)  # again, since the handler may have done the step
    context = {
        **admin.site.each_context(request),
        "title": _("Set the portal up"),
        "steps": [(one, done[one.key], _may(request, one)) for one in STEPS],
        "step": here,
        "channel": channel,
        "following": _step_after(request, step),
        "skip_to": _step_after(request, step, done),
        "all_done": all(done.values()),
        **result,
    }
    response = render(request, "admin/relay/setup.html", context)
    if step == "token":
        response["Cache-Control"] = "no-store"
    return response


def _powers(kwargs: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Return the permissions of a step, of any one step for the guide as a whole."""
    step = _BY_KEY.get(kwargs.get("step", ""))
    return tuple(one.permissions for one in (STEPS if step is None else (step,)))


setup_view.powers = _powers  # type: ignore[attr-defined]  # read by `accounts.doors`


def _step_after(request: HttpRequest, step: str, done: Mapping[str, bool] | None = None) -> Step | None:
    """Return the next step that the reader may do; with `done`, the next of those that are not done."""
    later = (one for one in STEPS[STEPS.index(_BY_KEY[step]) + 1 :] if _may(request, one))
    return next((one for one in later if done is None or not done[one.key]), None)


def _next_step(request: HttpRequest, step: str, channel: Channel | None) -> HttpResponse:
    following = _step_after(request, step)
    if following is None:
        messages.success(request, _("That was the last step that your rights allow. Somebody else does the others."))
        return redirect("admin:index")
    response = redirect("admin-setup-step", following.key)
    if channel is not None:
        response["location"] += f"?channel={channel.pk}"
    return response


def _channel_step(request: HttpRequest, channel: Channel | None) -> Any:
    if request.method == "POST" and "look" in request.POST:  # on the front page, or here
        look_again(request)
        there = request.POST["look"] == "overview"
        return redirect("admin:index") if there else redirect("admin-setup-step", "channel")
    found = save_channel(request, channel)
    if not isinstance(found, Channel):
        return found
    # A server on this machine has its models and prices already.
    return _next_step(request, "models" if "local" in request.POST else "channel", found)


def _keys_step(request: HttpRequest, channel: Channel) -> Any:
    wrong, text = "", request.POST.get("keys", "")
    if request.method == "POST":
        try:
            secrets = parse_keys(text, channel.vendor)
        except forms.ValidationError as error:
            wrong = " ".join(error.messages)
        else:
            if not secrets and channel.vendor.needs_key:
                wrong = _("Paste at least one key.")
            else:
                with transaction.atomic():
                    new, there = add_keys(channel, secrets)
                    AuditEvent.objects.bulk_create(
                        AuditEvent.entry("apikey.add", request.user, key, request_ip(request), channel=channel.name)
                        for key in new
                    )
                if there:
                    messages.warning(
                        request,
                        _("%(n)d of the pasted keys were there already and are not added again.") % {"n": there},
                    )
                if new:
                    messages.success(request, _("%(n)d key(s) added.") % {"n": len(new)})
                return _next_step(request, "keys", channel)
    return {
        "wrong": wrong,
        "stored_keys": [key.hint for key in channel.keys.all()],
        "needs_key": channel.vendor.needs_key,
        "json_keys": channel.vendor.credentials.is_json,
    }


def _models_step(request: HttpRequest, channel: Channel) -> Any:
    wrong, listed = "", list_models(request, channel)
    if request.method == "POST":
        names: list[tuple[str, str]] = []
        try:
            ticks = [(name, "") for name in parse_model_names(ticked(request, "name"))]
            names = [*ticks, *parse_served(request.POST.get("typed", ""))]
            check_no_aliases(public for public, _upstream in names)
            if not names and not channel.served.exists():
                wrong = _("Tick or type at least one model.")
        except forms.ValidationError as invalid:
            wrong = " ".join(invalid.messages)
        if not wrong:
            clean = list(dict.fromkeys(name for name, _upstream in names))
            listings = listings_for(channel.provider, names)
            if listed.base_url:
                messages.info(request, correct_base_url(channel, listed.base_url, request.user, request_ip(request)))
            with transaction.atomic():
                added = add_models(channel, names, listings)
                AuditEvent.write("channel.add-models", request.user, channel, request_ip(request), models=clean[:200])
            fill_facts_of(channel, listed.facts)
            fill_facts(clean)
            if not _may(request, _BY_KEY["prices"]):  # whose guide ends before it
                warn_unpriced(request, clean)
            messages.success(request, _("%(n)d model(s) added.") % {"n": added})
            return _next_step(request, "models", channel)
    have = set(channel.served.values_list("model__name", flat=True))
    chosen = set(ticked(request, "name"))
    return {
        "error": listed.error,
        "corrected": listed.base_url,
        "wrong": wrong,
        "typed": request.POST.get("typed", ""),
        "names": [(name, name in have, name in chosen, kind_of(name, listed.facts)) for name in listed.names[:2000]],
        "have": sorted(have),
    }


def _test_step(request: HttpRequest, channel: Channel) -> Any:
    if request.method == "POST":
        result = test_channel(channel, request.user, request_ip(request))
        if result.ok:
            messages.success(request, result.message)
            if all(step_progress(channel).values()):
                messages.success(request, _("That is all. The portal is ready."))
                return redirect("admin:index")
            return _next_step(request, "test", channel)
        channel.refresh_from_db()  # the page says how the test went
    return {"serves": channel.served.exists()}


def _open_step(request: HttpRequest, channel: Channel) -> Any:
    models = list(Model.objects.filter(served_by__channel=channel).order_by("name"))
    if request.method == "POST":
        wanted, shown = set(ticked(request, "model")), set(request.POST.get("was_open", "").split())
        with transaction.atomic():
            for is_open in (True, False):
                # What this reader has ticked or cleared; the rest stays as somebody else may have set it meanwhile.
                mine = wanted - shown if is_open else shown - wanted
                found = [model for model in models if str(model.pk) in mine and model.is_open != is_open]
                Model.objects.filter(pk__in=[model.pk for model in found]).update(
                    is_open=is_open, updated_at=clock.now()
                )
                action, ip = "model.open" if is_open else "model.close", request_ip(request)
                AuditEvent.objects.bulk_create(AuditEvent.entry(action, request.user, model, ip) for model in found)
        return _next_step(request, "open", channel)
    return {"models": models, "was_open": " ".join(str(model.pk) for model in models if model.is_open)}


def _prices_step(request: HttpRequest, channel: Channel) -> Any:
    return price_form(request, channel) or _next_step(request, "prices", channel)


def _user_step(request: HttpRequest, channel: Channel | None) -> Any:
    found = save_user(request)
    if not isinstance(found, User):
        return found
    response = _next_step(request, "user", channel)
    response["location"] += ("&" if "?" in response["location"] else "?") + f"user={found.pk}"
    return response


_HANDLERS: Final[dict[str, Callable[..., Any]]] = {
    "channel": _channel_step,
    "keys": _keys_step,
    "models": _models_step,
    "test": _test_step,
    "open": _open_step,
    "prices": _prices_step,
    "user": _user_step,
    "token": give_token,
}
