"""Admin pages of incidents and of the error catalogue."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import translation
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, display
from relay.admin.forms import IncidentForm
from relay.error_texts import WHO, entries
from relay.models import ErrorText, Incident


@admin.register(Incident)
class IncidentAdmin(BaseAdmin):
    """Incidents and maintenance. They are on the status page as soon as they are saved."""

    form = IncidentForm
    list_display = ("title", "severity", "state", "started_at", "resolved_at")
    list_filter = ("severity",)
    search_fields = ("title", "text")
    autocomplete_fields = ("affected",)
    actions = ("resolve",)

    @display(description=_("state"), label={"open": "danger", "over": "success"})
    def state(self, incident: Incident) -> tuple[str, Any]:
        return ("open", _("goes on")) if incident.resolved_at is None else ("over", _("over"))

    @admin.action(description=_("It is over"), permissions=["change"])
    def resolve(self, request: HttpRequest, rows: QuerySet[Incident]) -> None:
        from portal.lib import clock

        found = [row for row in rows if row.resolved_at is None]
        for row in found:
            row.resolved_at = clock.now()
            row.save()
            self.log_change(request, row, "resolved")
        self.message_user(request, _("%(n)d incident(s) are over.") % {"n": len(found)})


@admin.register(ErrorText)
class ErrorTextAdmin(BaseAdmin):
    """The error catalogue: what each error code means and what to do about it.

    Texts can be replaced for each language.
    """

    rights_title = _("texts of the error catalogue")
    list_display = ("code", "language", "meaning", "remedy")
    search_fields = ("code", "meaning", "remedy")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the whole catalogue with the texts in force in one language."""
        if not self.has_view_permission(request):
            return super().changelist_view(request, extra_context)
        codes = dict(settings.LANGUAGES)
        asked = request.GET.get("language", "")
        language = asked if asked in codes else (translation.get_language() or "en")
        with translation.override(language):
            found = [(entry, str(WHO[entry.who])) for entry in entries()]
        own = dict(ErrorText.objects.filter(Q(language=language)).values_list("code", "pk"))
        context = {
            **self.admin_site.each_context(request),
            "title": _("Error catalogue"),
            "opts": self.model._meta,
            "language": language,
            "languages": settings.LANGUAGES,
            "entries": [(entry, who, own.get(entry.code)) for entry, who in found],
            "may_change": self.has_change_permission(request),
            "may_add": self.has_add_permission(request),
        }
        return render(request, "admin/relay/errortext/catalogue.html", context)
