"""The health of a channel, on its admin page: keys out of service, APIs that its upstream lacks, its history."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, action, format_time, request_ip
from accounts.doors import may_open
from accounts.rights import may
from relay.channels import cooldowns
from relay.channels import status as channel_status
from relay.channels.health_checks import model_for_tests, test_channel
from relay.channels.keys import evidence_of, put_back
from relay.channels.probe import ProbeResult
from relay.models import ApiKey, Channel, ChannelEvent, UsageRecord

_MAX_TESTS = 10  # of one action
_MOST_KEYS = 20  # out of service that are described


class ChannelHealthAdmin(BaseAdmin):
    """The parts of a channel's page about its health."""

    change_form_outer_before_template = "admin/relay/channel/state.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the state of the channel above its form."""
        channel = self.get_object(request, object_id)
        context = _state_of(channel, request) if isinstance(channel, Channel) else {}
        response: HttpResponse = super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})
        return response

    @admin.action(description=_("Test with a real request"), permissions=["change"])
    def test_selected(self, request: HttpRequest, rows: QuerySet[Channel]) -> None:
        channels = list(Channel.objects.filter(pk__in=rows.values("pk"))[: _MAX_TESTS + 1])
        if len(channels) > _MAX_TESTS:
            self.message_user(
                request,
                _("Choose at most %(TESTS_AT_ONCE)s channels: each test is a real request.")
                % {"TESTS_AT_ONCE": _MAX_TESTS},
                messages.WARNING,
            )
            return
        for channel in channels:
            _show_result(self, request, channel, test_channel(channel, request.user, request_ip(request)))

    @action(description=_("Test"), url_path="test", icon="network_check", permissions=["change"])
    def test_channel(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        channel = get_object_or_404(Channel, pk=object_id)
        if request.method != "POST":
            model = model_for_tests(channel)
            keys = channel.keys.filter(enabled=True).count()
            said = {"model": model, "keys": keys}
            text = _("There is no model to test with yet. Fetch the models first, or type one under “Test”.")
            if model and keys > 1:
                text = _(
                    "One real chat request to the model “%(model)s” is sent with each of its %(keys)d keys. It costs "
                    "a few tokens."
                )
            elif model:
                text = _("One real chat request to the model “%(model)s” is sent. It costs a few tokens.")
            return self.confirm(
                request, channel, _("Test “%(channel)s”") % {"channel": channel}, text % said, _("Test now")
            )
        _show_result(self, request, channel, test_channel(channel, request.user, request_ip(request)))
        return redirect("admin:relay_channel_change", channel.pk)

    def has_caches_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and may_open(request, reverse("admin-caches"))

    @action(description=_("Caches"), url_path="caches", icon="cached", permissions=["caches"])
    def caches(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show how much of its prompts comes from caches, and which conversations left it."""
        return redirect(f"{reverse('admin-caches')}?channel={get_object_or_404(Channel, pk=object_id).pk}")

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
            "original": channel,
            "events": ChannelEvent.objects.filter(channel=channel)[:200],
            **_state_of(channel, request),
        }
        return render(request, "admin/relay/channel/history.html", context)


def _show_result(page: BaseAdmin, request: HttpRequest, channel: Channel, result: ProbeResult) -> None:
    """Show the outcome of a test as a message."""
    page.message_user(
        request,
        _("%(channel)s: %(message)s") % {"channel": channel, "message": result.message},
        messages.SUCCESS if result.ok else messages.ERROR,
    )


def _state_of(channel: Channel, request: HttpRequest) -> dict[str, Any]:
    """Return the context of the template that shows the state of a channel, with all that is wrong with it."""
    out = list(channel.keys.filter(enabled=True).exclude(auto_disabled=""))
    lacking = _("The upstream lacks %(what)s, since %(since)s · asked again from %(until)s")
    return {
        "status": channel_status.channel_status(channel.pk),
        "keys_out": [_why_out(key, request) for key in out[:_MOST_KEYS]],
        "more_keys_out": max(0, len(out) - _MOST_KEYS),
        "missing_apis": [
            lacking % {"what": row.detail, "since": format_time(row.since), "until": format_time(row.until)}
            for row in cooldowns.missing_apis_of(channel)
        ],
        "may_repair": may(request.user, "relay.change_channel"),
    }


def _request_link(request_id: str, request: HttpRequest) -> str:
    """Return the id of a request, as a link to its receipt for those who may see it."""
    if may(request.user, "relay.view_usagerecord"):
        found = UsageRecord.objects.filter(request_id=request_id).values_list("pk", flat=True).first()
        if found is not None:
            url = reverse("admin:relay_usagerecord_change", args=[found])
            return format_html('<a class="ar-link" href="{}">{}</a>', url, request_id)
    return request_id


def _why_out(key: ApiKey, request: HttpRequest) -> str:
    """Since when a key is out of service, what the upstream said to whom, and when the key is tested again."""
    since = format_time(key.auto_disabled_at) if key.auto_disabled_at else "—"
    said = _("The key %(key)s is out of service since %(since)s, %(kind)s: %(why)s")
    kind = _(str(key.get_auto_disabled_display()))
    parts: list[object] = [
        said % {"key": key.public_name, "since": since, "kind": kind, "why": key.auto_disabled_reason}
    ]
    evidence = evidence_of(key)
    if evidence.get("code"):
        parts.append(_("code %(code)s") % {"code": evidence["code"]})
    if evidence.get("request"):
        said = _("answer to the request {request} of {user}")
        link = _request_link(evidence["request"], request)
        parts.append(format_html(str(said), request=link, user=evidence.get("user") or "—"))
    elif evidence.get("status"):
        parts.append(_("answer to a test"))
    if key.next_test_at:
        parts.append(_("next test: %(when)s") % {"when": format_time(key.next_test_at)})
    return format_html_join(" · ", "{}", ((part,) for part in parts))
