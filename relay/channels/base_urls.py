"""Base URLs as people type and paste them, and those that were probably meant. Pure.

Some documentation teaches the bare host, some the address with its version, some the whole address of an endpoint; an
upstream answers at one of them only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from portal.lib.net import is_global_unicast, parse_address
from relay.providers.apis import PATHS
from relay.providers.vendor import Vendor

# What stands behind a base URL in the address of an endpoint, the longest first.
_ENDPOINTS: Final = sorted({*PATHS.values(), "/models", "/chat", "/messages"}, key=len, reverse=True)
_VERSION: Final = re.compile(r"/v\d+\w*$")
_OPENAI: Final = re.compile(r"(/openai)?/v1$")
_SCHEMES: Final = {"ws": "http", "wss": "https"}
_LOCAL: Final = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


def complete_base_url(typed: str, vendor: Vendor) -> str:
    """Return the base URL that somebody meant who typed this: with a scheme and a version path, without an endpoint.

    What is no URL is returned as it is, for the check that follows to refuse.
    """
    text = typed.strip()
    if not text:
        return text
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        text = text.lstrip("/")
        text = f"{_scheme(text)}://{text}"
    try:
        parts = urlsplit(text)
        path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    except ValueError:
        return text
    for _ in range(3):  # the endpoint, pasted twice or with the version in between
        ending = next((one for one in _ENDPOINTS if path.lower().endswith(one)), None)
        if ending is None:
            break
        path = path[: -len(ending)].rstrip("/")
    path = re.sub(r"(/v\d+)\1+$", r"\1", path)
    if vendor.bare_host:  # what is at a version path there has OpenAI's API
        path = _OPENAI.sub("", path)
    if not path and not vendor.bare_host and not (parts.query or parts.fragment):
        own = urlsplit(vendor.base_url)
        path = vendor.version_path or own.path.rstrip("/") or ("" if own.netloc == parts.netloc else "/v1")
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, path, parts.query, parts.fragment))


def other_base_urls(base_url: str, vendor: Vendor, moved_to: str = "") -> Iterator[str]:
    """Yield base URLs on the same host that may be meant by one that does not answer as an API.

    `moved_to`: the address that its answer redirects to; only another scheme of the same host is taken from it.
    """
    parts = urlsplit(base_url)
    seen = {base_url}
    schemes = ["https", "http"] if parts.scheme == "http" and _is_tls_of(parts, moved_to) else [parts.scheme]
    completed = urlsplit(complete_base_url(base_url, vendor)).path
    bare = _VERSION.sub("", parts.path)
    own = vendor.version_path or urlsplit(vendor.base_url).path
    for scheme in schemes:
        for path in (parts.path, completed, f"{parts.path}/v1" if parts.path == bare else bare, own, "/v1"):
            url = urlunsplit((scheme, parts.netloc, path.rstrip("/"), "", ""))
            if url not in seen:
                seen.add(url)
                yield url


def _is_tls_of(parts: SplitResult, moved_to: str) -> bool:
    """Whether a redirect leads to the same host with TLS, each at its usual port."""
    try:
        moved = urlsplit(moved_to)
        return moved.scheme == "https" and moved.netloc == parts.netloc and parts.port is None
    except ValueError:
        return False


def _scheme(address: str) -> str:
    """The scheme of an address that was typed without one: servers on the local network rarely have certificates."""
    host = (urlsplit(f"//{address}").hostname or "") if "[" not in address or "]" in address else ""
    number = parse_address(host)
    local = not is_global_unicast(number) if number is not None else "." not in host or host.endswith(_LOCAL)
    return "http" if local else "https"
