"""Rows on the page of what they belong to, a page of them at a time, so that no form grows with the data.

Every inline takes its base from here: a row that two people edit is merged, or the second is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from django.http import HttpRequest
from django.urls import reverse
from unfold.admin import StackedInline as UnfoldStackedInline
from unfold.admin import TabularInline as UnfoldTabularInline
from unfold.forms import PaginationInlineFormSet

from accounts.merging import MergingFormSet, digest, merging

if TYPE_CHECKING:
    from django.contrib.admin import StackedInline as TypedStackedInline
    from django.contrib.admin import TabularInline as TypedInline
else:

    class TypedInline(UnfoldTabularInline):
        def __class_getitem__(cls, _: Any) -> type:
            return cls

    class TypedStackedInline(UnfoldStackedInline):
        def __class_getitem__(cls, _: Any) -> type:
            return cls


_NEW: Final = "new"  # what a page says that it showed of a row which did not exist


class PagedFormSet(MergingFormSet, PaginationInlineFormSet):
    """A page of rows. A form that comes back is about the rows that it names, whatever is on that page by then."""

    model: Any
    queryset: Any
    request: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_bound:
            named = [
                self.data.get(f"{self.prefix}-{number}-{self.model._meta.pk.name}", "")
                for number in range(min(self.initial_form_count(), self.absolute_max))
            ]
            ids = [int(pk) for pk in named if pk.isdecimal() and len(pk) < 19]
            self._queryset = self.queryset.filter(pk__in=ids)

    def get_page_num(self) -> int:
        key = self.get_pagination_key()
        number = self.request.GET.get(key) or self.request.POST.get(key) or ""
        return int(number) if number.isdecimal() and 0 < len(number) < 10 and int(number) > 0 else 1


class PagedInline(TypedInline[Any, Any]):
    """The first rows that belong to something, page by page, with a link to the list of all of them."""

    formset = PagedFormSet
    extra = 0
    per_page = 15
    show_count = True
    tab = True
    template_after = "admin/inline_all.html"
    list_parameter = ""  # by which the list of all rows is narrowed to those of one parent, such as channel__id__exact
    all_rows = ""  # URL of that list, empty: there is none for this person

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        page = self.admin_site._registry.get(self.model)
        self.all_rows = ""
        if obj is not None and self.list_parameter and page is not None and page.has_view_permission(request):
            meta = self.model._meta
            url = reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist")
            self.all_rows = f"{url}?{urlencode({self.list_parameter: obj.pk})}"
        return super().get_formset(request, obj, **{"form": merging(self.form), **kwargs})

    def get_count(self, request: HttpRequest, obj: Any) -> int:
        """Return the number of rows, for the tab."""
        if obj is None:
            return 0
        name = self.fk_name or next(
            field.name
            for field in self.model._meta.fields
            if field.is_relation and field.related_model is self.parent_model
        )
        return int(self.model._default_manager.filter(**{name: obj.pk}).count())


class OneRowFormSet(MergingFormSet, PaginationInlineFormSet):
    """The one row that belongs to something. A page from before there was one may come back when there is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        this: Any = self
        if _NEW not in self._seen or this.instance.pk is None or this.initial_form_count():
            return
        row = this.get_queryset().first()
        if row is not None and this.total_form_count():
            data = this.data.copy()
            data[f"{this.prefix}-INITIAL_FORMS"] = "1"
            data[f"{this.prefix}-0-{row._meta.pk.name}"] = str(row.pk)
            this.data = data
            self.__dict__.pop("management_form", None)
            self._seen = {str(row.pk): self._seen[_NEW]}

    def shown(self) -> dict[str, Any]:
        this: Any = self
        found = super().shown()
        for form in [] if found else self.extra_forms[:1]:
            found[_NEW] = {
                name: digest(form.get_initial_for_field(field, name))
                for name, field in form.fields.items()
                if name not in {this.fk.name, this._pk_field.name}
            }
        return found


class OneRowInline(TypedStackedInline[Any, Any]):
    """The one row that belongs to something, as a part of its form."""

    formset = OneRowFormSet
    can_delete = False
    extra = 1
    max_num = 1

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        return super().get_formset(request, obj, **{"form": merging(self.form), **kwargs})
