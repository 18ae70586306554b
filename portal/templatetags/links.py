"""Template filters for links: `{{ parameters|query }}`, `{{ url|open_to:request }}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from django import template
from django.http import HttpRequest
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString

from accounts.doors import may_open

register = template.Library()
_LINK: Final = re.compile(r'<a href="([^"]+)" class="text-link">(.*)</a>', re.DOTALL)


@register.filter
def query(parameters: Mapping[str, object]) -> str:
    """The query string of a URL, without the question mark."""
    return urlencode(parameters, safe="/", quote_via=quote)


@register.filter
def open_to(url: object, request: HttpRequest) -> bool:
    """Whether there is a link, to a page that the reader may open."""
    return bool(url) and may_open(request, str(url))


@register.filter
def readable(contents: str, request: HttpRequest) -> SafeString:
    """What the theme shows in a field that cannot be changed, without a link to a page that the reader may not open."""
    link = _LINK.fullmatch(str(contents)) if isinstance(contents, SafeString) else None
    if link is not None and not may_open(request, link[1]):
        return SafeString(link[2])  # escaped when the link was made
    return conditional_escape(contents)
