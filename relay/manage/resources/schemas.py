"""The types of requests and answers, made of the tables' own fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from django.db import models
from ninja import Schema
from pydantic import BaseModel, ConfigDict, Field, StrictBool, create_model

Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
SentId = Annotated[int, Field(strict=True, ge=1, le=2**63 - 1)]
_MOST_TEXT: Final = 200_000  # characters; the columns say less
_MOST_LISTED: Final = 5000


class Sent(Schema):
    """The base of all bodies: members that are not known are refused, since they would be without effect."""

    model_config = ConfigDict(extra="forbid")


def _choices(field: models.Field[Any, Any]) -> Any:
    """The values of a field that has a choice of them."""
    values = [value for value, _label in field.flatchoices]
    if field.blank and "" not in values:
        values.append("")
    return Literal[tuple(values)]


def type_of(field: models.Field[Any, Any], sent: str = "") -> Any:
    """The type of a field's values. `sent`: as clients may send them, in a "body" or a "query", which is all text."""
    found: Any
    number = SentId if sent == "body" else Id
    if field.many_to_many:
        return Annotated[list[number], Field(max_length=_MOST_LISTED)] if sent else list[int]  # type: ignore[valid-type]
    if isinstance(field, models.ForeignKey):
        found = number if sent else int
    elif isinstance(field, models.BooleanField):
        found = StrictBool if sent == "body" else bool
    elif isinstance(field, models.IntegerField):
        found = Annotated[int, Field(strict=sent == "body", ge=-(2**63), le=2**63 - 1)] if sent else int
    elif isinstance(field, models.DecimalField):
        found = Decimal if sent else str
    elif isinstance(field, models.DateTimeField):
        found = datetime
    elif isinstance(field, models.DateField):
        found = date
    elif isinstance(field, models.JSONField):
        return Any
    elif field.flatchoices and sent:
        found = _choices(field)
    else:
        found = Annotated[str, Field(max_length=_MOST_TEXT)] if sent else str
    return found | None if field.null else found


def shown_as(value: Any) -> Any:
    """A value of a row as JSON has it."""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return value


def _described(field: Any) -> str:
    words = str(field.help_text) or str(getattr(field, "verbose_name", field.name))
    return words[:1].upper() + words[1:]


def body_of(
    name: str, model: type[models.Model], names: Iterable[str], more: Mapping[str, Any], required: Iterable[str] = ()
) -> type[BaseModel]:
    """The body of a request that adds or changes a row. `more`: (type, description) of what is no field of it."""
    needed = set(required)
    members: dict[str, Any] = {}
    for one in names:
        if one in more:
            kind, said = more[one]
        else:
            field: Any = model._meta.get_field(one)
            kind, said = type_of(field, "body"), _described(field)
        members[one] = (kind, Field(description=said) if one in needed else Field(None, description=said))
    made: type[BaseModel] = create_model(name, __base__=Sent, **members)
    return made


def object_of(name: str, model: type[models.Model], names: Iterable[str], more: Mapping[str, Any]) -> type[BaseModel]:
    """The form of a row in answers. Members that the key's owner may not see are left out."""
    members: dict[str, Any] = {
        "object": (str, Field(description="What it is.")),
        "id": (int, Field(description="Its number.")),
    }
    for one in names:
        field: Any = model._meta.get_field(one)
        members[one] = (type_of(field) | None, Field(None, description=_described(field)))
    for one, (kind, said) in more.items():
        members[one] = (kind, Field(None, description=said))
    members["warnings"] = (
        list[str],
        Field([], description="What the page of the administration would tell its reader."),
    )
    made: type[BaseModel] = create_model(name, __base__=Schema, **members)
    return made


def query_of(name: str, model: type[models.Model], names: Iterable[str], searchable: bool) -> type[BaseModel]:
    """The parameters of a list."""
    members: dict[str, Any] = {
        "limit": (int, Field(50, ge=1, le=200, description="Rows of a page.")),
        "cursor": (str, Field("", max_length=400, description="`next_cursor` of the page before.")),
    }
    for one in names:
        field: Any = model._meta.get_field(one)
        kind = type_of(field, "query")
        members[one] = (
            kind | None if kind is not Any else str | None,
            Field(None, description=f"Only those with this {one}."),
        )
    if searchable:
        members["search"] = (str, Field("", max_length=200, description="As the list's search in the administration."))
    made: type[BaseModel] = create_model(name, __base__=Schema, **members)
    return made


def list_of(name: str, item: type[BaseModel]) -> type[BaseModel]:
    members: dict[str, Any] = {
        "object": (Literal["list"], Field("list")),
        "data": (list[item], ...),  # type: ignore[valid-type]  # made at run time
        "next_cursor": (str | None, Field(None, description="Of the next page; null: there is none.")),
    }
    made: type[BaseModel] = create_model(name, __base__=Schema, **members)
    return made
