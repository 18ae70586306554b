from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from allauth.account.utils import filter_users_by_email
from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext, gettext_noop, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.forms import AdminPasswordChangeForm, UnfoldReadOnlyPasswordHashWidget, UserChangeForm, UserCreationForm

from accounts.admin.base import BaseAdmin, UncountedPaginator, display, request_ip, without_fields
from accounts.models import AuditEvent, StaffKey, User
from accounts.models.counts import count_of
from accounts.rights import may, may_everything
from accounts.sign_in.recovery import tell_owner
from accounts.sign_in.sign_up import taken_by_others


def may_assign_permissions(person: Any) -> bool:
    """Whether somebody may assign groups with permissions: those who may change what such groups may do."""
    return may(person, "auth.change_group")


def keys_ended(user: User, count: int) -> str:
    """What staff are told of the staff keys of somebody whom they helped back in."""
    said = ngettext("%(n)d staff key of %(name)s was revoked.", "%(n)d staff keys of %(name)s were revoked.", count)
    return said % {"n": count, "name": user}


def roles_in(groups: Iterable[Group]) -> list[str]:
    """Return the names of those groups that carry rights."""
    return [group.name for group in groups if group.permissions.exists()]


class PasswordState(UnfoldReadOnlyPasswordHashWidget):
    """Shows that there is a password and its algorithm, without the parts of hash and salt that Django shows."""

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(name, value, attrs)
        for entry in context["summary"]:
            if entry.get("value"):
                context["summary"] = [
                    {"label": _("Set, stored as a hash (%(algorithm)s).") % {"algorithm": entry["value"]}}
                ]
                break
        return context


class OneAddressForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """Takes an address that no other account has, in any letter case: people sign in with it."""

    def clean_email(self) -> str:
        typed = str(self.cleaned_data.get("email") or "")
        others = [user for user in filter_users_by_email(typed) if user.pk != self.instance.pk] if typed else []
        if "email" in self.changed_data and taken_by_others(typed, others):
            raise forms.ValidationError(
                _("Another account has this address. Sign-in by address needs it to be of one account.")
            )
        return typed


class NewUserForm(OneAddressForm, UserCreationForm):
    """The form of a new user."""


