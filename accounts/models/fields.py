"""Columns whose values people type."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext as _

FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
END: Final = datetime(3000, 1, 1, tzinfo=UTC)  # exclusive


class MomentField(models.DateTimeField):  # type: ignore[type-arg]  # not generic at run time
    """A time between the years 2000 and 3000: one at the end of all time overflows in other time zones, on each page
    that shows it.
    """

    def validate(self, value: Any, model_instance: models.Model | None) -> None:
        super().validate(value, model_instance)
        if value is not None and not FIRST <= value < END:
            raise ValidationError(_("Write a time between the years 2000 and 3000."), code="moment")

    def deconstruct(self) -> Any:
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs  # the same column
