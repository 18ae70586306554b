"""Errors of upstreams that clients read in the upstream's own words. Pure.

Clients act on the wording of their vendor's errors, so that nothing is left out of it but secrets, internal addresses
and accounts: links to a vendor's documentation stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from portal.lib.redaction.places import without_accounts
from portal.lib.redaction.redact import redact
from portal.lib.redaction.rules import ACCOUNT, ADDRESS, LINK
from portal.lib.redaction.sent import sent

REMOVED: Final = "[removed]"
_object: Final = msgspec.json.Decoder(dict[str, object])

_PRIVATE = r"(?:10|127|169\.254|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}(?:\.\d{1,3}){1,2}"
_INTERNAL: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            rf"\b[a-z][a-z0-9+.-]*://(?:{_PRIVATE}|[\w-]+|[\w.-]+\.(?:internal|local|lan))(?::\d+)?(?=[/?#\s\"'\\]|$)"
            r"[^\s\"'\\<>)]*",
            re.I,
        ),
        LINK,
    ),
    (re.compile(rf"\b{_PRIVATE}(?::\d{{1,5}})?\b"), ADDRESS),
    (re.compile(r"\b(?:org|proj|acct|wrkspc)[-_][A-Za-z0-9]{6,}"), ACCOUNT),
)
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.I)


Keep = Callable[[bytes], bytes]  # what a client reads of the body of an error


def kept_words(
    body: bytes,
    secrets: tuple[str, ...] = (),
    official: bool = False,
    accounts: bool = False,
    public: frozenset[str] = frozenset(),
) -> bytes:
    """The JSON body of an upstream's error as it is, but for secrets, internal addresses and accounts.

    Empty for a body that is no JSON object. Its strings are looked at as they read, whatever escapes they are written
    with; a body in which nothing has to go keeps its bytes. `secrets`: the portal's own, such as the key. `official`:
    the upstream has the vendor's own address, which is no secret; otherwise the hosts that requests went to are, but
    for those that are `public`. `accounts`: it names accounts by UUIDs.
    """
    try:
        found = _object.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return b""

    def clean(text: str) -> str:
        for secret in secrets:
            if len(secret) > 3:
                text = text.replace(secret, REMOVED)
        text = redact(text)
        for pattern, replacement in _INTERNAL:
            text = pattern.sub(replacement, text)
        text = without_accounts(text)
        if not official:
            text = sent.without_addresses(text, public)
        return _UUID.sub(ACCOUNT, text) if accounts else text

    kept = _cleaned(found, clean)
    return body if kept == found else msgspec.json.encode(kept)


def _cleaned(value: object, clean: Callable[[str], str], name: str = "") -> object:
    """A decoded value with all its strings cleaned. `name`: of the member that it is, which may tell what it holds."""
    if isinstance(value, str):
        shown = clean(value)
        named = f"{name}: {shown}"
        return shown if clean(named) == named else REMOVED
    if isinstance(value, list):
        return [_cleaned(entry, clean, name) for entry in value]
    if isinstance(value, dict):
        return {clean(key): _cleaned(entry, clean, key) for key, entry in value.items()}
    return value
