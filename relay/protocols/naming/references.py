"""Objects of an account at an upstream that a request names by their ids, such as vector stores. Pure.

Every user of the portal shares the account, so that its upstream would let each of them read the objects of all the
others, and of the operator. So they are refused, unless the portal's setting allows them. Source: OpenAI's API
reference and its SDK 3.54, November 2026. Ids of files are looked at in `relay.endpoints.files`, where the user's own
files are put in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from portal.lib.json import Json, text_of


class Reference(NamedTuple):
    """An object that a request names."""

    id: str
    param: str  # where
    what: str
    instead: str  # what the client can do
    may_be_own: bool = False  # it may have been made by a response of the user, who then may name it

    @property
    def message(self) -> str:
        where = "which is not yours" if self.may_be_own else "which is not one user's alone"
        return (
            f"“{self.param[:120]}” names {self.what} of the portal's account at the upstream, {where}. {self.instead}"
        )


# What a member with an id names, and what to do instead.
_MEMBERS: Final = {
    name: (what, instead)
    for names, what, instead in (
        (
            ("vector_store_ids", "vector_store_id"),
            "a vector store",
            "Put the texts into the request, or name files from POST /v1/files as “input_file”.",
        ),
        (("skill_id",), "a skill", "Send the skill itself, as one of the type “inline”."),
        (("tunnel_id",), "a tunnel to an MCP server", "Name an address that can be reached, in “server_url”."),
        (("comparison_response_id",), "a response", "Leave it out."),
        (("cached_content", "cachedContent"), "a cached content", "Send the text itself."),  # Gemini's
        (("file_search_store_names", "fileSearchStoreNames"), "a store of files", "Put the texts into the request."),
    )
    for name in names
}
_CONTAINER: Final = (
    "a container",
    "Let a new one be made: “auto” for code_interpreter, “container_auto” for shell; leave items with it out.",
)
# Members whose object names one by its `id`.
_HOLDERS: Final = {
    "prompt": ("a prompt template", "Send its text, as “instructions” and “input”."),
    "voice": ("a voice", "Use one of the model's own voices, by its name."),
    "container": _CONTAINER,
}
_OF_CONTAINERS: Final = ("cntr_", "container_")  # begin the ids of OpenAI's and Anthropic's
_WITH_CONTAINER: Final = frozenset(("code_interpreter", "shell"))  # types of tools
_PUBLIC_SKILLS: Final = "openai-"  # begins the ids of those that OpenAI offers to everybody
_OF_ANTHROPIC: Final = frozenset(("pptx", "xlsx", "docx", "pdf"))  # API reference, November 2026
_IMAGE: Final = "image_generation_call"
# One expression that begins with a quote takes a tenth of the time of a search for each name, also in long texts.
_MARKS: Final = re.compile(
    rb'"(?:prompt"|voice"|container|vector_store_id|skill_id"|tunnel_id"|comparison_response_id"|cached(?:_c|C)ontent"'
    rb"|file(?:_search_s|SearchS)tore)"
)
_setting = {"allowed": False}
WRITTEN: Final = frozenset(("output_text", "refusal", "reasoning_text", "summary_text"))  # what a model wrote
# Members whose objects are the client's own, whatever names they have.
OWN: Final = frozenset(
    (
        "annotations", "arguments", "documents", "headers", "input_schema", "json_schema", "metadata", "parameters",
        "response_schema", "schema",
        # of Gemini's
        "functionCall", "function_call", "functionResponse", "function_response", "parametersJsonSchema",
        "parameters_json_schema", "responseJsonSchema", "response_json_schema", "responseSchema",
    )
)  # fmt: skip


def allow_objects(allowed: bool) -> None:
    """Set, for this process, whether requests may name the objects of an account: then none is found here."""
    _setting["allowed"] = allowed


def may_name_objects(text: bytes) -> bool:
    """Whether JSON without escaped letters may name an object that is to be refused: asked before a body is walked."""
    return _MARKS.search(text) is not None and not _setting["allowed"]


def references_in(value: object, where: str = "") -> list[Reference]:
    """The objects that a decoded body, event or session names. `where`: its own field; empty: it is the whole."""
    found: list[Reference] = []
    left: list[tuple[object, str]] = [(value, where)] if not _setting["allowed"] else []
    while left:
        one, place = left.pop()
        if isinstance(one, list):
            left += [(entry, f"{place}[{at}]") for at, entry in enumerate(one) if isinstance(entry, (dict, list))]
        elif isinstance(one, dict) and (kind := text_of(one, "type")) not in WRITTEN:
            called = kind.endswith(("_call", "_use"))  # a model made it: only where it ran can be named again
            for name, member in one.items():
                path = f"{place}.{name}" if place else name
                found += _named(one, name, member, path, called)
                if isinstance(member, (dict, list)) and name not in OWN and (not called or name == "environment"):
                    left.append((member, path))
    return found


def _named(holder: Json, name: str, member: object, path: str, called: bool) -> Iterable[Reference]:
    """What one member names."""
    if name == "container_id" or (name == "container" and isinstance(member, str)):
        known = name == "container_id" or text_of(holder, "type") in _WITH_CONTAINER
        if isinstance(member, str) and member and (known or member.startswith(_OF_CONTAINERS)):
            yield Reference(member, path, *_CONTAINER, may_be_own=True)
    elif called:
        return
    elif name in _HOLDERS and isinstance(member, dict):
        if member.get("id"):
            yield Reference(str(member["id"]), f"{path}.id", *_HOLDERS[name], may_be_own=name == "container")
    elif name in _MEMBERS and member and not (name == "skill_id" and _is_public(holder, str(member))):
        yield Reference(str(member), path, *_MEMBERS[name])


def _is_public(holder: Json, skill: str) -> bool:
    """Whether a skill is one that its vendor offers to everybody; of Anthropic's, the names are known."""
    return skill.startswith(_PUBLIC_SKILLS) or (text_of(holder, "type") != "custom" and skill in _OF_ANTHROPIC)


def items_named(items: Sequence[Json], where: str) -> list[Reference]:
    """The stored items and images that input items name in place of themselves. `where`: the field with the items."""
    found: list[Reference] = []
    for index, item in enumerate(items if not _setting["allowed"] else ()):
        kind, path = text_of(item, "type"), f"{where}[{index}].id"
        if kind == "item_reference":
            found.append(Reference(text_of(item, "id"), path, "an item", "Send the item itself.", True))
        elif kind == _IMAGE and not item.get("result"):
            found.append(Reference(text_of(item, "id"), path, "an image", "Send the image as “input_image”.", True))
    return found
