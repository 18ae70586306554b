"""The step of the set-up guide that adds a channel, or corrects the one that the guide is about."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.admin.base import request_ip
from accounts.models import AuditEvent
from accounts.rights import may, may_everything
from portal.lib.texts import whole_number
from relay.admin.forms import BaseUrlForm
from relay.catalog.facts import fill_facts
from relay.channels.cooldowns import end_cooldowns
from relay.channels.local.offers import add_channel, may_add, offered_servers
from relay.channels.local.servers import LocalServer
from relay.models import Channel, ChannelEvent
from relay.providers.vendors import VENDORS, grouped

LOCAL_RIGHTS: Final = (
    "relay.add_channel", "relay.add_model", "relay.add_channelmodel", "relay.add_modelprice",
)  # fmt: skip


class SetupChannelForm(BaseUrlForm):
    """The form of the step: vendor, name and base URL of a channel."""

    class Meta:
        model = Channel
        fields = ("provider", "name", "base_url")


def save_channel(request: HttpRequest, channel: Channel | None) -> Channel | dict[str, Any]:
    """Save the form of the step. Returns the channel, or what the page shows where nothing is saved.

    The channel that the URL names is corrected by those who may change channels; otherwise another one is added. A
    server on this machine that was found is added by its button.
    """
    if request.method == "POST" and "local" in request.POST:
        added = _add_local(request)
        if added is not None:
            return added
    edited = channel if _is_chosen(request, channel) and may(request.user, "relay.change_channel") else None
    before = edited.effective_base_url if edited is not None else ""
    initial = {} if edited is not None else {"provider": Channel().provider}
    form = SetupChannelForm(request.POST or None, instance=edited, initial=initial)
    form.allows_addresses = bool(getattr(request.user, "is_superuser", False))
    if request.method == "POST" and form.is_valid():
        made: Channel = form.save(commit=False)
        with transaction.atomic():
            form.allow_address(request.user, request_ip(request))
            if edited is None:
                made.save()
                ChannelEvent.write(made.pk, "created", "", request.user)
                AuditEvent.write("channel.add", request.user, made, request_ip(request), provider=made.provider)
            else:
                _save_corrected(request, made, before)
        if form.completed:
            messages.info(request, form.completed)
        done = _("The channel “%(name)s” is there.") if edited is None else _("The channel “%(name)s” is saved.")
        messages.success(request, done % {"name": made.name})
        return made
    groups = [
        (_(title), [(one.key, _(one.label), one.base_url, one.address_form) for one in vendors])
        for title, vendors in grouped()
        if title  # what answers inside the portal stands alone
    ]
    found = {"form": form, "groups": groups, "chosen": form["provider"].value(), "edited": edited}
    return found | {"local": None if edited is not None else local_offers(request)}


def local_offers(request: HttpRequest, fresh: bool = False) -> list[tuple[LocalServer, str]] | None:
    """The servers on this machine that the reader may add by a click, each with the label of its vendor.

    None where there is nothing to say of them: the reader may not add one, or may add only those that are allowed, and
    none of these answers. `fresh`: look now, whatever was found before.
    """
    if not may(request.user, *LOCAL_RIGHTS):
        return None
    found = [
        (server, _(VENDORS[server.provider].label))
        for server in offered_servers(_own_ports(request), fresh)
        if may_add(request.user, server)
    ]
    return found if found or may_everything(request.user) else None


def look_again(request: HttpRequest) -> None:
    """Look for servers on this machine now, and say how many there are."""
    if not may(request.user, *LOCAL_RIGHTS):
        raise PermissionDenied
    found = local_offers(request, fresh=True)
    if not found:
        messages.info(request, _("No server was found that you can add. Start one with a model, and look again."))
        return
    said = ngettext("%(n)d server was found on this machine.", "%(n)d servers were found on this machine.", len(found))
    messages.success(request, said % {"n": len(found)})


def _own_ports(request: HttpRequest) -> set[int]:
    """The ports at which this portal listens: also llama.cpp's first one."""
    heard = request.META.get("SERVER_PORT", "")
    return {settings.CONFIG.port, *([int(heard)] if str(heard).isdecimal() else [])}


def _add_local(request: HttpRequest) -> Channel | None:
    """Add the server at the port that the form names, if it is still there. Says what was made of it."""
    if not may(request.user, *LOCAL_RIGHTS):
        raise PermissionDenied
    wanted = whole_number(request.POST.get("local", ""))
    found = offered_servers(_own_ports(request), fresh=True)
    server = next((one for one in found if one.port == wanted), None)
    if server is None:
        messages.warning(request, _("The server does not answer any more, or is a channel already."))
        return None
    if not may_add(request.user, server):
        raise PermissionDenied
    channel = add_channel(server, request.user, request_ip(request))
    fill_facts([name for name, _upstream in server.models])
    said = ngettext(
        "The channel “%(name)s” is there, with %(n)d model, which costs nothing.",
        "The channel “%(name)s” is there, with %(n)d models, which cost nothing.",
        len(server.models),
    ) % {"name": channel.name, "n": len(server.models)}
    messages.success(request, said)
    return channel


def _is_chosen(request: HttpRequest, channel: Channel | None) -> bool:
    """Whether the URL or the form names the channel, so that the guide has not only fallen back on it."""
    named = request.POST.get("channel") or request.GET.get("channel", "")
    return channel is not None and named == str(channel.pk)


def _save_corrected(request: HttpRequest, channel: Channel, before: str) -> None:
    """Save a corrected channel. Keys that were given for another address are out of use, which is said."""
    channel.tested_at, channel.test_ok, channel.test_message = None, None, ""
    channel.save()
    end_cooldowns(list(channel.cooldowns.all()), request.user, request_ip(request))
    now = channel.effective_base_url
    changes = {"base_url": [before, now]} if before != now else {}
    AuditEvent.write("channel.change", request.user, channel, request_ip(request), changes=changes)
    if count := sum(not key.is_for(channel) for key in channel.keys.all()):
        said = ngettext(
            "The address is another server's, which does not get the %(n)d key of the old one: enter its own.",
            "The address is another server's, which does not get the %(n)d keys of the old one: enter its own.",
            count,
        )
        messages.warning(request, said % {"n": count})