class UserForm(OneAddressForm, UserChangeForm):
    made_staff = ""  # the roles for which somebody was made staff

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "password" in self.fields:
            self.fields["password"].widget = PasswordState()

    def clean(self) -> dict[str, Any]:
        """Keep the last person in who may do everything: nobody could enter the administration any more."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        everything = {"is_active": True, "is_staff": True, "is_superuser": True}
        lost = [name for name in everything if name in data and not data[name]]
        able = User.objects.filter(**everything)
        if lost and able.filter(pk=self.instance.pk).exists() and not able.exclude(pk=self.instance.pk).exists():
            self.add_error(
                lost[0], _("This is the only superuser who can sign in. Make another one first, then change this one.")
            )
        self._check_role(data)
        return data

    def _check_role(self, data: dict[str, Any]) -> None:
        """Make somebody who is given a role staff: its rights count for staff only."""
        roles = roles_in(data.get("groups") or ()) + ([gettext("superuser")] if data.get("is_superuser") else [])
        if not roles or "is_staff" not in self.fields or data.get("is_staff"):
            return
        if "is_staff" in self.changed_data:
            said = _("The rights of %(roles)s count for staff only. To end them, take this user out of it, too.")
            self.add_error("is_staff", said % {"roles": ", ".join(roles)})
        elif {"groups", "is_superuser"} & set(self.changed_data):
            data["is_staff"] = True
            self.made_staff = ", ".join(roles)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, BaseAdmin):  # type: ignore[type-arg, misc]  # get_form
    """Users. Disabling a user disables all of the user's tokens within a second."""

    form, add_form, change_password_form = UserForm, NewUserForm, AdminPasswordChangeForm
    list_display = ("username", "email", "active", "staff", "group_names", "token_count", "last_login")
    list_filter = ("is_active", "is_staff", "groups")
    actions = ("enable_users", "disable_users")
    rights_words: ClassVar[Any] = {"view_as": _("Look at the portal as a user sees it, without changing anything")}
    paginator = UncountedPaginator
    search_fields = ("username", "email", "first_name", "last_name")
    ordering = ("username",)
    autocomplete_fields = ("groups",)
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "password", "email", ("first_name", "last_name"), "notes")}),
        (_("What they may do"), {"fields": ("is_active", "groups", "is_staff", "is_superuser")}),
        (_("Pages"), {"fields": (("language", "time_zone"),)}),
        (_("Dates"), {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"classes": ("wide",), "fields": ("username", "email", "password1", "password2")}),)
    readonly_fields = ("last_login", "date_joined")

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        rows: QuerySet[User] = super().get_queryset(request)
        tokens = User.tokens.rel.related_model._default_manager.filter(revoked_at__isnull=True)  # the relay's
        return rows.prefetch_related("groups").annotate(live_tokens=count_of(tokens, "user"))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Show fields of permissions only to superusers and to those who may assign them.

        Staff who may edit users must not promote themselves, not even through a group with permissions.
        """
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or may_everything(request.user):
            return fieldsets
        if may_assign_permissions(request.user):
            return without_fields(fieldsets, {"is_superuser"})
        has_permissions = obj.is_staff or obj.groups.filter(permissions__isnull=False).exists()
        hidden = {"is_staff", "is_superuser"} | ({"groups"} if has_permissions else set())
        return without_fields(fieldsets, hidden)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Adding needs the right to change, too: the rest of a new user is filled in on the user's page."""
        return bool(super().has_add_permission(request)) and may(request.user, "accounts.change_user")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Let staff edit users and themselves. Other staff need more permissions, superusers a superuser.

        Otherwise staff could set the password of somebody who may do more.
        """
        allowed = obj is None or obj == request.user or may_everything(request.user)
        if not allowed and (obj.is_superuser or (obj.is_staff and not may_assign_permissions(request.user))):
            return False
        return bool(super().has_change_permission(request, obj))

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Offer groups with permissions only to those who may assign permissions."""
        field: Any = super().formfield_for_manytomany(db_field, request, **kwargs)
        if db_field.name == "groups" and field is not None and not may_assign_permissions(request.user):
            field.queryset = field.queryset.filter(permissions=None)
        return field

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """Set a password, which ends the staff keys of its owner, who is told by mail."""
        with transaction.atomic():
            response: HttpResponse = super().user_change_password(request, id, form_url)
            done = request.method == "POST" and response.status_code == 302
            user = User.objects.filter(pk=id).first() if done else None
            if user is None:
                return response
            ended = StaffKey.revoke_all(user, request.user, request_ip(request))
            AuditEvent.write("password.change", request.user, user, request_ip(request))
        said = gettext_noop("Your password was changed.")
        if ended:
            said = gettext_noop("Your password was changed, and your staff keys were revoked.")
            self.message_user(request, keys_ended(user, ended), messages.WARNING)
        tell_owner(request, user, said)
        return response

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Save a user. One whose address is changed is told so at the old one."""
        before = User.objects.filter(pk=obj.pk).values_list("email", flat=True).first() if change else None
        super().save_model(request, obj, form, change)
        if made_for := getattr(form, "made_staff", ""):
            said = _("%(user)s is staff now, since the rights of %(roles)s count for staff only.")
            self.message_user(request, said % {"user": obj, "roles": made_for})
        if before and before != obj.email:
            tell_owner(request, obj, gettext_noop("Your e-mail address was changed."), before)

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Say of somebody who is in a role without being staff that its rights do not count."""
        user = context.get("original")
        if request.method == "GET" and isinstance(user, User) and not user.is_staff:
            roles = roles_in(user.groups.all()) + ([gettext("superuser")] if user.is_superuser else [])
            if roles:
                said = _("%(user)s is not staff, so the rights of %(roles)s do not count.")
                self.message_user(request, said % {"user": user, "roles": ", ".join(roles)}, messages.WARNING)
        return super().render_change_form(request, context, *args, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Forbid deletion: users are disabled instead, so that their usage keeps its owner."""
        return False

    @admin.action(description=_("Enable"), permissions=["change"])
    def enable_users(self, request: HttpRequest, rows: QuerySet[User]) -> None:
        found = self.switch(request, self._changeable(request, rows), "is_active", True, "user.enable")
        self.message_user(request, _("%(n)d user(s) enabled.") % {"n": len(found)}, messages.SUCCESS)

    @admin.action(description=_("Disable, ending what runs"), permissions=["change"])
    def disable_users(self, request: HttpRequest, rows: QuerySet[User]) -> None:
        """Disable users. Their tokens are refused and running requests end within a second, on every worker."""
        chosen = self._changeable(request, rows)
        others = chosen.exclude(pk=request.user.pk or 0)
        if chosen.filter(pk=request.user.pk or 0).exists():
            self.message_user(request, _("You cannot disable yourself. Ask another administrator."), messages.WARNING)
        found = self.switch(request, others, "is_active", False, "user.disable")
        if not found:
            return
        self.message_user(
            request,
            _("%(n)d user(s) disabled; what they had running is being ended.") % {"n": len(found)},
            messages.SUCCESS,
        )

    def _changeable(self, request: HttpRequest, rows: QuerySet[User]) -> QuerySet[User]:
        """Return those of the chosen users that this person may change."""
        return User.objects.filter(pk__in=[user.pk for user in rows if self.has_change_permission(request, user)])

    @display(description=_("active"), boolean=True, ordering="is_active")
    def active(self, user: User) -> bool:
        return user.is_active

    @display(description=_("staff"), boolean=True, ordering="is_staff")
    def staff(self, user: User) -> bool:
        return user.is_staff

    @display(description=_("groups"))
    def group_names(self, user: User) -> str:
        return ", ".join(group.name for group in user.groups.all()) or "—"

    @display(description=_("tokens"), ordering="live_tokens")
    def token_count(self, user: Any) -> int:
        return int(user.live_tokens)
