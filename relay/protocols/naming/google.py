"""Objects of the portal's account at Google that a request names, which every user shares. Pure.

Files of the Files API and of Cloud Storage, data stores and corpora, secrets that sign in at addresses of the client's,
templates of Model Armor. Cached contents and file search stores are among `relay.protocols.naming.references`.
Source: google-genai 3.6.1 (`types.Tool`, `types.AuthConfig`, `types.ModelArmorConfig`, `interactions.Tool`,
`interactions.Environment`), November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from relay.protocols.naming.references import Reference

# Files that an account has uploaded, or that it can read in its storage.
_STORED: Final = re.compile(
    r"\s*(?:https?://(?!storage\.)[^/]*googleapis\.com(?::\d+)?/(?:.*/)?files/|/*(?:v\d\w*/)?files/|gs:)", re.I
)
_FILE: Final = ("a file", "Send the file itself, or an address from which anybody can fetch it.")
_OBJECT: Final = ("an object", "Leave it out.")
_ADDRESSES: Final = frozenset(("fileuri", "uri"))
_OBJECTS: Final = frozenset(
    (
        "vertexaisearch", "vertexragstore", "ragcorpora", "ragresources", "datastore", "prompttemplatename",
        "responsetemplatename", "apikeysecret", "apikeysecretversion", "credentialsecret", "serviceaccount",
        "googleserviceaccountconfig",
        # of interactions
        "vertexaisearchconfig", "ragstoreconfig", "credential",
    )
)  # fmt: skip
# Members whose objects are the client's own, whatever names they have.
_OWN: Final = frozenset(
    (
        "args", "response", "parameters", "parametersjsonschema", "responsejsonschema", "responseschema", "labels",
        "partmetadata", "arguments", "headers", "customconfig",
    )
)  # fmt: skip


def is_stored(address: str) -> bool:
    """Whether an address names a file that is read with the account's key."""
    return _STORED.match(address) is not None


def stored_in(value: object, where: str) -> Iterator[Reference]:
    """Such objects in a part of a request, in either spelling. `where`: its field."""
    left: list[tuple[object, str]] = [(value, where)]
    while left:
        one, place = left.pop()
        if isinstance(one, list):
            left += [(entry, f"{place}[{index}]") for index, entry in enumerate(one)]
        elif isinstance(one, dict):
            for name, member in one.items():
                if name == "result" and isinstance(member, dict):
                    continue  # of a client's own function
                plain, path = name.replace("_", "").lower(), f"{place}.{name}" if place else name
                if plain in _OBJECTS and member:
                    yield Reference(str(member), path, *_OBJECT)
                if plain in _ADDRESSES and isinstance(member, str) and is_stored(member):
                    yield Reference(member, path, *_FILE)
                if plain not in _OWN and isinstance(member, (dict, list)):
                    left.append((member, path))
