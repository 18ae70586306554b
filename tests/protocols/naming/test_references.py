"""What counts as naming an object of the account at an upstream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from relay.protocols.fields import BadRequest, read_document, read_object
from relay.protocols.naming.references import (
    Reference,
    allow_objects,
    items_named,
    may_name_objects,
    references_in,
)
from relay.protocols.naming.unpriced_tools import allow_unpriced_tools


@pytest.fixture(autouse=True)
def _unpriced_tools_are_offered() -> Iterator[None]:
    allow_unpriced_tools(True)
    yield
    allow_unpriced_tools(False)


SEARCH = {"type": "file_search", "vector_store_ids": ["vs_1"]}
NAMED: dict[str, tuple[dict[str, Any], str]] = {
    "vector store": ({"tools": [SEARCH]}, "tools[0].vector_store_ids"),
    "one that a tool search found": (
        {"input": [{"type": "tool_search_output", "tools": [SEARCH]}]},
        "input[0].tools[0].vector_store_ids",
    ),
    "one of a namespace": (
        {"tools": [{"type": "namespace", "name": "n", "tools": [SEARCH]}]},
        "tools[0].tools[0].vector_store_ids",
    ),
    "one that is demanded": (
        {"tool_choice": {"type": "allowed_tools", "tools": [SEARCH]}},
        "tool_choice.tools[0].vector_store_ids",
    ),
    "container": ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "tools[0].container"),
    "container of another name": ({"tools": [{"type": "code_interpreter", "container": "x"}]}, "tools[0].container"),
    "container of the request": ({"container": "container_011"}, "container"),
    "container as an object": ({"container": {"id": "container_011"}}, "container.id"),
    "container of a shell": (
        {"tools": [{"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_1"}}]},
        "tools[0].environment.container_id",
    ),
    "container of an earlier call": (
        {"input": [{"type": "code_interpreter_call", "id": "ci", "container_id": "cntr_1", "code": "ls"}]},
        "input[0].container_id",
    ),
    "container of an earlier shell": (
        {"input": [{"type": "shell_call", "environment": {"type": "container_reference", "container_id": "cntr_1"}}]},
        "input[0].environment.container_id",
    ),
    "skill": (
        {
            "tools": [
                {
                    "type": "shell",
                    "environment": {
                        "type": "container_auto",
                        "skills": [{"type": "skill_reference", "skill_id": "skill_1"}],
                    },
                }
            ]
        },
        "tools[0].environment.skills[0].skill_id",
    ),
    "tunnel": ({"tools": [{"type": "mcp", "server_label": "a", "tunnel_id": "t"}]}, "tools[0].tunnel_id"),
    "template": ({"prompt": {"id": "pmpt_1", "version": "2"}}, "prompt.id"),
    "template of a session": ({"session": {"prompt": {"id": "pmpt_1"}}}, "session.prompt.id"),
    "template of a response": ({"response": {"prompt": {"id": "pmpt_1"}}}, "response.prompt.id"),
    "voice": ({"voice": {"id": "voice_1"}}, "voice.id"),
    "voice of a session": ({"session": {"audio": {"output": {"voice": {"id": "v"}}}}}, "session.audio.output.voice.id"),
    "cached content": (
        {"extra_body": {"google": {"cached_content": "cachedContents/1"}}},
        "extra_body.google.cached_content",
    ),
    "response": (
        {"prompt_cache_options": {"comparison_response_id": "resp_1"}},
        "prompt_cache_options.comparison_response_id",
    ),
}
OWN: dict[str, dict[str, Any]] = {
    "nothing in it": {"tools": [{"type": "file_search", "vector_store_ids": []}], "prompt": None, "container": None},
    "a new container": {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}}]},
    "a format of sound": {"output_format": {"container": "raw", "encoding": "pcm_f32le"}, "container": "wav"},
    "a skill of OpenAI's": {"skills": [{"type": "skill_reference", "skill_id": "openai-spreadsheets"}]},
    "a skill in the request": {"skills": [{"type": "inline", "name": "a", "source": {"data": "UEsDBA=="}}]},
    "an MCP server of the client": {
        "tools": [{"type": "mcp", "server_label": "a", "server_url": "https://a.example", "authorization": "secret"}]
    },
    "headers for it": {"tools": [{"type": "mcp", "headers": {"skill_id": "a", "container_id": "b"}}]},
    "a connector with the client's sign-in": {
        "tools": [{"type": "mcp", "connector_id": "connector_gmail", "authorization": "ya29"}]
    },
    "a prompt that is a text": {"prompt": '{"id": "pmpt_1"}'},
    "a voice by its name": {"voice": "alloy"},
    "a schema": {
        "tools": [{"type": "function", "parameters": {"properties": {"vector_store_ids": {"type": "array"}}}}]
    },
    "metadata": {"metadata": {"container_id": "a", "skill_id": "b"}},
    "an identifier for the order of work": {"background_options": {"continuation_id": "mine"}},
    "what was cited": {
        "content": [
            {
                "type": "output_text",
                "text": "x",
                "annotations": [{"type": "container_file_citation", "container_id": "cntr_1", "file_id": "cfile_1"}],
            }
        ]
    },
    "what was found": {"type": "file_search_call", "id": "fs", "results": [{"file_id": "f", "vector_store_id": "vs"}]},
}


def where(body: dict[str, Any]) -> list[str]:
    return [found.param for found in references_in(body)]


@pytest.mark.parametrize("name", NAMED)
def test_objects_are_found_at_their_places(name: str) -> None:
    body, place = NAMED[name]
    text = json.dumps({"model": "m", **body}).encode()
    assert where(body) == [place] and may_name_objects(text)
    for read in (read_document, read_object):
        with pytest.raises(BadRequest) as refused:
            read(text)
        assert (refused.value.status, refused.value.param) == (400, place)
        assert place in refused.value.message and refused.value.message[-1] == "."


@pytest.mark.parametrize("name", OWN)
def test_what_is_the_clients_own_is_none(name: str) -> None:
    body = OWN[name]
    assert where(body) == []
    assert read_object(json.dumps(body).encode()) == body


def test_escapes_and_other_letters_hide_nothing() -> None:
    for member in ('"vector_\\u0073tore_ids"', '"Vector_Store_IDs"', '"vector_store_ids\\u0000"'):
        body = f'{{"model":"m","tools":[{{"type":"file_search",{member}:["vs_1"]}}]}}'
        with pytest.raises(BadRequest):
            read_document(body.encode())


def test_a_type_may_be_anything() -> None:
    strange = {"type": ["output_text"], "container": {"type": {}}, "vector_store_ids": ["vs_1"]}
    assert where({"tools": [strange, 1, [strange]]}) == ["tools[2][0].vector_store_ids", "tools[0].vector_store_ids"]


def test_a_large_body_hides_nothing() -> None:
    body = {"model": "m", "input": [{"type": "input_image", "image_url": "A" * 400_000}], **NAMED["template"][0]}
    with pytest.raises(BadRequest):
        read_document(json.dumps(body).encode())


def test_containers_may_be_the_users_own_and_others_never() -> None:
    named: list[Reference] = []
    tools = [{"type": "code_interpreter", "container": "cntr_1"}]
    read_document(json.dumps({"model": "m", "tools": tools}).encode(), "", named)
    assert [(one.id, one.param) for one in named] == [("cntr_1", "tools[0].container")]
    with pytest.raises(BadRequest):
        read_document(json.dumps({"model": "m", "tools": [*tools, SEARCH]}).encode(), "", named)


def test_none_is_found_where_they_are_allowed() -> None:
    named: list[Reference] = []
    allow_objects(True)
    try:
        for body, _ in NAMED.values():
            assert where(body) == []
            assert read_document(json.dumps({"model": "m", **body}).encode(), "", named).body
        assert items_named([{"type": "item_reference", "id": "msg_1"}], "input") == []
    finally:
        allow_objects(False)
    assert not named and references_in(NAMED["template"][0])
