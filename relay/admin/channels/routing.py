"""Admin pages of pools, failure rules and cooldowns."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, ReadOnlyAdmin, display, format_time, request_ip
from accounts.rights import may
from portal.lib import clock
from relay.admin.widgets import VendorFilter
from relay.channels import cooldowns
from relay.models import Cooldown, FailureRule, Pool
from relay.providers.failures import BY_WORD


@admin.register(Pool)
class PoolAdmin(BaseAdmin):
    """Pools: channels that share a strategy. A channel is added to a pool on its own page."""

    empty_text = _("Channels of a pool share a strategy, such as the fewest running requests. Most portals need none.")
    list_display = ("name", "strategy", "channel_count", "notes")
    search_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pool]:
        rows: QuerySet[Pool] = super().get_queryset(request)
        return rows.annotate(size=Count("channels"))

    @display(description=_("channels"), ordering="size")
    def channel_count(self, pool: Any) -> int:
        return int(pool.size)


@admin.register(FailureRule)
class FailureRuleAdmin(BaseAdmin):
    """Rules for the meaning of upstreams' failures, applied before the built-in ones."""

    list_display = ("position", "rule_text", "provider", "failure_class", "cooldown", "enabled", "note")
    list_display_links = ("rule_text",)
    list_editable = ("enabled",)
    list_filter = (VendorFilter, "failure_class", "enabled")
    search_fields = ("word", "text", "note")
    actions = ("enable", "disable")

    @display(description=_("rule"))
    def rule_text(self, rule: FailureRule) -> str:
        return str(rule)

    @admin.action(description=_("Enable"), permissions=["change"])
    def enable(self, request: HttpRequest, rows: QuerySet[FailureRule]) -> None:
        found = self.switch(request, rows, "enabled", True, "failure-rule.enable")
        self.message_user(request, _("%(n)s rule(s) enabled.") % {"n": len(found)}, messages.SUCCESS)

    @admin.action(description=_("Disable"), permissions=["change"])
    def disable(self, request: HttpRequest, rows: QuerySet[FailureRule]) -> None:
        found = self.switch(request, rows, "enabled", False, "failure-rule.disable")
        self.message_user(request, _("%(n)s rule(s) disabled.") % {"n": len(found)}, messages.SUCCESS)


class KindFilter(admin.SimpleListFilter):
    """Filters cooldowns by kind of failure. Offers only kinds that occur."""

    title = _("because")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        there = Cooldown.objects.values_list("kind", flat=True).distinct().order_by("kind")
        return [(kind, gettext(BY_WORD[kind].text) if kind in BY_WORD else kind) for kind in there]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Cooldown]) -> QuerySet[Cooldown]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(Cooldown)
class CooldownAdmin(ReadOnlyAdmin):
    """Channels, keys and models that are cooling down. They recover without help; staff may end a cooldown early."""

    empty_text = _("Channels, keys and models that keep failing are listed here until they are tried again.")
    list_display = ("channel", "api_key", "model", "because", "detail", "opened", "since_label", "returns")
    list_filter = (KindFilter, "channel")
    list_select_related = ("channel", "api_key", "model")
    search_fields = ("channel__name", "model__name")
    actions = ("try_again_now",)

    @display(description=_("because"), ordering="kind")
    def because(self, row: Cooldown) -> str:
        kind = BY_WORD.get(row.kind)
        return str(_(kind.text)) if kind is not None else row.kind

    @display(description=_("since"), ordering="since")
    def since_label(self, row: Cooldown) -> str:
        return format_time(row.since)

    @display(description=_("next try"), ordering="until")
    def returns(self, row: Cooldown) -> str:
        if row.api_key is not None and row.api_key.auto_disabled:
            return str(_("after a passing test of the key"))
        return str(_("with the next request")) if row.until <= clock.now() else format_time(row.until)

    @admin.action(description=_("Try again now"), permissions=["end"])
    def try_again_now(self, request: HttpRequest, rows: QuerySet[Cooldown]) -> None:
        count = cooldowns.end_cooldowns(list(rows.select_related("channel")), request.user, request_ip(request))
        self.message_user(
            request,
            _("%(count)s circuit(s) closed: the next request may use them again, on every worker.") % {"count": count},
            messages.SUCCESS,
        )

    def has_end_permission(self, request: HttpRequest) -> bool:
        return may(request.user, "relay.change_channel")
