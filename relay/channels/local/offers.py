"""Channels for servers on this machine, made with their models, free of charge, the address allowed. Synchronous."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils.translation import gettext as _

from accounts.models import AuditEvent, User
from accounts.rights import may_everything
from portal.lib import net
from relay.channels.local.servers import LocalServer, local_servers
from relay.channels.models import add_models
from relay.channels.urls import url_refusal
from relay.models import AllowedUpstream, Channel, ChannelEvent, Model, ModelPrice
from relay.providers.vendors import VENDORS


def offered_servers(own_ports: Collection[int], fresh: bool = False) -> list[LocalServer]:
    """The servers on this machine that are no channel's yet."""
    found = local_servers(own_ports, fresh)
    if not found:
        return []
    taken = {port for url in _addresses() if (port := _local_port(url)) is not None}
    return [server for server in found if server.port not in taken]


def _addresses() -> list[str]:
    return [channel.effective_base_url for channel in Channel.objects.only("provider", "base_url")]


def _local_port(url: str) -> int | None:
    """The port of an address of this machine; None for others."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    return port if net.is_loopback_name(parts.hostname or "") else None


def may_add(person: Any, server: LocalServer) -> bool:
    """Whether somebody may use the server in a channel: its address is allowed, or they may allow it."""
    return may_everything(person) or not url_refusal(server.base_url, AllowedUpstream.allowances())


def add_channel(server: LocalServer, actor: Any, ip: str | None) -> Channel:
    """Make a channel of a server, which `may_add` was asked about.

    Its models have the price zero where they have none yet: the server is one's own. Where nobody else uses the
    portal, those that are new are open, so that nothing is left to do.
    """
    vendor = VENDORS[server.provider]
    base_url = "" if server.base_url == vendor.base_url else server.base_url
    alone = len(User.objects.filter(is_active=True).values_list("pk")[:2]) == 1
    with transaction.atomic():
        if url_refusal(server.base_url, AllowedUpstream.allowances()):
            row = AllowedUpstream.objects.create(address=server.allowance, note=_("allowed with a channel"))
            AuditEvent.write("allowedupstream.add", actor, row, ip, address=server.allowance)
        channel = Channel.objects.create(name=_free_name(vendor.label), provider=server.provider, base_url=base_url)
        ChannelEvent.write(channel.pk, "created", "", actor)
        AuditEvent.write("channel.add", actor, channel, ip, provider=server.provider)
        add_models(channel, server.models, {}, is_open=alone)
        names = [name for name, _upstream in server.models]
        AuditEvent.write("channel.add-models", actor, channel, ip, models=names[:200])
        _make_free(channel, actor, ip)
    return channel


def _free_name(label: str) -> str:
    name, number = label, 2
    while Channel.objects.filter(name=name).exists():
        name, number = f"{label} ({number})", number + 1
    return name


def _make_free(channel: Channel, actor: Any, ip: str | None) -> None:
    priced = Exists(ModelPrice.objects.filter(model=OuterRef("pk"), purpose="sale"))
    prices = [
        ModelPrice(model=model, input=0, output=0, source="a server of one's own")
        for model in Model.objects.filter(~priced, served_by__channel=channel)
    ]
    for price in prices:
        price.save()
        AuditEvent.write("price.create", actor, price, ip, input="0", output="0")
