"""Base classes and helpers of the admin pages of this portal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

from django import forms
from django.apps import apps
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import IntegerField, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import formats, timezone
from django.utils.functional import cached_property
from django.utils.text import capfirst
from unfold import decorators
from unfold.admin import ModelAdmin as UnfoldModelAdmin

from accounts.admin.auditing import AuditedAdmin
from accounts.admin.lookups import check_lookup, read_initial
from accounts.merging import MergingModelFormSet, merging
from accounts.models import AuditEvent
from accounts.rights import may
from portal.lib import clock
from portal.lib.texts import whole_number

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin as TypedModelAdmin
else:

    class TypedModelAdmin(UnfoldModelAdmin):
        def __class_getitem__(cls, _: Any) -> type:
            return cls


F = TypeVar("F", bound=Callable[..., Any])
_AT_ONCE: Final = 500  # rows in one statement: databases limit its parameters
# Columns of hashes and sealed secrets. A filter on one, such as `?digest__startswith=`, would tell it piece by piece.
_SECRETS: Final = frozenset(
    ("data", "digest", "key", "password", "sealed", "sealed_secret", "secret", "session_data", "token", "token_secret")
)


def display(description: Any = None, **options: Any) -> Callable[[F], F]:
    """Unfold's decorator of columns, typed so that it takes lazy translations."""
    return cast("Callable[[F], F]", decorators.display(description=description, **options))


def action(description: Any, **options: Any) -> Callable[[F], F]:
    """Unfold's decorator of actions, typed so that it takes lazy translations."""
    make: Any = decorators.action
    return cast("Callable[[F], F]", make(description=description, **options))


