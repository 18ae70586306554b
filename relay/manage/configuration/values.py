"""Checks that the values of an entry are of the kinds that their members have: the page would take “no” for true."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.models import GroupSettings
from relay.manage.configuration.kinds import Entry, Kind, plain
from relay.manage.resources.groups import SETTINGS

_TEXT: Final = _("a text")
_TEXTS: Final = _("a list of texts")
_NUMBER: Final = _("a whole number")
_AMOUNT: Final = _('an amount, such as "2.5"')
_SWITCH: Final = _("true or false")
_DATE: Final = _("a date, such as 2027-01-31")
_TIME: Final = _("a time, such as 2027-01-31T12:00:00Z")
_TABLE: Final = _("a table or a list")
_LARGEST: Final = 2**63
Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_amount(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return False
    try:
        return Decimal(str(value)).is_finite()
    except ArithmeticError:
        return False


def _is_data(value: Any) -> bool:
    """Whether it is what JSON, and every database, can have."""
    try:
        return isinstance(value, (dict, list)) and "\\u0000" not in json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False


_CHECKS: Final[Mapping[Any, Check]] = {
    _TEXT: _is_text,
    _TEXTS: lambda value: isinstance(value, list) and all(map(_is_text, value)),
    _NUMBER: _is_number,
    _AMOUNT: _is_amount,
    _SWITCH: lambda value: isinstance(value, bool),
    _DATE: lambda value: isinstance(value, date) or _is_text(value),
    _TIME: lambda value: isinstance(value, datetime) or _is_text(value),
    _TABLE: _is_data,
}
KEY: Final[Mapping[str, Any]] = {
    "label": _TEXT, "hint": _TEXT, "secret": _TEXT, "enabled": _SWITCH, "weight": _NUMBER,
}  # fmt: skip
_LISTS: Final = frozenset(("abilities", "reasoning_levels", "further_names", "models"))


def kind_of_value(kind: Kind, name: str) -> Any:
    """What a member of an entry is, in words."""
    if name in _LISTS:
        return _TEXTS
    table: Any = GroupSettings if kind.section == "groups" and name in SETTINGS else kind.model
    field: Any = table._meta.get_field(name)
    if field.many_to_many:
        return _TEXTS
    for of, found in (
        (models.BooleanField, _SWITCH), (models.IntegerField, _NUMBER), (models.DecimalField, _AMOUNT),
        (models.DateTimeField, _TIME), (models.DateField, _DATE), (models.JSONField, _TABLE),
    ):  # fmt: skip
        if isinstance(field, of):
            return found
    return _TEXT  # also of rows that are named


def is_one(value: Any, what: Any) -> bool:
    """Whether a value is of a kind. An empty text stands for nothing where that may be."""
    return (value == "" and what not in (_SWITCH, _TEXTS, _TABLE)) or _CHECKS[what](value)


def wrong_value(kind: Kind, entry: Entry) -> tuple[str, Any] | None:
    """The first member with a value of another kind, and which one it takes; None: all are right."""
    for name, value in entry.items():
        if name != "keys" and not is_one(value, what := kind_of_value(kind, name)):
            return name, what
    return None


def exact(kind: Kind, entry: Entry) -> Entry:
    """An entry whose amounts are written as those of rows are."""
    return {
        name: plain(Decimal(str(value))) if value != "" and kind_of_value(kind, name) is _AMOUNT else value
        for name, value in entry.items()
        if name != "keys"
    } | ({"keys": entry["keys"]} if "keys" in entry else {})
