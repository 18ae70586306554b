"""The admin page of redemption codes."""

from __future__ import annotations

import csv
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

from django import forms
from django.contrib import admin, messages
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin.base import BaseAdmin, action, display, request_ip
from accounts.models import AuditEvent
from portal.lib import clock, money
from portal.lib.crypto import Undecryptable
from relay.billing.redemption import (
    MAX_CODES,
    create_codes,
    decrypt_codes,
    disable_code,
    disable_codes,
    find_code,
    is_whole_code,
)
from relay.models import RedemptionBatch, RedemptionCode
from relay.models.fields import UsdField

_STATES: Final = {
    "open": ("good", _("open")),
    "redeemed": ("", _("redeemed")),
    "disabled": ("bad", _("disabled")),
    "expired": ("warn", _("expired")),
}


class RedemptionBatchForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A new batch of redemption codes."""

    usd = UsdField(
        least=Decimal("0.01"),
        most=1_000_000,
        decimal_places=2,
        label=_("USD of each code"),
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
    )

    class Meta:
        model = RedemptionBatch
        fields = ("name", "count", "expires_at")

    def clean_expires_at(self) -> datetime | None:
        return _later(self.cleaned_data["expires_at"])

    def clean_count(self) -> int:
        count: int = self.cleaned_data["count"]
        if not 1 <= count <= MAX_CODES:
            raise forms.ValidationError(_("A batch has 1 to %(most)d codes.") % {"most": MAX_CODES})
        return count


class ExistingBatchForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A batch of redemption codes that was made before."""

    def clean_expires_at(self) -> datetime | None:
        return (
            _later(self.cleaned_data["expires_at"]) if "expires_at" in self.changed_data else self.instance.expires_at
        )


def _later(at: datetime | None) -> datetime | None:
    if at is not None and at <= clock.now():
        raise forms.ValidationError(
            _("This time is past: the codes would be worthless. To end codes, disable what is left.")
        )
    return at