class BaseAdmin(AuditedAdmin, TypedModelAdmin[Any]):
    """Unfold's admin page. It never counts the whole table just to show that number beside the filtered count."""

    show_full_result_count = False
    empty_value_display = "—"
    list_per_page = 50
    list_max_show_all = 200
    compressed_fields = True
    warn_unsaved_form = True
    # Rights of the page's rows that are not plainly to see, add, change or delete them: sentences by codename.
    rights_words: ClassVar[Mapping[str, Any]] = {}
    # Fields, columns and filters that only people with a right of its own see, set and filter by, with that right.
    guarded_fields: ClassVar[Mapping[str, str]] = {}

    # What the rows are for, or how one comes, where there is none yet.
    empty_text: ClassVar[Any] = ""

    # Why some rows cannot be deleted, and what to do instead.
    instead_of_deleting: ClassVar[Any] = ""

    def hidden_fields(self, request: HttpRequest) -> frozenset[str]:
        """Return the guarded fields that somebody may not see."""
        return frozenset(name for name, right in self.guarded_fields.items() if not may(request.user, right))

    def concealed_in_log(self, request: HttpRequest, ids: Collection[str]) -> Mapping[str, frozenset[str]]:
        """Return the fields of rows whose values somebody may not read in the audit log, by id."""
        hidden = self.hidden_fields(request)
        return dict.fromkeys(ids, hidden) if hidden else {}

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets, hidden = super().get_fieldsets(request, obj), self.hidden_fields(request)
        return without_fields(fieldsets, hidden) if hidden else fieldsets

    def get_list_filter(self, request: HttpRequest) -> Any:
        hidden = self.hidden_fields(request)
        return [one for one in super().get_list_filter(request) if getattr(one, "parameter_name", one) not in hidden]

    def get_list_display(self, request: HttpRequest) -> Any:
        hidden = self.hidden_fields(request)
        return [one for one in super().get_list_display(request) if one not in hidden]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **{**kwargs, "form": merging(kwargs.get("form") or self.form)})

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Refuse filters on secrets and hidden fields, whatever a page's address says: answers tell what they are."""
        name = lookup.partition("__")[0]
        if any(field.name == name and not field.is_relation for field in self.model._meta.fields if name in _SECRETS):
            return False
        if name in self.hidden_fields(request):
            return False
        check_lookup(self.model, lookup, value)
        return bool(super().lookup_allowed(lookup, value, request))

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return read_initial(self.model, super().get_changeform_initial_data(request))

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        """Leave out what is no id among the rows that an action is for."""
        if isinstance(self.model._meta.pk, IntegerField):
            chosen = request.POST.copy()
            ids = [pk for pk in chosen.getlist(ACTION_CHECKBOX_NAME) if whole_number(pk) is not None]
            chosen.setlist(ACTION_CHECKBOX_NAME, ids)
            request.POST = chosen  # type: ignore[assignment]  # read-only by its type
        return super().response_action(request, queryset, *args, **kwargs)

    def get_changelist_form(self, request: HttpRequest, **kwargs: Any) -> Any:
        return super().get_changelist_form(request, **{"form": merging(forms.ModelForm), **kwargs})

    def get_changelist_formset(self, request: HttpRequest, **kwargs: Any) -> Any:
        return super().get_changelist_formset(request, **{"formset": MergingModelFormSet, **kwargs})

    def get_ordering(self, request: HttpRequest) -> Any:
        """The order of rows, also where sums of other tables are read along: the model's own does not hold there."""
        return super().get_ordering(request) or self.model._meta.ordering or ("pk",)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Read a row that is about to be saved when nobody else can change it any more."""
        found = super().get_object(request, object_id, from_field)
        if found is not None and request.method == "POST" and transaction.get_connection().in_atomic_block:
            self.model._base_manager.select_for_update().filter(pk=found.pk).first()
            found = super().get_object(request, object_id, from_field)
        return found

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Save rows that were edited in place when nobody else can change them any more."""
        if request.method != "POST" or "_save" not in request.POST or not self.list_editable:
            response: HttpResponse = super().changelist_view(request, extra_context)
            return response
        ids = [str(value) for name, value in request.POST.items() if name.startswith("form-") and name.endswith("-id")]
        with transaction.atomic():
            list(
                self.model._base_manager.select_for_update().filter(
                    pk__in=[int(pk) for pk in ids if pk.isdecimal() and len(pk) < 19]
                )
            )
            response = super().changelist_view(request, extra_context)
        return response

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Make the theme show the number of results only when a search or filter narrows the list.

        It shows it when two counts differ, of which `show_full_result_count` leaves out one.
        """
        changes: Any = super().get_changelist_instance(request)
        if not (changes.query or changes.has_active_filters) or getattr(changes.paginator, "capped", False):
            changes.full_result_count = changes.result_count
        return changes

    def confirm(
        self,
        request: HttpRequest,
        obj: Model,
        title: Any,
        text: Any,
        button: Any,
        danger: bool = False,
        *,
        wanted: str = "",
    ) -> HttpResponse:
        """Return a page that asks for confirmation of an action. It posts to the same URL, `wanted` along."""
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "text": text,
            "button": button,
            "danger": danger,
            "wanted": wanted,
            "object": obj,
            "opts": self.model._meta,
        }
        return render(request, "admin/confirm.html", context)

    def confirm_many(
        self, request: HttpRequest, rows: Collection[Model], title: Any, action: str, button: Any
    ) -> HttpResponse:
        """Return a page that asks for confirmation of an action of the list. It posts `confirmed` to the same URL."""
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.model._meta,
            "rows": rows,
            "action": action,
            "button": button,
        }
        return render(request, "admin/confirm_many.html", context)

    def may_go_along(self, request: HttpRequest) -> bool:
        """Whether rows of this page may be deleted with what they belong to, even if not by themselves."""
        return False

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Do not ask for permission to delete rows that go along, such as those that the portal writes itself."""
        found, counts, needed, protected = super().get_deleted_objects(objs, request)
        if protected and self.instead_of_deleting:
            self.message_user(request, self.instead_of_deleting, messages.WARNING)
        found, counts = _without_links(found), {what: n for what, n in counts.items() if what not in _link_names()}
        along = {
            str(model._meta.verbose_name)
            for model, page in self.admin_site._registry.items()
            if isinstance(page, BaseAdmin) and page.may_go_along(request)
        }
        return found, counts, {name for name in needed if str(name) not in along}, protected

    def switch(self, request: HttpRequest, rows: QuerySet[Any], field: str, value: bool, action: str) -> list[Any]:
        """Set a flag on the rows that have another value, and announce and audit it. Returns the changed rows.

        Costs the same few statements for 500 rows as for one.
        """
        manager, ip = self.model._default_manager, request_ip(request)
        values: dict[str, Any] = {field: value}
        if any(one.name == "updated_at" for one in self.model._meta.fields):
            values["updated_at"] = clock.now()
        with transaction.atomic():
            ids = list(rows.order_by().values_list("pk", flat=True))
            found: list[Any] = []
            for start in range(0, len(ids), _AT_ONCE):
                found += manager.filter(pk__in=ids[start : start + _AT_ONCE]).exclude(**{field: value})
            for start in range(0, len(found), _AT_ONCE):
                some = found[start : start + _AT_ONCE]
                manager.filter(pk__in=[row.pk for row in some]).update(**values)
                AuditEvent.objects.bulk_create([AuditEvent.entry(action, request.user, row, ip) for row in some])
        for row in found:
            setattr(row, field, value)
        return found


