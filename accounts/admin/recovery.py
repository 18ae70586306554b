"""The page with which staff help somebody to sign in: what stands in the way, what can be done, who changed what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from allauth.mfa.models import Authenticator
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext_lazy as _

from accounts import audit_words
from accounts.admin.base import action, format_time
from accounts.admin.user import UserAdmin, keys_ended
from accounts.models import AuditEvent, User
from accounts.rights import may
from accounts.sign_in import recovery

LIMIT_WORDS: Final[Mapping[str, Any]] = {
    "password": _("Too many wrong passwords: limited until %(until)s."),
    "code": _("Too many wrong codes of a second factor: limited until %(until)s."),
    "login-code": _("Too many wrong codes from a mail: limited until %(until)s."),
    "reset": _("Too many mails for a new password: limited until %(until)s."),
    "code-mail": _("Too many mails with a code to sign in: limited until %(until)s."),
}


FAILED_WORDS: Final[Mapping[str, Any]] = {
    "password": _("Wrong passwords that are counted now: %(n)d."),
    "code": _("Wrong codes of a second factor that are counted now: %(n)d."),
    "login-code": _("Wrong codes from a mail that are counted now: %(n)d."),
}


class HelpedUserAdmin(UserAdmin):
    """Users, and help for those who cannot sign in. It needs a right of its own, and no right to change users."""

    rights_words = {
        **UserAdmin.rights_words,
        "help_sign_in": _("Help to sign in: mail links for a new password, remove second factors, lift limits, invite"),
    }

    def has_help_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and may(request.user, recovery.HELP)

    def has_helping_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Whether somebody may help, and may help this user. Asked for each action of a page, looked up once."""
        if object_id is None or not self.has_help_permission(request):
            return self.has_help_permission(request)
        known: dict[str, bool] = request.__dict__.setdefault("may_help", {})
        key = str(object_id)
        if key not in known:
            user = self.model._default_manager.filter(pk=key).first() if key.isdecimal() and len(key) < 19 else None
            known[key] = user is None or not recovery.why_not(request.user, user)
        return known[key]

    @action(description=_("Sign-in"), url_path="sign-in", icon="key", permissions=["help"])
    def sign_in_help(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show what stands in the way of a sign-in, and what was changed about it."""
        user = get_object_or_404(User, pk=object_id)
        why_not = recovery.why_not(request.user, user)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Sign-in of %(name)s") % {"name": user},
            "opts": self.model._meta,
            "object": user,
            "why_not": why_not,
            "address": recovery.reset_address(user),
            "why_no_mail": recovery.why_no_mail(user),
            "factors": [one.get_type_display() for one in Authenticator.objects.filter(user=user)],
            "limits": [LIMIT_WORDS[one.kind] % {"until": format_time(one.until)} for one in recovery.limits_of(user)],
            "failures": [FAILED_WORDS[kind] % {"n": n} for kind, n in recovery.failures_of(user)],
            "events": [_line(event) for event in recovery.events_of(user)],
            "sees_user": self.has_view_permission(request),
        }
        return render(request, "admin/accounts/user/sign_in.html", context)

    @action(description=_("Mail a link for a new password"), url_path="reset-mail", permissions=["helping"])
    def send_reset_mail(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        user = self._helped(request, object_id)
        if why := recovery.why_no_mail(user):
            self.message_user(request, why, messages.ERROR)
            return redirect("admin:accounts_user_sign_in_help", user.pk)
        address = {"address": recovery.reset_address(user), "name": user}
        if request.method != "POST":
            text = _(
                "A link is mailed to %(address)s, the address of %(name)s. Whoever opens it there can set a new "
                "password; a second factor is asked for all the same. Staff keys of this person end with the old "
                "password."
            )
            return self.confirm(request, user, _("Mail a link for a new password"), text % address, _("Send the mail"))
        if recovery.send_reset_mail(request, user):
            self.message_user(request, _("The link was mailed to %(address)s.") % address, messages.SUCCESS)
        else:
            text = _("The mail server did not take the mail. The portal's log says why.")
            self.message_user(request, text, messages.ERROR)
        return redirect("admin:accounts_user_sign_in_help", user.pk)

    @action(description=_("Remove second factors"), url_path="factors", permissions=["helping"])
    def remove_factors(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Remove the second factors of a user who has lost them."""
        user = self._helped(request, object_id)
        if request.method != "POST":
            text = _(
                "%(name)s has %(n)d second factor(s), recovery codes included. Without them the password alone signs "
                "in: make sure who asks. Staff keys of this person are revoked."
            ) % {"name": user, "n": Authenticator.objects.filter(user=user).count()}
            title = _("Remove the second factors of %(name)s") % {"name": user}
            return self.confirm(request, user, title, text, _("Remove them"), danger=True)
        count, ended = recovery.remove_factors(request, user)
        self.message_user(
            request, _("%(n)d second factor(s) of %(name)s removed.") % {"n": count, "name": user}, messages.SUCCESS
        )
        if ended:
            self.message_user(request, keys_ended(user, ended), messages.WARNING)
        return redirect("admin:accounts_user_sign_in_help", user.pk)

    @action(description=_("Lift the limits"), url_path="lift-limits", permissions=["helping"])
    def lift_limits(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        user = self._helped(request, object_id)
        if request.method != "POST":
            text = _(
                "Attempts to sign in to the account of %(name)s are counted anew, those of strangers, too. What one "
                "address may try is counted apart and ends by itself within five minutes."
            ) % {"name": user}
            return self.confirm(request, user, _("Lift the limits of %(name)s") % {"name": user}, text, _("Lift them"))
        recovery.lift_limits(request, user)
        self.message_user(request, _("%(name)s can try again now.") % {"name": user}, messages.SUCCESS)
        return redirect("admin:accounts_user_sign_in_help", user.pk)

    def _helped(self, request: HttpRequest, object_id: Any) -> User:
        """Return the user who is helped. Raises PermissionDenied for those whom this person may not help."""
        user = get_object_or_404(User, pk=object_id)
        if not recovery.may_help(request.user, user):
            raise PermissionDenied(recovery.why_not(request.user, user))
        return user


def _line(event: AuditEvent) -> tuple[AuditEvent, str, str]:
    """An entry of the log, with what was done and what was changed, in words."""
    labels = [audit_words.field_label("user", name) for name in recovery.changed_fields(event)]
    return event, audit_words.action_label(event.action), ", ".join(labels)
