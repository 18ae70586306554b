"""Names and help texts of models, in the reader's language.

Models say what their fields are called once, in English. When the applications are loaded, these texts are made to be looked up in the
language of whoever reads them; `make messages` collects them with all other texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.db.models import Field
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from relay.providers.failures import FailureClass

APPS = ("accounts", "relay")


def translate_models() -> None:
    """Called once, when all models are there. Migrations see no difference: a lazy text equals what it stands for."""
    for model in _models():
        options = model._meta
        options.verbose_name, options.verbose_name_plural = _lazy(options.verbose_name), _lazy(options.verbose_name_plural)
        for field in [*options.local_fields, *options.local_many_to_many]:
            field.verbose_name, field.help_text = _lazy(field.verbose_name), _lazy(field.help_text)
            if isinstance(field.choices, list):
                field.choices = [(value, _lazy(label)) for value, label in field.choices]


def texts() -> list[str]:
    """Every text that `translate_models` makes translatable, each once, in English."""
    found: set[str] = set()
    for model in _models():
        options = model._meta
        fields: list[Field[Any, Any]] = [*options.local_fields, *options.local_many_to_many]
        for text in (options.verbose_name, options.verbose_name_plural, *(text for field in fields for text in (field.verbose_name, field.help_text))):
            if text and not str(text).endswith(" ptr"):
                found.add(_source(text))
        for field in fields:
            if isinstance(field.choices, list):
                found |= {_source(label) for _value, label in field.choices if label}
    found |= {kind.text for kind in FailureClass}  # known to the part that knows no Django
    return sorted(found)


def _models() -> Iterator[Any]:
    for app in APPS:
        yield from apps.get_app_config(app).get_models(include_auto_created=False)


def _lazy(text: Any) -> Any:
    return gettext_lazy(text) if isinstance(text, str) and text and not isinstance(text, Promise) else text


def _source(text: Any) -> str:
    from django.utils.translation import override

    with override(None):
        return str(text)
