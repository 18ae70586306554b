"""The upstream's list of models in the admin: what is fetched from it, and what staff hear of the models they add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import action, request_ip
from accounts.models import AuditEvent
from accounts.rights import may, people_who_may
from portal.lib import clock
from portal.lib.crypto import Undecryptable
from relay.admin.channels.health import ChannelHealthAdmin
from relay.admin.money.below_cost import warn_below_cost
from relay.admin.pasted import taken_alias, ticked
from relay.billing.price_import import listings_for
from relay.catalog.facts import fill_facts, fill_facts_of
from relay.catalog.margins import below_cost, margins
from relay.catalog.price_texts import prices_now
from relay.channels.health_checks import correct_base_url
from relay.channels.models import add_models, aliased
from relay.channels.probe import ModelList, fetch_models, why_unusable
from relay.channels.upstream_prices import fetch_prices, take_prices
from relay.models import Channel, Model, ModelPrice
from relay.models.usage import EARNINGS
from relay.providers.model_facts import ModelFacts

PRICING: Final = "relay.add_modelprice"  # the right to say what users pay


def list_models(request: HttpRequest, channel: Channel) -> ModelList:
    """Fetch the model list of a channel's upstream with its first key in service; an error names the key.

    With none in service the first enabled key is asked with: it may be good again.
    """
    keys = list(channel.keys.filter(enabled=True))
    key = next((one for one in keys if not one.auto_disabled), keys[0] if keys else None)
    try:
        listed = fetch_models(channel, key)
    except Undecryptable as error:
        listed = ModelList((), why_unusable(error))
    if not listed.error or key is None:
        return listed
    name = str(key) if may(request.user, "relay.view_apikey") else key.public_name
    return replace(
        listed, error=gettext("%(error)s Asked with the key %(key)s.") % {"error": listed.error, "key": name}
    )


def complete_models(request: HttpRequest, names: Iterable[str], *, listed: bool = True) -> None:
    """Fill in what is known of models that were added, and say which of them have no price.

    `listed`: list prices were looked up for them.
    """
    wanted = list(names)
    fill_facts(wanted)
    warn_unpriced(request, wanted, listed=listed)


def warn_unpriced(request: HttpRequest, names: Iterable[str], *, listed: bool = True) -> None:
    """Say which of the models have no price. `listed`: list prices were looked up for them."""
    if count := len(unpriced(Model.objects.filter(name__in=list(names)))):
        messages.warning(request, unpriced_note(request, count, listed))


def unpriced(models: Iterable[Model]) -> list[Model]:
    """Return the models whose requests are refused for lack of a price."""
    rows = list(models)
    if settings.CONFIG.unpriced != "refuse":
        return []
    prices = prices_now((row.pk for row in rows), clock.now())
    return [row for row in rows if not prices[row.pk].known]


def unpriced_note(request: HttpRequest, count: int, listed: bool = True) -> str:
    """Say that models have no price, with a link for those who can set one, or whom to ask."""
    said = ngettext(
        "%(n)d model has no price, so requests for it are refused.",
        "%(n)d models have no price, so requests for them are refused.",
        count,
    ) % {"n": count}
    url = reverse("admin:relay_model_changelist") + "?state=unpriced"
    if may(request.user, PRICING):
        return format_html('{} <a href="{}">{}</a>', said, url, gettext("Set their prices, or make them free"))
    if not listed and may(request.user, "relay.change_model"):
        return format_html('{} <a href="{}">{}</a>', said, url, gettext("Take the vendors' list prices"))
    return f"{said} {who_sets_prices()}"


def who_sets_prices() -> str:
    """Say whom to ask for a price that the vendors' lists do not have."""
    people = people_who_may(PRICING) or gettext("a superuser")
    return gettext("No list price of a vendor was found. A price can be set by: %(people)s.") % {"people": people}


def make_free(request: HttpRequest, models: Iterable[Model]) -> int:
    """Give the models that have no price the price zero, and audit it. Returns how many there were."""
    rows = unpriced(models)
    with transaction.atomic():
        for model in rows:
            price = ModelPrice(model=model, input=0, output=0, source="made free")
            price.save()
            AuditEvent.write("price.create", request.user, price, request_ip(request), input="0", output="0")
    return len(rows)


