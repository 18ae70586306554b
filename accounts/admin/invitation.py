"""Admin pages of invitations: links with which people can sign up."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from allauth.account.utils import filter_users_by_email
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, action, display, request_ip
from accounts.admin.user import roles_in
from accounts.models import AuditEvent, Invitation
from accounts.rights import may
from accounts.sign_in import invitations
from accounts.sign_in.recovery import HELP
from accounts.sign_in.sign_up import taken_by_others
from portal.lib import clock

_DAYS: Final = 14  # that an invitation holds which was renewed, or made by who only helps to sign in


class InvitationForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    class Meta:
        model = Invitation
        fields = ("note", "email", "groups", "uses", "expires_at")

    def clean_email(self) -> str:
        """Refuse an address that has an account: whoever follows the link there could not sign up."""
        typed = str(self.cleaned_data["email"] or "")
        if not typed or "email" not in self.changed_data:
            return typed
        if taken_by_others(typed, list(filter_users_by_email(typed))):
            raise forms.ValidationError(
                _("There is an account with this address already. If its owner cannot sign in, help on its page.")
            )
        return typed

    def clean_expires_at(self) -> datetime | None:
        ends: datetime | None = self.cleaned_data["expires_at"]
        if ends is not None and "expires_at" in self.changed_data and ends <= clock.now():
            raise forms.ValidationError(_("This time is past: nobody could use the invitation."))
        return ends


@admin.register(Invitation)
class InvitationAdmin(BaseAdmin):
    """Links with which people can sign up, once or several times."""

    form = InvitationForm

    empty_text = _("Links with which people sign up, once or several times.")
    list_display = ("note", "email", "made", "state", "expires_at", "created_by", "created_at")
    list_select_related = ("created_by",)
    search_fields = ("note", "email")
    autocomplete_fields = ("groups",)
    fields = ("note", "email", "groups", "uses", "expires_at")
    actions_detail: ClassVar[Any] = ("renew",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(super().has_view_permission(request, obj)) or may(request.user, HELP)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(super().has_module_permission(request)) or may(request.user, HELP)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(super().has_add_permission(request)) or may(request.user, HELP)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Let who only helps to sign in invite one person, by address, into no group."""
        if obj is None and not super().has_add_permission(request):
            return ((None, {"fields": ("note", "email")}),)
        return super().get_fieldsets(request, obj)

    def why_not_renewed(self, request: HttpRequest, invitation: Invitation) -> str:
        """Return why somebody may not renew an invitation, empty when they may: they get its link."""
        if not may(request.user, "auth.change_group") and invitation.groups.filter(permissions__isnull=False).exists():
            return gettext("It leads into a group with rights. Only somebody who hands out such groups can renew it.")
        if invitation.used >= invitation.uses and not self.has_change_permission(request, invitation):
            return gettext("It is used up. Make a new one, or ask somebody who may change invitations.")
        return ""

    def has_renew_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_change_permission(request) or may(request.user, HELP)

    @action(description=_("Renew and send"), url_path="renew", icon="forward_to_inbox", permissions=["renew"])
    def renew(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Give an invitation a new link, for one that was lost or has expired. The old link ends."""
        invitation = get_object_or_404(Invitation, pk=object_id)
        if why := self.why_not_renewed(request, invitation):
            self.message_user(request, why, messages.ERROR)
            return redirect("admin:accounts_invitation_changelist")
        if request.method != "POST":
            text = _(
                "“%(name)s” gets a new link, which is shown once, and mailed if it is for an address. The old link "
                "ends. One that has expired, or expires sooner, holds for %(days)d days from now."
            ) % {"name": invitation, "days": _DAYS}
            return self.confirm(request, invitation, _("Renew “%(name)s”") % {"name": invitation}, text, _("Renew"))
        with transaction.atomic():
            invitation = Invitation.objects.select_for_update().get(pk=invitation.pk)
            code, until = invitation.new_code(), clock.now() + timedelta(days=_DAYS)
            if invitation.expires_at is not None:
                invitation.expires_at = max(invitation.expires_at, until)
            invitation.uses = max(invitation.uses, invitation.used + 1)
            invitation.save()
            AuditEvent.write("invitation.renew", request.user, invitation, request_ip(request))
        return self._link_page(request, invitation, code)

    @display(description=_("accounts"))
    def made(self, invitation: Invitation) -> str:
        return f"{invitation.used} / {invitation.uses}"

    @display(description=_("state"), label={"open": "success", "over": ""})
    def state(self, invitation: Invitation) -> tuple[str, Any]:
        return ("open", _("open")) if invitation.open() else ("over", _("used up or expired"))

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Offer groups with permissions only to people who may assign permissions."""
        form: Any = super().get_form(request, obj, change, **kwargs)
        if "email" in form.base_fields and "groups" not in form.base_fields:
            form.base_fields["email"].required = True
            form.base_fields["email"].help_text = _("Only for an account with this address.")
        if "groups" in form.base_fields and not may(request.user, "auth.change_group"):
            form.base_fields["groups"].queryset = form.base_fields["groups"].queryset.filter(permissions=None)
        return form

    def save_model(self, request: HttpRequest, obj: Invitation, form: Any, change: bool) -> None:
        if not change:
            request.invitation = (obj, obj.new_code())  # type: ignore[attr-defined]  # shown by the next page alone
            obj.created_by = get_user_model().objects.get(pk=request.user.pk or 0)
            if "uses" not in form.fields:
                obj.expires_at = clock.now() + timedelta(days=_DAYS)
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if roles := roles_in(form.instance.groups.all()):
            said = _(
                "Who signs up with this invitation is put into %(roles)s, but is not staff, and its rights count for "
                "staff only: tick “staff status” on the page of the new user."
            )
            self.message_user(request, said % {"roles": ", ".join(roles)}, messages.WARNING)

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Mail a new invitation when its transaction has ended: others would wait for the mail server."""
        response = super().changeform_view(request, *args, **kwargs)
        made: tuple[Invitation, str] | None = getattr(request, "invitation", None)
        return response if made is None or response.status_code != 302 else self._link_page(request, *made)

    def _link_page(self, request: HttpRequest, obj: Invitation, code: str) -> HttpResponse:
        """Show the link of an invitation, once, and mail it if it is for an address."""
        inviter = get_user_model().objects.get(pk=request.user.pk or 0)
        mailed = invitations.mail_invitation(request, obj, code, inviter)
        link = invitations.link_of(request, code)
        context = {
            **self.admin_site.each_context(request),
            "title": str(_("Invitation")),
            "opts": self.model._meta,
            "object": obj,
            "link": link,
            "mailed": mailed,
            "mails": settings.MAILS,
            "signup": settings.CONFIG.signup,
        }
        response = render(request, "admin/accounts/invitation/link.html", context)
        response["Cache-Control"] = "no-store"
        return response
