from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import models
from django.db.models.deletion import ProtectedError
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor
from django.utils.translation import gettext as _

from portal.lib import money
from portal.lib.crypto import SecretBox


@cache
def box(purpose: str) -> SecretBox:
    """Return the encryption for one kind of stored secret, under the configured keys."""
    return SecretBox(settings.ENCRYPTION_KEYS, purpose)


class UsdField(forms.DecimalField):
    """An amount of money that somebody types: a finite number of USD, from `least` to `most`, by default what the
    columns of budgets, prices and the ledger can all hold.
    """

    def __init__(self, *, least: Decimal = Decimal(0), most: int = money.MOST_USD, **options: Any) -> None:
        self.least, self.most = least, most
        super().__init__(**{"max_digits": 18, "decimal_places": 6, **options})

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare amounts, whether they are given as text or as numbers: "5" and 5.00 are the same."""
        try:
            initial = self.to_python(initial)
        except ValidationError:
            pass  # nothing that can be typed is the same
        return super().has_changed(initial, data)

    def clean(self, value: Any) -> Any:
        found = super().clean(value)
        if found is not None and not self.least <= found <= self.most:
            raise ValidationError(
                _("Write an amount from %(least)s to %(most)s.")
                % {"least": f"${self.least.normalize():f}", "most": f"${self.most:,}"},
                code="amount",
            )
        return found


class _LooseReference(ForwardManyToOneDescriptor):  # type: ignore[type-arg]  # not generic at run time
    """Reads the referenced row, or None when it has been deleted."""

    def get_object(self, instance: Any) -> Any:
        try:
            return super().get_object(instance)
        except ObjectDoesNotExist:
            return None


class LooseForeignKey(models.ForeignKey):  # type: ignore[type-arg]  # not generic at run time
    """A reference without a database constraint, in a row that outlives what it refers to.

    It is nullable, and reads as None once that is deleted, as it does in a query with `select_related`; the column
    keeps the id. Give `on_delete=keep_used` where rows that are referred to must stay.
    """

    forward_related_accessor_class = _LooseReference

    def __init__(self, to: Any, on_delete: Any = models.DO_NOTHING, **options: Any) -> None:
        bare: dict[str, Any] = {"db_constraint": False, "db_index": False, "related_name": "+"}
        super().__init__(to, on_delete, **bare | options)

    def deconstruct(self) -> Any:
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.ForeignKey", args, {**kwargs, "on_delete": models.DO_NOTHING}  # the same column


def keep_used(collector: Any, field: Any, rows: Any, using: str) -> None:
    """Refuse to delete rows that others refer to, as `PROTECT` does, which would read all of the others.

    Costs a search of a column without an index: deletions by staff are rare, and requests do not pay for an index.
    """
    for (pk,) in rows.order_by().values_list(field.attname)[:1]:
        kind = field.remote_field.model
        raise ProtectedError(f"{kind._meta.verbose_name} {pk} is in use", set(kind._base_manager.filter(pk=pk)))


keep_used.lazy_sub_objs = True  # type: ignore[attr-defined]  # Django's collector passes a query, not its rows