@admin.register(RedemptionBatch)
class RedemptionBatchAdmin(BaseAdmin):
    """Batches of redemption codes.

    The codes are stored encrypted; only those who may add batches can see or export them.
    """

    list_display = ("name", "amount_usd", "count", "redeemed", "expires_at", "created_at", "created_by")
    list_select_related = ("created_by",)
    search_fields = ("name", "codes__hint")
    search_help_text = _("Names of batches, and codes: whole ones, or their beginning.")
    actions_list: ClassVar[Any] = ("find_code",)
    actions_detail: ClassVar[Any] = ("show_codes", "export_codes", "disable_codes")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(
            request, obj, change, form=RedemptionBatchForm if obj is None else ExistingBatchForm, **kwargs
        )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return (
            (
                None,
                {
                    "fields": ("name", ("usd", "count"), "expires_at")
                    if obj is None
                    else ("name", "amount_usd", "count", "expires_at", "created_at", "created_by")
                },
            ),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return () if obj is None else ("amount_usd", "count", "created_at", "created_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RedemptionBatch]:
        rows: QuerySet[RedemptionBatch] = super().get_queryset(request)
        return rows.annotate(redeemed_count=Count("codes", filter=Q(codes__redeemed_at__isnull=False)))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Forbid deletion: codes are disabled instead, since the ledger refers to them."""
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list or, when one whole code is searched for, that code and no other."""
        typed = request.GET.get("q", "")
        if self.has_view_permission(request) and is_whole_code(typed):
            return self._code_page(request, find_code(typed), wrong=True)
        return super().changelist_view(request, extra_context)

    @action(description=_("Find a code"), url_path="find", icon="search", permissions=["view"])
    def find_code(self, request: HttpRequest) -> HttpResponse:
        """Find one code that somebody typed, and disable it. It is posted, so that no address has it."""
        if request.method != "POST":
            return self._code_page(request, None)
        if "disable" not in request.POST:
            return self._code_page(request, find_code(request.POST.get("code", "")), wrong=True)
        if not self.has_change_permission(request):
            raise PermissionDenied
        try:  # signed, so that only who has typed a code can name it
            pk = signing.loads(request.POST["disable"], salt=RedemptionCode.PURPOSE)
        except signing.BadSignature:
            return self._code_page(request, None, wrong=True)
        code = get_object_or_404(RedemptionCode.objects.select_related("batch", "redeemed_by"), pk=pk)
        if disable_code(code, actor=request.user, ip=request_ip(request)):
            self.message_user(request, _("The code %(code)s is disabled.") % {"code": code}, messages.SUCCESS)
        else:
            self.message_user(request, _("The code %(code)s was not open any more.") % {"code": code}, messages.WARNING)
        code.refresh_from_db()
        return self._code_page(request, code)

    def _code_page(self, request: HttpRequest, code: RedemptionCode | None, wrong: bool = False) -> HttpResponse:
        """Show a code, and the form to find one. `wrong`: one was typed."""
        state = code.state() if code is not None else ""
        context = {
            **self.admin_site.each_context(request),
            "title": _("Find a code"),
            "opts": self.model._meta,
            "cl": None,
            "code": code,
            "state": _STATES.get(state),
            "amount": money.exact(code.batch.amount) if code is not None else "",
            "wrong": wrong and code is None,
            "signed": signing.dumps(code.pk, salt=RedemptionCode.PURPOSE)
            if code is not None and state == "open" and self.has_change_permission(request)
            else "",
        }
        response = render(
            request, "admin/relay/redemptionbatch/find.html", context, status=422 if context["wrong"] else 200
        )
        response["Cache-Control"] = "no-store"
        return response

    def has_secret_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_add_permission(request)

    @display(description=_("each"))
    def amount_usd(self, batch: RedemptionBatch) -> str:
        return money.exact(batch.amount)

    @display(description=_("redeemed"))
    def redeemed(self, batch: Any) -> str:
        return str(_("%(n)d of %(all)d")) % {"n": batch.redeemed_count, "all": batch.count}

    def save_model(self, request: HttpRequest, obj: RedemptionBatch, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            if form.changed_data:
                AuditEvent.write("codes.change", request.user, obj, request_ip(request))
            return
        batch, _ = create_codes(
            obj.name,
            money.nano(form.cleaned_data["usd"]),
            obj.count,
            actor=request.user,
            expires_at=obj.expires_at,
            ip=request_ip(request),
        )
        obj.pk, obj.amount, obj.created_by = batch.pk, batch.amount, batch.created_by

    def response_add(
        self, request: HttpRequest, obj: RedemptionBatch, post_url_continue: str | None = None
    ) -> HttpResponse:
        self.message_user(
            request,
            _("%(count)s code(s) of %(amount)s made.") % {"count": obj.count, "amount": money.exact(obj.amount)},
            messages.SUCCESS,
        )
        return redirect("admin:relay_redemptionbatch_show_codes", obj.pk)

    @action(description=_("Show the codes"), url_path="codes", icon="visibility", permissions=["secret"])
    def show_codes(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        batch = get_object_or_404(RedemptionBatch, pk=object_id)
        rows = self._decrypted(request, batch)
        if rows is None:
            return redirect("admin:relay_redemptionbatch_change", batch.pk)
        AuditEvent.write("codes.show", request.user, batch, request_ip(request))
        context = {
            **self.admin_site.each_context(request),
            "title": _("Codes “%(batch)s”") % {"batch": batch},
            "opts": self.model._meta,
            "object": batch,
            "amount": money.exact(batch.amount),
            "rows": rows[:1000],
        }
        response = render(request, "admin/relay/redemptionbatch/codes.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @action(description=_("Export as CSV"), url_path="export", icon="download", permissions=["secret"])
    def export_codes(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        batch = get_object_or_404(RedemptionBatch, pk=object_id)
        rows = self._decrypted(request, batch)
        if rows is None:
            return redirect("admin:relay_redemptionbatch_change", batch.pk)
        AuditEvent.write("codes.export", request.user, batch, request_ip(request))
        response = HttpResponse(
            content_type="text/csv; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="codes-{batch.pk}.csv"',
                "Cache-Control": "no-store",
            },
        )
        writer = csv.writer(response)
        writer.writerow(("code", "usd", "state", "redeemed_by", "redeemed_at", "valid_until"))
        for code, secret in rows:
            redeemed = code.redeemed_at.isoformat() if code.redeemed_at else ""
            writer.writerow(
                (
                    secret,
                    money.plain(batch.amount),
                    code.state(),
                    code.redeemed_by or "",
                    redeemed,
                    batch.expires_at.isoformat() if batch.expires_at else "",
                )
            )
        return response

    @action(description=_("Disable what is left"), url_path="disable", icon="block", permissions=["change"])
    def disable_codes(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        batch = get_object_or_404(RedemptionBatch, pk=object_id)
        if request.method != "POST":
            return self.confirm(
                request,
                batch,
                _("Disable “%(batch)s”") % {"batch": batch},
                _("Codes that nobody has redeemed yet become worthless."),
                _("Disable"),
                danger=True,
            )
        count = disable_codes(batch, actor=request.user, ip=request_ip(request))
        self.message_user(request, _("%(count)s code(s) disabled.") % {"count": count}, messages.SUCCESS)
        return redirect("admin:relay_redemptionbatch_change", batch.pk)

    def _decrypted(self, request: HttpRequest, batch: RedemptionBatch) -> Any:
        """Return the codes of a batch in clear. None, with a message to the person, when they cannot be decrypted."""
        try:
            return decrypt_codes(batch)
        except Undecryptable:
            self.message_user(
                request, _("The codes cannot be decrypted with the configured encryption keys."), messages.ERROR
            )
            return None
