"""Translation of texts that xgettext does not find: models, the API reference, vendors, the admin's theme.

Models declare the names and help texts of their fields in English. When the applications are loaded, these become lazy
translations; `make messages` collects them with all other texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.db.models import Field
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from relay.providers.failures import FailureClass
from relay.providers.vendors import offered

APPS = ("accounts", "relay")
THEME = (
    "Add new item",
    "After you've created a user, you’ll be able to edit more user options.",
    "All applications",
    "Apply Filters",
    "Choose file to upload",
    "Click to cancel",
    "Dark",
    "Date",
    "Date from",
    "Date to",
    "Expand row",
    "False",
    "Filters",
    "General",
    "Go back",
    "Light",
    "Loading more results...",
    "More actions",
    "Name",
    "No data",
    "No recent searches",
    "No results found",
    "No results matching your query",
    "Previous",
    "Raw passwords are not stored, so there is no way to see this user’s password, but you can change the password "
    "using "
    '<a href="{}" class="text-primary-600 dark:text-primary-500">this form</a>.',
    "Recent searches",
    "Reset filters",
    "Return to site",
    "Run",
    "Search apps and models...",
    "Select action",
    "Select action to run",
    "Select all rows",
    "Select record",
    "Select value",
    "System",
    "This item will be deleted.",
    "This page yielded into no results. Create a new item or reset your filters.",
    "Time",
    "Toggle password visibility",
    "True",
    "Type to search",
    "Value",
    "You have been successfully logged out from the administration",
)
"""Texts of the admin's theme, which has few translations, and of allauth's forms."""


def translate_models() -> None:
    """Make the texts of all models lazy translations. Called once, when all models are loaded.

    Migrations see no difference: a lazy text equals the text that it translates.
    """
    for model in _models():
        options = model._meta
        plural = _source(options.verbose_name_plural)  # Django appends an s to the singular
        options.verbose_name, options.verbose_name_plural = _lazy(options.verbose_name), _lazy(plural)
        for field in [*options.local_fields, *options.local_many_to_many]:
            field.verbose_name, field.help_text = _lazy(field.verbose_name), _lazy(field.help_text)
            if isinstance(field.choices, list):
                field.choices = [(value, _lazy(label)) for value, label in field.choices]


def texts() -> list[str]:
    """All of these texts in English, without duplicates."""
    found = {*THEME, *_reference(), *(vendor.label for vendor in offered())}
    for model in _models():
        options = model._meta
        fields: list[Field[Any, Any]] = [*options.local_fields, *options.local_many_to_many]
        for text in (
            options.verbose_name,
            options.verbose_name_plural,
            *(text for field in fields for text in (field.verbose_name, field.help_text)),
        ):
            if text and not str(text).endswith(" ptr"):
                found.add(_source(text))
        for field in fields:
            if isinstance(field.choices, list):
                found |= {_source(label) for _value, label in field.choices if label}
    found |= {kind.text for kind in FailureClass}  # defined in a package that does not import Django
    return sorted(found)


def _reference() -> Iterator[str]:
    """Tags and descriptions of the API reference."""
    from relay.api.urls import reference

    for methods in reference()["paths"].values():
        for operation in methods.values():
            yield from (operation["tags"][0], operation["description"])
            for entry in operation.get("parameters", ()):
                yield from _descriptions(entry)
            for content in operation.get("requestBody", {}).get("content", {}).values():
                for member in content.get("schema", {}).get("properties", {}).values():
                    yield from _descriptions(member)


def _descriptions(schema: dict[str, Any]) -> Iterator[str]:
    for one in (schema, *schema.get("anyOf", ())):
        if one.get("description"):
            yield one["description"]


def _models() -> Iterator[Any]:
    for app in APPS:
        yield from apps.get_app_config(app).get_models(include_auto_created=False)


def _lazy(text: Any) -> Any:
    return gettext_lazy(text) if isinstance(text, str) and text and not isinstance(text, Promise) else text


def _source(text: Any) -> str:
    from django.utils.translation import override

    with override(None):
        return str(text)
