"""Changes of settings leave everything else in them as it is."""

from __future__ import annotations

import json
import tomllib

import pytest

from portal.clients.app import CannotEdit
from portal.clients.edits import in_env, in_json, in_toml

TOML = """# mine
model = "gpt-5" # the best
approval_policy = "on-request"

[mcp_servers.docs]
command = "npx"

[model_providers.other]
name = "Other" # stays
"""
WANTED = {("model",): "m", ("model_provider",): "airelays", ("model_providers", "airelays", "name"): "AIRelays"}


def test_toml_keeps_its_comments_and_its_tables() -> None:
    edited = in_toml(TOML, WANTED)
    assert set(TOML.splitlines()) - set(edited.splitlines()) == {'model = "gpt-5" # the best'}
    assert 'model = "m" # the best' in edited
    found = tomllib.loads(edited)
    assert found["model_provider"] == "airelays" and set(found["model_providers"]) == {"other", "airelays"}
    assert in_toml(edited, WANTED) == edited, "a second time changes nothing"


@pytest.mark.parametrize("text", ["", "[a]\nb = 1\n", '[model_providers]\nx = {name = "y"}\n', "a.b = 1\n"])
def test_toml_of_other_forms(text: str) -> None:
    found, before = tomllib.loads(in_toml(text, WANTED)), tomllib.loads(text)
    assert found["model"] == "m" and found["model_providers"]["airelays"] == {"name": "AIRelays"}
    assert all(found[name] == value for name, value in before.items() if name != "model_providers")


@pytest.mark.parametrize("text", ["model = \n", "model_providers = 5\n", 'model_providers = {x = {name = "y"}}\n'])
def test_toml_that_cannot_be_edited_is_left(text: str) -> None:
    with pytest.raises(CannotEdit):
        in_toml(text, WANTED)


def test_json_keeps_its_members_their_order_and_its_indent() -> None:
    text = '{\n    "permissions": {\n        "allow": ["Bash(ü)"]\n    },\n    "env": {"A": "1"}\n}\n'
    edited = in_json(text, {("env", "B"): "2", ("a", "b", "c"): True})
    assert json.loads(edited) == {**json.loads(text), "env": {"A": "1", "B": "2"}, "a": {"b": {"c": True}}}
    assert list(json.loads(edited)) == ["permissions", "env", "a"] and '\n    "permissions"' in edited and "ü" in edited
    assert in_json("", {("env", "B"): "2"}) == '{\n  "env": {\n    "B": "2"\n  }\n}\n'


@pytest.mark.parametrize("text", ["[]", '{"env": 5}', '{"env": {} // mine\n}', '{"env": {},}', '"x"', "null"])
def test_json_that_cannot_be_edited_is_left(text: str) -> None:
    with pytest.raises(CannotEdit):
        in_json(text, {("env", "B"): "2"})


def test_variables_are_replaced_wherever_they_are() -> None:
    text = "# keys\nexport KEY=old\nOTHER=1\nKEY = older\n"
    assert in_env(text, {"KEY": "sk-1", "URL": "http://127.0.0.1:8000"}) == (
        "# keys\nOTHER=1\nKEY=sk-1\nURL=http://127.0.0.1:8000\n"
    )
    assert in_env("", {"KEY": "sk-1"}) == "KEY=sk-1\n"


@pytest.mark.parametrize("value", ["a b", "a#b", "$HOME", "a\nB=2", '"'])
def test_a_value_that_would_be_read_otherwise_is_not_written(value: str) -> None:
    with pytest.raises(CannotEdit):
        in_env("", {"KEY": value})
