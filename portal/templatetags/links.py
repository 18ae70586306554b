"""Template filters for links: `{{ parameters|query }}`."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from django import template

register = template.Library()


@register.filter
def query(parameters: Mapping[str, object]) -> str:
    """The query string of a URL, without the question mark."""
    return urlencode(parameters, safe="/", quote_via=quote)