class ReadOnlyAdmin(BaseAdmin):
    """An admin page of rows that can be viewed only."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def may_go_along(self, request: HttpRequest) -> bool:
        return True


class UncountedPaginator(Paginator):  # type: ignore[type-arg]  # not generic at run time
    """A paginator for tables that are too long to count. It counts, and shows, at most `LIMIT` rows."""

    LIMIT = 5000
    template_name = "admin/uncounted.html"

    @property
    def capped(self) -> bool:
        """Whether there are more rows than the pages show."""
        return self._found > self.LIMIT

    @cached_property
    def count(self) -> int:
        return min(self._found, self.LIMIT)

    @cached_property
    def _found(self) -> int:
        rows: Any = self.object_list
        if isinstance(rows, QuerySet):
            return len(rows.order_by().values_list("pk", flat=True)[: self.LIMIT + 1])
        return len(rows)


def _links() -> list[Any]:
    """The tables that Django makes for many-to-many fields."""
    return [model for model in apps.get_models(include_auto_created=True) if model._meta.auto_created]


def _link_names() -> set[str]:
    return {str(model._meta.verbose_name_plural) for model in _links()}


def _without_links(found: list[Any]) -> list[Any]:
    """Leave out of what goes with a row the links to other rows, which have no name of their own."""
    names = tuple(f"{capfirst(model._meta.verbose_name)}: " for model in _links())
    kept: list[Any] = []
    for one in found:
        if isinstance(one, list):
            if below := _without_links(one):
                kept.append(below)
        elif not str(one).startswith(names):
            kept.append(one)
    return kept


def without_fields(fieldsets: Any, hidden: Collection[str]) -> Any:
    """Return fieldsets of the admin without some fields, whose names may be in tuples of one line."""
    kept = []
    for title, options in fieldsets:
        fields: list[Any] = []
        for one in options["fields"]:
            if isinstance(one, (list, tuple)):
                fields += [line] if (line := tuple(name for name in one if name not in hidden)) else []
            elif one not in hidden:
                fields.append(one)
        if fields:
            kept.append((title, {**options, "fields": tuple(fields)}))
    return tuple(kept)


def request_ip(request: HttpRequest) -> str | None:
    """Return the client's IP address, for the audit log."""
    return request.META.get("REMOTE_ADDR") or None


def format_time(at: datetime) -> str:
    """Format a time in the reader's language and time zone, short enough for a column."""
    return formats.date_format(timezone.localtime(at), "MOMENT_FORMAT")
