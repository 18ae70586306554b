"""Reads the JSON of requests: what no database can store is refused before anything looks at it."""

from __future__ import annotations

import json
from typing import Any, Final

from django.http import HttpRequest
from django.utils.translation import gettext as _
from ninja.parser import Parser

from portal.lib import json as strict
from relay.manage.requests.problems import Problem

_MOST_VALUES: Final = 50_000  # in one body


class JsonParser(Parser):
    """Takes an object in UTF-8 without repeated members, NaN, NUL and lone surrogates."""

    def parse_body(self, request: HttpRequest) -> Any:
        return read_object(request.body)


def read_object(body: bytes) -> dict[str, Any]:
    """Return the object that a body is. Raises Problem."""
    if strict.has_more_values(body, _MOST_VALUES, _MOST_VALUES):
        raise Problem(_("The body has too many values. Send fewer at once."))
    try:
        found = strict.strict_decode(body.removeprefix(strict.BOM))
        again = json.dumps(found, allow_nan=False, ensure_ascii=False)
        again.encode()
    except (ValueError, RecursionError):
        raise Problem(_("The body is not valid JSON.")) from None
    if isinstance(found, strict.Repeated):
        raise Problem(_("The body has the member “%(name)s” twice.") % {"name": found.path})
    if not isinstance(found, dict):
        raise Problem(_("Send a JSON object."))
    if "\\u0000" in again:
        raise Problem(_("The body has a NUL character, which no text may have."))
    return found
