"""Columns whose values people type."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.dateparse import parse_date
from django.utils.translation import gettext as _

FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
END: Final = datetime(3000, 1, 1, tzinfo=UTC)  # exclusive
DAY_BEGINS: Final = time.min
DAY_ENDS: Final = time(23, 59, 59)


def check_moment(value: datetime) -> None:
    """Raise ValidationError for a time outside of the years in which all time zones have it."""
    if not FIRST <= value < END:
        raise ValidationError(_("Write a time between the years 2000 and 3000."), code="moment")


class SplitMomentField(forms.SplitDateTimeField):
    """A day and a time in two boxes. A day alone is one of its ends: `of_day`."""

    of_day: time = DAY_ENDS

    def clean(self, value: Any) -> datetime | None:
        if isinstance(value, (list, tuple)) and len(value) == 2 and value[0] and not value[1]:
            value = [value[0], self.of_day]
        found: datetime | None = super().clean(value)
        return found


class TypedMomentField(forms.DateTimeField):
    """A day and a time in one box. A day alone is meant until its end."""

    def to_python(self, value: Any) -> datetime | None:
        try:
            day = parse_date(value.strip()) if isinstance(value, str) else None
        except ValueError:
            day = None
        found: datetime | None = super().to_python(datetime.combine(day, DAY_ENDS) if day is not None else value)
        return found


class MomentField(models.DateTimeField):  # type: ignore[type-arg]  # not generic at run time
    """A time between the years 2000 and 3000: one at the end of all time overflows in other time zones, on each page
    that shows it. `begins`: something begins then, so that a day without a time means its first moment, not its last.
    """

    def __init__(self, *args: Any, begins: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.of_day = DAY_BEGINS if begins else DAY_ENDS

    def formfield(self, **kwargs: Any) -> Any:
        if kwargs.get("form_class") is forms.SplitDateTimeField:  # as in the admin
            kwargs["form_class"] = SplitMomentField
        field: Any = super().formfield(**kwargs)
        if isinstance(field, SplitMomentField):
            field.of_day = self.of_day
        if field is not None:  # before the row's own checks look for such a time in the database
            field.validators = [*field.validators, check_moment]
        return field

    def validate(self, value: Any, model_instance: models.Model | None) -> None:
        super().validate(value, model_instance)
        if value is not None:
            check_moment(value)

    def deconstruct(self) -> Any:
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs  # the same column
