"""Errors of upstreams that clients read in the upstream's own words. Pure.

Clients act on the wording of their vendor's errors, so that nothing is left out of it but secrets, internal addresses
and accounts: links to a vendor's documentation stay.
"""

from __future__ import annotations

import re

from portal.lib.redaction.redact import redact

_PRIVATE = r"(?:10|127|169\.254|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}(?:\.\d{1,3}){1,2}"
_INTERNAL: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            rf"\b[a-z][a-z0-9+.-]*://(?:{_PRIVATE}|[\w-]+|[\w.-]+\.(?:internal|local|lan))(?::\d+)?(?=[/?#\s\"'\\]|$)"
            r"[^\s\"'\\<>)]*",
            re.I,
        ),
        "[link removed]",
    ),
    (re.compile(rf"\b{_PRIVATE}(?::\d{{1,5}})?\b"), "[address]"),
    (re.compile(r"\b(?:org|proj|acct|wrkspc)[-_][A-Za-z0-9]{6,}"), "[account]"),
)
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.I)


def kept_words(body: bytes, secrets: tuple[str, ...], accounts: bool) -> bytes:
    """The JSON body of an upstream's error as it is, but for secrets, internal addresses and accounts.

    Empty for a body that is no text in JSON. `secrets`: the portal's own, such as the key and the host. `accounts`: it
    names accounts by UUIDs.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return b""
    if not text.lstrip().startswith("{"):
        return b""
    for secret in secrets:
        if len(secret) > 3:
            text = text.replace(secret, "[removed]")
    text = redact(text)
    for pattern, replacement in _INTERNAL:
        text = pattern.sub(replacement, text)
    return (_UUID.sub("[account]", text) if accounts else text).encode()