class ModelListAdmin(ChannelHealthAdmin):
    """The page of a channel on which models are chosen from its upstream's list."""

    @action(description=_("Fetch models"), url_path="models", icon="playlist_add", permissions=["change"])
    def choose_models(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show the upstream's model list, and add the models that are ticked."""
        channel = get_object_or_404(Channel, pk=object_id)
        listed = list_models(request, channel)
        if request.method == "POST":
            names = [
                name
                for name in ticked(request, "name")
                if name and len(name) <= 120 and not any(character.isspace() for character in name)
            ]
            if listed.base_url:
                self.message_user(
                    request, correct_base_url(channel, listed.base_url, request.user, request_ip(request))
                )
            for name, model in aliased(names).items():
                self.message_user(request, taken_alias(name, model), messages.WARNING)
                names.remove(name)
            pairs = [(name, "") for name in names]
            listings = listings_for(channel.provider, pairs)
            with transaction.atomic():
                added = add_models(channel, pairs, listings, is_open=bool(request.POST.get("open")))
                AuditEvent.write("channel.add-models", request.user, channel, request_ip(request), models=names[:200])
            self.message_user(
                request,
                _("%(added)s model(s) added to “%(channel)s”.") % {"added": added, "channel": channel},
                messages.SUCCESS,
            )
            if count := fill_facts_of(channel, listed.facts):
                self.message_user(
                    request,
                    ngettext(
                        "What the list says of %(n)d model was filled in.",
                        "What the list says of %(n)d models was filled in.",
                        count,
                    )
                    % {"n": count},
                )
            complete_models(request, names)
            return redirect("admin:relay_channel_change", channel.pk)
        have = set(channel.served.values_list("upstream_name", flat=True)) | set(
            channel.served.values_list("model__name", flat=True)
        )
        context = {
            **self.admin_site.each_context(request),
            "title": _("Models of “%(channel)s”") % {"channel": channel},
            "opts": self.model._meta,
            "object": channel,
            "error": listed.error,
            "corrected": listed.base_url,
            "names": [(name, name in have, False, kind_of(name, listed.facts)) for name in listed.names],
        }
        return render(request, "admin/relay/channel/models.html", context)

    def has_take_costs_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_change_permission(request) and may(request.user, PRICING) and may(request.user, EARNINGS)

    @action(description=_("Take its prices"), url_path="prices", icon="sync", permissions=["take_costs"])
    def take_costs(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Take what another relay charges as what the channel costs."""
        channel = get_object_or_404(Channel, pk=object_id)
        back = redirect("admin:relay_channel_change", channel.pk)
        if not channel.vendor.prices:
            text = _("The vendor of “%(channel)s” says in no API what it charges. Use list prices.")
            self.message_user(request, text % {"channel": channel}, messages.WARNING)
            return back
        if request.method != "POST":
            text = _(
                "What this relay charges for the models of the channel becomes what they cost here, and is kept up to "
                "date. What users pay stays."
            )
            title = _("Prices of “%(channel)s”") % {"channel": channel}
            return self.confirm(request, channel, title, text, _("Take its prices"))
        prices = fetch_prices(channel, channel.keys.filter(enabled=True, auto_disabled="").first())
        if not prices:
            text = _("The upstream of “%(channel)s” did not say what it charges.")
            self.message_user(request, text % {"channel": channel}, messages.WARNING)
            return back
        changed, known = take_prices(channel, prices, request.user, request_ip(request))
        said = _("Prices of %(known)d model(s) are known, %(changed)d changed.") % {"known": known, "changed": changed}
        self.message_user(request, said, messages.SUCCESS)
        warn_below_cost(request, f"“{channel}”", below_cost(margins(clock.now(), channel=channel.pk)))
        return back


def kind_of(name: str, facts: Mapping[str, ModelFacts]) -> str:
    """Return by which word a model is found in a list: chat, image, audio, embeddings or other."""
    known = facts.get(name, ModelFacts()).abilities or Model(name=name).known_abilities
    if "chat" in known:
        return "chat"
    if "image_generation" in known:
        return "image"
    if {"speech", "transcription", "realtime"} & set(known):
        return "audio"
    return "embeddings" if "embeddings" in known else "other"
