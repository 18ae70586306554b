"""The health of a channel, on its admin page: keys out of service, APIs that its upstream lacks, its history."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, action, display, format_time, request_ip
from portal.lib import clock
from relay.channels import cooldowns
from relay.channels import status as channel_status
from relay.channels.keys import evidence_of, put_back
from relay.models import ApiKey, Channel, ChannelEvent, Cooldown


class ChannelHealthAdmin(BaseAdmin):
    """The parts of a channel's page about its health."""

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Show keys that are out of service and APIs that the upstream lacks at the top, while there are any."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None:
            return fieldsets
        fields = ["out_of_service"] if obj.keys.exclude(auto_disabled="").exists() else []
        fields += ["missing_apis"] if cooldowns.missing_apis_of(obj) else []
        return ((None, {"fields": fields}), *fieldsets) if fields else fieldsets

    @display(description=_("out of service"))
    def out_of_service(self, channel: Channel) -> str:
        return "\n".join(map(_why_out, channel.keys.exclude(auto_disabled="")))

    @display(description=_("APIs that the upstream lacks"))
    def missing_apis(self, channel: Channel) -> str:
        """Each with what taught it."""
        said = _("%(what)s, since %(since)s · asked again from %(until)s")
        return "\n".join(
            said % {"what": row.detail, "since": format_time(row.since), "until": format_time(row.until)}
            for row in cooldowns.missing_apis_of(channel)
        )

    @action(description=_("Put keys back"), url_path="put-back", icon="restart_alt", permissions=["change"])
    def put_keys_back(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Put keys back into service without a test."""
        channel = get_object_or_404(Channel, pk=object_id)
        out = list(channel.keys.exclude(auto_disabled=""))
        if request.method != "POST":
            names = ", ".join(map(str, out))
            text = _(
                "%(n)s key(s) of this channel were taken out of service: %(names)s. They are put back without a test; "
                "one that still fails is taken out again."
            ) % {
                "n": len(out),
                "names": names,
            }
            return self.confirm(
                request,
                channel,
                _("Put keys of “%(channel)s” back") % {"channel": channel},
                text if out else _("No key of this channel is out of service."),
                _("Put them back"),
            )
        count = sum(put_back(key, request.user, request_ip(request)) for key in out)
        self.message_user(
            request,
            _("%(count)s key(s) of “%(channel)s” are back in service.") % {"count": count, "channel": channel},
            messages.SUCCESS,
        )
        return redirect("admin:relay_channel_change", channel.pk)

    @action(description=_("Ask for all APIs again"), url_path="forget-apis", icon="lab_profile", permissions=["change"])
    def forget_apis(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Forget which APIs the upstream of a channel lacks."""
        channel = get_object_or_404(Channel, pk=object_id)
        rows = cooldowns.missing_apis_of(channel)
        if request.method != "POST":
            text = _("The upstream is believed to lack: %(apis)s. The next requests ask it for them again.") % {
                "apis": "; ".join(row.detail for row in rows)
            }
            return self.confirm(
                request,
                channel,
                _("Ask “%(channel)s” for all APIs again") % {"channel": channel},
                text if rows else _("Nothing is known that the upstream of this channel lacks."),
                _("Forget it"),
            )
        count = cooldowns.end_cooldowns(rows, request.user, request_ip(request))
        self.message_user(
            request,
            _("%(count)s API(s) of “%(channel)s” are asked for again.") % {"count": count, "channel": channel},
            messages.SUCCESS,
        )
        return redirect("admin:relay_channel_change", channel.pk)

    @action(description=_("State history"), url_path="events", icon="history", permissions=["view"])
    def state_history(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show the current status of a channel and the changes that led to it."""
        channel = get_object_or_404(Channel, pk=object_id)
        context = {
            **self.admin_site.each_context(request),
            "title": _("History of “%(name)s”") % {"name": channel},
            "opts": self.model._meta,
            "object": channel,
            "status": next((one for one in channel_status.channel_statuses() if one.id == channel.pk), None),
            "events": ChannelEvent.objects.filter(channel=channel)[:200],
            "cooling": Cooldown.objects.filter(channel=channel, until__gt=clock.now()).select_related(
                "model", "api_key"
            ),
        }
        return render(request, "admin/relay/channel/history.html", context)


def _why_out(key: ApiKey) -> str:
    """Since when a key is out of service, what the upstream said to whom, and when the key is tested again."""
    since = format_time(key.auto_disabled_at) if key.auto_disabled_at else "—"
    parts: list[object] = [
        _("%(key)s, since %(since)s: %(why)s") % {"key": key, "since": since, "why": key.auto_disabled_reason}
    ]
    evidence = evidence_of(key)
    if evidence.get("code"):
        parts.append(_("code %(code)s") % {"code": evidence["code"]})
    if evidence.get("request"):
        said = _("answer to the request %(request)s of %(user)s")
        parts.append(said % {"request": evidence["request"], "user": evidence.get("user") or "—"})
    elif evidence.get("status"):
        parts.append(_("answer to a test"))
    if key.next_test_at:
        parts.append(_("tested again %(when)s") % {"when": format_time(key.next_test_at)})
    return " · ".join(map(str, parts))
