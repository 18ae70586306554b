"""Tools that vendors bill by what has no price here, beside tokens and searches on the web. Pure.

OpenAI bills containers by the minute and by their memory (20 minutes cost 0.03 USD with 1 GB, 1.92 with 64 GB) and
searches of files by the call, xAI runs of code and searches of collections and attachments by the call, Google answers
with places by the prompt. Nothing in an answer tells how long a container runs, or whether it ran before. So they are
refused, unless the portal's setting allows them at its own cost.

Source: developers.openai.com/api/docs/pricing, docs.x.ai/developers/pricing and ai.google.dev/gemini-api/docs/pricing,
read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from portal.lib.json import Json, object_of, objects_of, text_of

_TYPES: Final = frozenset(("code_interpreter", "file_search", "collections_search", "attachment_search", "google_maps"))
_SHELL: Final = "shell"
_NEW_CONTAINER: Final = "container_auto"
_MEMBERS: Final = frozenset(("googleMaps", "google_maps"))  # by which Gemini's generateContent names its own tools
_MARKS: Final = (
    b"code_interpreter", b"file_search", b"collections_search", b"attachment_search", b"google_maps", b"googleMaps",
    _NEW_CONTAINER.encode(),
)  # fmt: skip
_setting = {"allowed": False}


class UnpricedTool(NamedTuple):
    name: str
    param: str  # where it is


def allow_unpriced_tools(allowed: bool) -> None:
    """Set, for this process, whether requests may use them: then none is found here."""
    _setting["allowed"] = allowed


def may_use_unpriced_tools(member: bytes) -> bool:
    """Whether a member of a request, in JSON without escaped letters, may offer one that is to be refused."""
    return not _setting["allowed"] and b"{" in member and any(mark in member for mark in _MARKS)


def unpriced_tool(request: Json) -> UnpricedTool | None:
    """The first tool without a price that a request offers: in its list of tools, or in one of its items."""
    found = _first_of(objects_of(request, "tools"), "tools")
    for number, item in enumerate(objects_of(request, "input")):
        found = found or _first_of(objects_of(item, "tools"), f"input[{number}].tools")
    return found


def _first_of(tools: Sequence[Json], where: str) -> UnpricedTool | None:
    for number, tool in enumerate(tools):
        kind, place = text_of(tool, "type"), f"{where}[{number}]"
        if kind in _TYPES or (kind == _SHELL and text_of(object_of(tool, "environment"), "type") == _NEW_CONTAINER):
            return UnpricedTool(kind, f"{place}.type")
        if not kind and (own := _MEMBERS.intersection(tool)):
            return UnpricedTool(min(own), f"{place}.{min(own)}")
    return None
