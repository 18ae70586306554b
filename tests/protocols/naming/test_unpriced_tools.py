"""Tools that vendors bill by what has no price are found by their types, wherever a list of tools has them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.fields import BadRequest, read_document
from relay.protocols.naming.unpriced_tools import allow_unpriced_tools

NEW = {"type": "container_auto"}


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([{"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "64g"}}], "tools[0].type"),
        ([{"type": "function", "name": "f"}, {"type": "code_interpreter"}], "tools[1].type"),
        ([{"type": "file_search", "vector_store_ids": []}], "tools[0].type"),
        ([{"type": "shell", "environment": NEW}], "tools[0].type"),
        ([{"type": "collections_search"}], "tools[0].type"),
        ([{"functionDeclarations": []}, {"googleMaps": {}}], "tools[1].googleMaps"),
        ([{"google_maps": {"enableWidget": True}}], "tools[0].google_maps"),
        ([{"type": "google_maps"}], "tools[0].type"),
    ],
)
def test_they_are_refused(tools: list[dict[str, Any]], param: str) -> None:
    for text in (json.dumps({"model": "m", "tools": tools}), _escaped({"model": "m", "tools": tools})):
        with pytest.raises(BadRequest) as refused:
            read_document(text.encode())
        assert (refused.value.param, refused.value.code, refused.value.status) == (param, "unsupported_parameter", 422)


def _escaped(body: dict[str, Any]) -> str:
    """The same body with a letter of each type as an escape."""
    return json.dumps(body).replace("c", "\\u0063").replace("g", "\\u0067")


@pytest.mark.parametrize(
    "tools",
    [
        [{"type": "function", "name": "code_interpreter"}],
        [{"type": "function", "function": {"name": "google_maps", "parameters": {"googleMaps": 1}}}],
        [{"functionDeclarations": [{"name": "googleMaps"}]}],
        [{"type": "shell", "environment": {"type": "local"}}],
        [{"type": "web_search"}, {"googleSearch": {}}, {"codeExecution": {}}, {"type": "code_execution"}],
        [{"type": "code_execution_20260521", "name": "code_execution"}],
        "code_interpreter",
        None,
    ],
)
def test_others_are_not(tools: object) -> None:
    read_document(json.dumps({"model": "m", "tools": tools}).encode())


def test_those_of_items_are_refused() -> None:
    items = [{"role": "user", "content": "x"}, {"type": "tool_search_output", "tools": [{"type": "code_interpreter"}]}]
    with pytest.raises(BadRequest) as refused:
        read_document(json.dumps({"model": "m", "input": items}).encode())
    assert refused.value.param == "input[1].tools[0].type"
    read_document(b'{"model":"m","input":"What is code_interpreter?"}')


def test_a_portal_may_offer_them() -> None:
    allow_unpriced_tools(True)
    try:
        read_document(b'{"model":"m","tools":[{"type":"code_interpreter"}]}')
    finally:
        allow_unpriced_tools(False)
