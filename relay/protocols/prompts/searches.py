"""The searches on the web that an upstream may make for a request, which vendors bill by the search. Pure.

Source: the API references of OpenAI, Anthropic, Google and xAI, November 2026.
"""

from __future__ import annotations

import re
from typing import Final

from portal.lib.json import Json, decode, int_of, objects_of, text_of
from relay.protocols.fields import Fields, absent

# That money is held for where nothing limits them. Most answers have fewer; what is more is charged all the same.
USUAL: Final = 3
_TOOLS: Final = re.compile(
    rb"search|enterprise", re.IGNORECASE
)  # what the text of `tools` has in it that name such a tool
# How the types of such tools begin; the first is that of Gemini's interactions.
_KINDS: Final = ("google_search", "web_search", "x_search", "openrouter:web_search")
_GEMINI: Final = frozenset(("googlesearch", "googlesearchretrieval", "enterprisewebsearch"))


def most_searches(fields: Fields) -> int:
    """The searches that money is held for; none for nearly all requests."""
    if "tools" not in fields and "web_search_options" not in fields:  # nearly always
        return 0
    tools, options = fields.get("tools"), fields.get("web_search_options")
    offered = tools is not None and _TOOLS.search(bytes(tools)) is not None
    if not offered and absent(options):
        return 0
    listed = objects_of({"": decode(tools)}, "") if tools is not None and offered else []
    found = sum(map(_most_of, listed)) + (0 if absent(options) else 1)
    calls = decode(fields["max_tool_calls"]) if "max_tool_calls" in fields else None
    if isinstance(calls, int) and not isinstance(calls, bool) and calls >= 0:
        found = min(found, calls)
    return found


def _most_of(tool: Json) -> int:
    if not text_of(tool, "type").startswith(_KINDS):
        return USUAL if any(name.replace("_", "").lower() in _GEMINI for name in tool) else 0
    limit = int_of(tool, "max_uses")
    return min(limit, USUAL) if limit > 0 else USUAL
