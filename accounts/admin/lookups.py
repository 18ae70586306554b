"""What is typed into the address of an admin page: filters of a list, initial values of a form.

Django hands both to the database as they are, which fails on a number that no column holds.
"""

from __future__ import annotations

from typing import Any, Final

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db.models import DateField, GeneratedField, GenericIPAddressField, IntegerField, Model
from django.db.models.constants import LOOKUP_SEP

from portal.lib.net import parse_address
from portal.lib.texts import LARGEST_ID, whole_number

_COMPARING: Final = frozenset(("exact", "gt", "gte", "lt", "lte", "range"))
_PARTS: Final = {"year": (2, 9998), "iso_year": (2, 9998)} | dict.fromkeys(
    ("quarter", "month", "day", "week", "week_day", "iso_week_day", "hour", "minute", "second"), (0, 99)
)
_MOST_IDS: Final = 1_000  # of one parameter: each is a parameter of the statement, which databases limit


def check_lookup(model: type[Model], lookup: str, value: object) -> None:
    """Raise IncorrectLookupParameters for a filter whose numbers no column holds. Its list is shown without filters."""
    field, rest = _column(model, lookup)
    part, _sign, end = rest.rpartition(LOOKUP_SEP)
    if isinstance(field, GenericIPAddressField) and end in {"", *_COMPARING, "in"}:
        if any(parse_address(text) is None for text in str(value).split(",")):
            raise IncorrectLookupParameters
        return
    if isinstance(field, DateField) and (part or end) in _PARTS:
        least, most = _PARTS[part or end]
    elif isinstance(field, IntegerField) and not part:
        least, most = -LARGEST_ID, LARGEST_ID
    else:
        return
    if end not in {*_COMPARING, "in", *_PARTS}:
        return
    texts = str(value).split(",")
    if len(texts) > _MOST_IDS or any(whole_number(text, least, most) is None for text in texts):
        raise IncorrectLookupParameters


def read_initial(model: type[Model], initial: dict[str, Any]) -> dict[str, Any]:
    """Return the initial values of a form without those that its fields cannot show: relations take ids."""
    found = {}
    for name, value in initial.items():
        try:
            field = model._meta.get_field(name)
        except FieldDoesNotExist:
            found[name] = value
            continue
        read = _read(field, value)
        if read is not None:
            found[name] = read
    return found


def _read(field: Any, value: Any) -> Any:
    """The value of a field that a text means; None: none that can be shown."""
    if field.is_relation:
        if not isinstance(_target(field), IntegerField):
            return value
        if not field.many_to_many:
            return whole_number(value)
        texts = value if isinstance(value, list) else str(value).split(",")
        return [pk for pk in map(whole_number, texts[:_MOST_IDS]) if pk is not None]
    if not isinstance(field, DateField) or not isinstance(value, str):
        return value
    try:
        read = field.to_python(value)
    except (ValidationError, ValueError, OverflowError):
        return None
    return read if read is not None and 1 < read.year < 9999 else None  # others overflow in some time zone


def _column(model: type[Model], lookup: str) -> tuple[Any, str]:
    """The column that a lookup such as `token__user__id__exact` ends at, and how it is compared."""
    parts, field = lookup.split(LOOKUP_SEP), None
    opts: Any = model._meta
    while parts and opts is not None:
        name = opts.pk.name if parts[0] == "pk" and opts.pk is not None else parts[0]
        try:
            field = opts.get_field(name)
        except FieldDoesNotExist:
            if field is None:
                field = next((one for one in opts.concrete_fields if one.attname == name), None)
                parts = parts[1:] if field is not None else parts
            break
        parts = parts[1:]
        opts = field.related_model._meta if field.is_relation and field.related_model is not None else None
    return (field if field is None else _target(field)), LOOKUP_SEP.join(parts) or "exact"


def _target(field: Any) -> Any:
    """The column whose values a relation holds, or that a computed one is like."""
    if isinstance(field, GeneratedField):
        return field.output_field
    while field.is_relation:
        field = field.target_field if hasattr(field, "target_field") else field.related_model._meta.pk
    return field
