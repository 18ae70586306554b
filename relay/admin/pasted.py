"""What people paste and tick in forms: keys, names of models."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from django import forms
from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext

from relay.channels.models import aliased
from relay.providers.credentials.contract import BadKey
from relay.providers.vendor import Vendor

MAX_PASTED: Final = 5000  # keys or names in one field: as many as are saved in a few seconds


def unique_lines(text: str) -> list[str]:
    """Return the lines of a text, stripped, each once, without empty ones."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def ticked(request: HttpRequest, name: str) -> list[str]:
    """Return the values of ticked boxes. Pages send those of many as lines of one field."""
    return [*request.POST.getlist(name), *unique_lines(request.POST.get(f"{name}_lines", ""))]


def parse_keys(text: str, vendor: Vendor) -> list[str]:
    """Return the upstream keys in a text with one key a line, or with JSON objects one after the other.

    Raises ValidationError, which names lines, not keys.
    """
    if vendor.credentials.is_json:
        keys = _objects(text)
        for key in keys:
            check_key(key, vendor)
    else:
        for number, line in enumerate(text.splitlines(), 1):
            if not _may_be_key(line.strip()):
                raise forms.ValidationError(
                    gettext(
                        "Line %(n)d is no key: a key has no spaces, quotes around it or comma behind it, only plain "
                        "characters, and is no address. Paste the keys again, one a line."
                    )
                    % {"n": number}
                )
        keys = unique_lines(text)
        for key in keys:
            check_key(key, vendor)
    if len(keys) > MAX_PASTED:
        raise forms.ValidationError(
            gettext("These are %(n)d keys. Paste at most %(most)d at once.") % {"n": len(keys), "most": MAX_PASTED}
        )
    return keys


def parse_key(text: str, vendor: Vendor | None) -> str:
    """Return the one upstream key in a text, empty if that is. Raises ValidationError."""
    key = text.strip()
    if key and vendor is not None and vendor.credentials.is_json:
        found = _objects(key)
        if len(found) != 1:
            raise forms.ValidationError(gettext("These are %(n)d keys. Paste one.") % {"n": len(found)})
        key = found[0]
    elif not _may_be_key(key):
        raise forms.ValidationError(
            gettext("A key has no spaces, quotes or comma around it, and only plain characters.")
        )
    if key and vendor is not None:
        check_key(key, vendor)
    return key


def check_key(key: str, vendor: Vendor) -> None:
    """Raise ValidationError for a key that is none of this vendor's kind."""
    try:
        vendor.credentials.check(key, settings.CONFIG.google_token_uris)
    except BadKey as bad:
        raise forms.ValidationError(gettext(str(bad))) from None


def _objects(text: str) -> list[str]:
    """Return the JSON objects in a text as one line each, each once. Whatever is none stays as it is, as one."""
    found: list[str] = []
    reader, rest = json.JSONDecoder(), text.strip()
    while rest:
        try:
            one, end = reader.raw_decode(rest)
        except (ValueError, RecursionError):
            return [*found, rest]
        found.append(json.dumps(one, separators=(",", ":")))
        rest = rest[end:].lstrip(" \t\r\n,")
    return list(dict.fromkeys(found))


def _may_be_key(text: str) -> bool:
    """Whether a text may be an upstream key, and not something that was pasted with or instead of one."""
    return (
        text.isascii()
        and not any(character.isspace() or character in ",;" for character in text)
        and not text.startswith(('"', "'", "`", "http://", "https://"))
        and not text.endswith(('"', "'", "`"))
    )


def parse_model_names(lines: Iterable[str]) -> list[str]:
    """Return model names, each once, without empty ones. Raises ValidationError, which names the first wrong one."""
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    for name in names:
        if len(name) > 120 or any(character.isspace() for character in name):
            raise forms.ValidationError(gettext("“%(line)s” is not a model name. Write one a line.") % {"line": name})
    return names


def check_no_aliases(names: Iterable[str]) -> None:
    """Raise ValidationError for names that are further names of models, which no channel can serve as models."""
    for name, model in sorted(aliased(list(names)).items()):
        raise forms.ValidationError(taken_alias(name, model))


def taken_alias(name: str, model: str) -> str:
    """Say that a channel cannot serve a model of a name that is a further one of another model."""
    return gettext(
        "“%(name)s” is a further name of the model “%(model)s”. Remove it there first, or add what the channel calls "
        "so under another name: “public-name = %(name)s”."
    ) % {"name": name, "model": model}


def parse_served(text: str) -> list[tuple[str, str]]:
    """Return pairs of public and upstream name from lines such as `gpt-4o` or `fast = vendor/model-1`.

    The upstream name is empty when it is the same. Raises ValidationError, which names the first wrong line.
    """
    found = []
    for line in unique_lines(text):
        public, _, upstream = (part.strip() for part in line.partition("="))
        if (
            not public
            or any(character.isspace() for character in public + upstream)
            or len(public) > 120
            or len(upstream) > 160
        ):
            raise forms.ValidationError(
                gettext("“%(line)s” is not a model name. Write one a line.") % {"line": line[:200]}
            )
        found.append((public, "" if upstream == public else upstream))
    if len(found) > MAX_PASTED:
        raise forms.ValidationError(
            gettext("These are %(n)d names. Paste at most %(most)d at once.") % {"n": len(found), "most": MAX_PASTED}
        )
    return found
