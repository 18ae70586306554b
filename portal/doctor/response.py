"""Check of a whole answer: one small real request to an upstream, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

from django.db.models import F, Q
from django.utils.translation import gettext as _

from portal.doctor.report import Check
from portal.lib import clock, money
from portal.lib.crypto import Undecryptable
from relay.channels.health_checks import model_for_tests
from relay.channels.probe import probe_channel, why_unusable
from relay.models import Channel, ChannelModel, ModelPrice
from relay.models.price import PricePurpose
from relay.providers.vendors import BUILT_IN

_PER: Final = Decimal(1_000_000)


def response(channels: Sequence[Channel], wanted: bool, with_costs: bool) -> Iterator[Check]:
    """Ask the first of the channels that serves a model. The request is a channel's test: nothing is recorded.

    `with_costs`: the reader may know what upstreams charge.
    """
    if not wanted:
        yield Check("response", "skip", _("No request was made, as you asked."))
        return
    chosen = next(((one, model) for one in channels if (model := model_for_tests(one)) is not None), None)
    if chosen is None:
        yield Check(
            "response",
            "skip",
            _("No channel that can be used serves a model, so no request was made."),
            (_("Add models to a channel in the admin."),),
        )
        return
    channel, model = chosen
    key = channel.keys.filter(enabled=True, auto_disabled="").order_by("pk").first()
    data: dict[str, object] = {"channel": channel.pk, "provider": channel.provider, "model": model}
    shown = {"name": channel.name, "model": model}
    try:
        result = probe_channel(channel, key, model)
    except Undecryptable as error:
        yield Check("response", "fail", f"“{channel.name}”: {why_unusable(error)}", (), data)
        return
    data["latency_ms"] = result.latency_ms
    if not result.ok:
        text = _("“%(name)s” did not answer a request for %(model)s: %(why)s") % {**shown, "why": result.message}
        yield Check("response", "fail", text, (_("Test the channel in the admin, and correct it there."),), data)
        return
    said, cost = _cost(channel, model, result.tokens, with_costs)
    data |= {"tokens": list(result.tokens) if result.tokens else None, "cost_usd": cost}
    text = _("“%(name)s” answers with %(model)s. %(result)s %(cost)s")
    yield Check("response", "pass", text % {**shown, "result": result.message, "cost": said}, data=data)


def _cost(channel: Channel, model: str, tokens: tuple[int, int] | None, with_costs: bool) -> tuple[str, str | None]:
    """What a request has cost, in words and in USD: by what the upstream charges, else by the model's price."""
    if channel.provider in BUILT_IN:
        return _("It cost nothing."), "0"
    link = ChannelModel.objects.filter(Q(upstream_name=model) | Q(model__name=model), channel=channel).first()
    price = (
        ModelPrice.objects.filter(
            Q(channel=channel) | Q(channel=None), model=link.model_id, valid_from__lte=clock.now()
        )
        .filter(above_tokens=0, purpose__in=list(PricePurpose) if with_costs else [PricePurpose.SALE])
        .order_by("purpose", F("channel").desc(nulls_last=True), "-valid_from")
        .first()
        if link is not None
        else None
    )
    if price is None or tokens is None:
        return _("What the upstream charges for it is not known here: a few tokens."), None
    usd = (tokens[0] * price.input + tokens[1] * price.output) / _PER + (price.per_call or Decimal(0))
    if price.purpose == PricePurpose.SALE:
        said = _("At the model's price it costs %(usd)s.")
    else:
        said = _("The upstream charges %(usd)s for it.")
    return said % {"usd": money.exact(money.nano(usd))}, format(usd.normalize(), "f")
