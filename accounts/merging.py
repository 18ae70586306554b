"""Two people on one page: a form saves what its reader changed, and tells what somebody else changed meanwhile.

A page carries digests of the values that it showed. When it comes back, a value that differs from what is stored now,
but not from what was shown, was left alone by its reader and stays as it is stored. One that was changed by both is an
error that names both, and saving again keeps the reader's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from hashlib import blake2b
from typing import Any, ClassVar, Final

from django import forms
from django.core import signing
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.forms.models import InlineForeignKeyField
from django.utils import formats, timezone
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.translation import gettext as _

FIELD: Final = "seen"
_SALT: Final = "accounts.admin.merging"
_SHOWN: Final = 100  # characters of a value in an error
Seen = Mapping[str, str]  # digests by field


def digest(value: object) -> str:
    """A digest of a value, the same for what a form shows of it and for what it reads back."""
    return blake2b(_plain(value).encode("utf-8", "replace"), digest_size=6).hexdigest()


def _plain(value: object) -> str:
    if value is None or value in ("", [], {}, ()):
        return ""
    if isinstance(value, Model):
        return str(value.pk)
    if isinstance(value, (list, tuple, set, QuerySet)):
        rows = list(value)
        if rows and isinstance(rows[0], Model):
            return ",".join(sorted(str(row.pk) for row in rows))
        return "\n".join(map(_plain, rows))
    if isinstance(value, datetime):
        try:
            return value.replace(microsecond=0).astimezone(UTC).isoformat()
        except OverflowError:  # a time at the end of all time, which no column takes
            return value.isoformat()
    if isinstance(value, (Decimal, int, float)) and not isinstance(value, bool):
        return f"{Decimal(str(value)).normalize():f}"
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, default=str)
    return str(value).replace("\r\n", "\n").strip()


def sign(seen: object) -> str:
    return signing.dumps(seen, salt=_SALT, compress=True)


def read(text: str) -> dict[str, Any]:
    """Return what a page has shown, nothing when it says nothing that this portal has signed."""
    try:
        found = signing.loads(text, salt=_SALT) if text else {}
    except signing.BadSignature:
        return {}
    return found if isinstance(found, dict) else {}


class Merging:
    """Mixin of model forms. `seen` is set by their formset, or read from their own field."""

    seen: Seen = {}
    one_row: ClassVar[bool] = False  # whether a page for a new row may find that another one has made it meanwhile
    fields: dict[str, forms.Field]
    cleaned_data: dict[str, Any]
    instance: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        this: Any = self
        if this.is_bound and not this.prefix:
            self.seen = read(this.data.get(FIELD, ""))

    def digests(self) -> dict[str, str]:
        """Digests of what the form shows."""
        this: Any = self
        return {
            name: digest(this.get_initial_for_field(field, name))
            for name, field in self.fields.items()
            if name in this.initial and not field.disabled
        }

    @property
    def seen_field(self) -> str:
        """The hidden field of a page with this form. Empty for a new row."""
        this: Any = self
        if self.instance.pk is None and not self.one_row:
            return ""
        seen = self.seen if this.is_bound else self.digests()
        return format_html('<input type="hidden" name="{}" value="{}">', FIELD, sign(dict(seen)))

    def shown(self, name: str, value: Any) -> Any:
        """What the form would show of a value; for fields that show less than is stored."""
        return value

    def _post_clean(self) -> None:
        if self.seen and self.instance.pk is not None:
            self._merge()
        super()._post_clean()  # type: ignore[misc]  # of the form

    def validate_unique(self) -> None:
        """Ask the constraints of an inline's row, too: Django leaves out all that name what the row belongs to."""
        super().validate_unique()  # type: ignore[misc]  # of the form
        this: Any = self
        names = [name for name, field in self.fields.items() if isinstance(field, InlineForeignKeyField)]
        if not names or this.non_field_errors() or any(getattr(self.instance, f"{name}_id") is None for name in names):
            return
        try:
            self.instance.validate_constraints(exclude=this._get_validation_exclusions())
        except ValidationError as error:
            this._update_errors(error)

    def _merge(self) -> None:
        this: Any = self
        seen, kept = dict(self.seen), set()
        for name, field in self.fields.items():
            if name not in seen or name not in self.cleaned_data or field.disabled:
                continue
            current = this.get_initial_for_field(field, name)
            typed = self.shown(name, self.cleaned_data[name])
            now, mine = digest(current), digest(typed)
            if now in (seen[name], mine):
                continue
            if mine == seen[name]:
                self.cleaned_data[name] = self._stored(name, field, current)
                kept.add(name)
                continue
            this.add_error(
                name,
                _(
                    "Somebody has changed this to “%(theirs)s” since you opened the page; you changed it to "
                    "“%(mine)s”. Save again to keep yours."
                )
                % {"theirs": _said(field, current), "mine": _said(field, typed)},
            )
            seen[name] = now
        self.seen = seen
        if kept:
            this.__dict__["changed_data"] = [name for name in this.changed_data if name not in kept]

    def _stored(self, name: str, field: forms.Field, current: Any) -> Any:
        meta = self.instance._meta
        if name in {one.name for one in meta.many_to_many}:
            return list(current or ())
        if name in {one.name for one in meta.concrete_fields}:
            return getattr(self.instance, name)
        return field.clean(current)


