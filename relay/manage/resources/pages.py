"""The administration's own pages, used by values instead of forms in a browser.

What may be seen, added, changed and deleted, how values are checked, what else is done when a row is saved, and what
the audit log says of it, are the page's: there is no second set of rules. Its messages to the reader are the warnings
of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.contrib.auth.forms import ReadOnlyPasswordHashField
from django.contrib.messages.constants import SUCCESS
from django.contrib.messages.storage.base import BaseStorage
from django.core.exceptions import NON_FIELD_ERRORS
from django.db.models import Manager, Model, QuerySet
from django.forms.models import ModelChoiceField, ModelMultipleChoiceField
from django.http import HttpRequest
from django.utils.translation import gettext as _

from relay.manage.requests.access import need
from relay.manage.requests.problems import Conflict, Forbidden, Missing, invalid, text_of

Values = Mapping[str, Any]
Formsets = Callable[["Page", Any], list[Any]]  # for a row that is about to be saved
_AT_ALL: Final = 2**63  # no id is larger


class Notes(BaseStorage):
    """Collects the messages of a page, which nobody reads in a session."""

    def _get(self, *args: Any, **kwargs: Any) -> tuple[list[Any], bool]:
        return [], True

    def _store(self, messages: Any, response: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return []

    def texts(self) -> list[str]:
        """What the reader should know, in plain words; that something was done is told by the answer itself."""
        this: Any = self
        return [text_of(one.message) for one in this._queued_messages if one.level != SUCCESS]


class _Plain(forms.Widget):
    """Hands a value to its field as it is: a number, a list, a time."""

    def value_from_datadict(self, data: Mapping[str, Any], files: Any, name: str) -> Any:
        return data.get(name)

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return name not in data


class Page:
    """The page of a kind of row, for the owner of the request's key."""

    def __init__(
        self,
        request: HttpRequest,
        model: type[Model],
        prepare: Callable[[Any, Values], None] | None = None,
        called: Mapping[str, str] | None = None,
    ) -> None:
        self.request = request
        self.model: Any = model
        self.page: Any = admin.site.get_model_admin(model)
        self.notes = Notes(request)
        self._prepare, self._called = prepare, called or {}
        request._messages = self.notes  # type: ignore[attr-defined]  # where pages leave their messages

    # -- reading -----------------------------------------------------------------------------------------------------

    def rows(self) -> QuerySet[Any]:
        """The rows that the page lists. Raises Forbidden."""
        need(self.page.has_view_permission(self.request))
        found: QuerySet[Any] = self.page.get_queryset(self.request)
        return found

    def find(self, pk: int, *, lock: bool = False) -> Any:
        """Return a row. Raises Missing. `lock`: nobody else changes it before the transaction ends."""
        rows = self.rows()
        if not 0 < pk < _AT_ALL:
            raise Missing
        if lock:
            self.model._base_manager.select_for_update().filter(pk=pk).first()
        row = rows.filter(pk=pk).first()
        if row is None or not self.page.has_view_permission(self.request, row):
            raise Missing
        return row

    def searched(self, rows: QuerySet[Any], text: str) -> QuerySet[Any]:
        """Those rows that the page's search finds."""
        found, may_repeat = self.page.get_search_results(self.request, rows, text)
        return found.distinct() if may_repeat else found  # type: ignore[no-any-return]

    def hidden(self) -> frozenset[str]:
        """Fields that the owner of the key may not see."""
        found: frozenset[str] = self.page.hidden_fields(self.request)
        return found

    # -- changing ----------------------------------------------------------------------------------------------------

    def add(self, values: Values, formsets: Formsets | None = None) -> Any:
        """Make a row as the page does, inside the current transaction. Raises Invalid, Forbidden."""
        need(self.page.has_add_permission(self.request))
        return self._save(None, values, formsets)

    def change(self, row: Any, values: Values, formsets: Formsets | None = None) -> Any:
        """Change fields of a row as the page does; the others stay. Raises Invalid, Forbidden, Conflict."""
        if not self.page.has_change_permission(self.request, row):
            need(self.page.has_change_permission(self.request))
            raise _as_it_is(row)
        return self._save(row, values, formsets)

    def delete(self, row: Any) -> None:
        """Delete a row and what goes with it, as the page does. Raises Forbidden, Conflict."""
        page, request = self.page, self.request
        if not page.has_delete_permission(request, row):
            need(page.has_delete_permission(request))
            raise _as_it_is(row)
        _found, _counts, lacking, protected = page.get_deleted_objects([row], request)
        if protected:
            raise Conflict(" ".join([*self.notes.texts(), _("It is in use.")])[:500], code="in_use")
        if lacking:
            raise Forbidden(
                _("The owner of this key may not delete what goes with it: %(what)s.")
                % {"what": ", ".join(sorted(map(str, lacking)))},
                code="missing_right",
            )
        page.log_deletions(request, page.model._default_manager.filter(pk=row.pk))
        page.delete_model(request, row)

    def _save(self, row: Any, values: Values, formsets: Formsets | None) -> Any:
        page, request, change = self.page, self.request, row is not None
        form = self._form(row, values)
        if not form.is_valid():
            raise invalid(form.errors, self._called)
        if change:  # a page shows some values otherwise than they are stored
            form.__dict__["changed_data"] = [name for name in form.changed_data if name in values]
        saved = page.save_form(request, form, change=change)
        more = formsets(self, saved) if formsets is not None else []
        for one in more:
            if not one.is_valid():
                found = {name: said for errors in one.errors for name, said in errors.items()}
                raise invalid({NON_FIELD_ERRORS: one.non_form_errors(), **found})
        page.save_model(request, saved, form, change)
        page.save_related(request, form, more, change)
        said = page.construct_change_message(request, form, more, not change)
        if change:
            page.log_change(request, saved, said)
        else:
            page.log_addition(request, saved, said)
        return saved

    def _form(self, row: Any, values: Values) -> Any:
        """The page's form, filled with the row and these values. Raises Invalid for fields that it has not."""
        kind = self.page.get_form(self.request, row, change=row is not None)
        if self._prepare is not None:
            self._prepare(kind, values)
        empty = kind(instance=row) if row is not None else kind()
        extra = getattr(kind, "beside_fields", frozenset(("allow_address",)))
        unknown = [name for name in values if name not in empty.fields and name not in extra]
        if unknown:
            said = _("This cannot be set here, or not by the owner of this key.")
            raise invalid({name: [said] for name in unknown}, self._called)
        data = {name: value for name, value in values.items() if name in extra}
        for name, field in empty.fields.items():
            if name in values:
                data[name] = values[name]
            elif not field.disabled and not isinstance(field, ReadOnlyPasswordHashField):
                data[name] = _stored(field, empty.get_initial_for_field(field, name))
        form = kind(data, instance=row) if row is not None else kind(data)
        for name, field in form.fields.items():
            if isinstance(field, forms.SplitDateTimeField):  # two boxes on a page, one value here
                one = forms.DateTimeField(required=field.required, label=field.label, validators=field.validators)
                form.fields[name] = field = one
            if not isinstance(field, ReadOnlyPasswordHashField):
                field.widget = _Plain()
        return form


def _stored(field: forms.Field, value: Any) -> Any:
    """What a form shows of a value, as a client would send it."""
    if isinstance(field, ModelMultipleChoiceField):
        return [getattr(one, "pk", one) for one in (value.all() if isinstance(value, Manager) else value or ())]
    if isinstance(field, ModelChoiceField):
        return getattr(value, "pk", value)
    return value


def _as_it_is(row: Any) -> Exception:
    """Why a row is not changed by somebody who may change others: because of its state, or of whose it is."""
    said = getattr(type(row), "IN_FORCE", "")
    if said and getattr(row, "in_force", False):
        return Conflict(_(said), code="in_force")
    return Forbidden(_("The owner of this key may not do this to it."), code="missing_right")