def _said(field: forms.Field, value: Any) -> str:
    if isinstance(value, bool):
        return _("on") if value else _("off")
    if isinstance(value, (list, tuple, QuerySet)):
        text = ", ".join(str(one) for one in list(value)[:20])
    elif isinstance(field, forms.ModelChoiceField) and not isinstance(value, Model) and value not in (None, ""):
        text = str(field.queryset.filter(pk=value).first()) if field.queryset is not None else str(value)
    elif isinstance(field, forms.ChoiceField):
        text = str(dict(field.choices).get(value, value))  # type: ignore[arg-type]  # groups are not used
    elif isinstance(value, Decimal):
        text = f"{value.normalize():f}"
    elif isinstance(value, datetime):
        text = formats.date_format(timezone.localtime(value), "MOMENT_FORMAT")
    else:
        text = "" if value is None else str(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


@cache
def merging(form: Any) -> Any:
    """Return a form class that merges what two people have changed."""
    return form if issubclass(form, Merging) else type(form)(form.__name__, (Merging, form), {})


class MergingFormSet:
    """Mixin of formsets of such forms. What they show is in one field of the formset."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        this: Any = self
        self._seen = read(this.data.get(f"{this.prefix}-{FIELD}", "")) if this.is_bound else {}

    def _construct_form(self, i: int, **kwargs: Any) -> Any:
        form = super()._construct_form(i, **kwargs)  # type: ignore[misc]  # of the formset
        this: Any = self
        if this.is_bound and form.instance.pk is not None and isinstance(form, Merging):
            found = self._seen.get(str(form.instance.pk))
            form.seen = found if isinstance(found, dict) else {}
        return form

    @cached_property
    def management_form(self) -> Any:
        this: Any = self
        form = super().management_form  # type: ignore[misc]  # of the formset
        form.fields[FIELD] = forms.CharField(required=False, widget=forms.HiddenInput)
        if not this.is_bound:
            form.initial[FIELD] = sign(self.shown())
        return form

    def shown(self) -> dict[str, Any]:
        """Return the digests of what is shown of each row, by its id."""
        this: Any = self
        return {str(one.instance.pk): one.digests() for one in this.initial_forms if isinstance(one, Merging)}

    def full_clean(self) -> None:
        super().full_clean()  # type: ignore[misc]  # of the formset
        this: Any = self
        if not this.is_bound or not self._seen:
            return
        now = {str(form.instance.pk): dict(form.seen) for form in this.initial_forms if isinstance(form, Merging)}
        data = this.data.copy()
        data[f"{this.prefix}-{FIELD}"] = sign(now)
        self.management_form.data = data


class MergingModelFormSet(MergingFormSet, forms.BaseModelFormSet):  # type: ignore[type-arg]  # not generic at run time
    """The rows of a list that can be edited in place."""
