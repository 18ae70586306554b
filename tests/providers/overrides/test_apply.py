"""What rules make of the body of a request, undecoded and decoded alike."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.providers.overrides.apply import to_body, to_fields, to_form, to_items
from relay.providers.overrides.rules import read_overrides

MESSAGES = [{"role": "user", "name": "ann", "content": "Hi"}, {"role": "assistant", "content": None}]


def rules_of(*rules: dict[str, Any], api: str = "chat.completions") -> Any:
    found = read_overrides(list(rules))
    assert found is not None
    return found.of_body(api, "m", "m")


def fields_of(body: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}


def applied(rules: Any, body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What both ways make of a body, which is the same."""
    before = copy.deepcopy(body)
    fields, ignored = to_fields(rules, fields_of(body))
    found = {name: msgspec.json.decode(raw) for name, raw in fields.items()}
    decoded = copy.deepcopy(body)
    assert (to_body(rules, decoded), decoded) == (ignored, found)
    assert body == before
    return found, ignored


@pytest.mark.parametrize(
    ("rule", "body", "sent", "ignored"),
    [
        ({"do": "set", "path": "seed", "value": 7}, {}, {"seed": 7}, []),
        ({"do": "set", "path": "seed", "value": 7}, {"seed": 3}, {"seed": 7}, ["seed"]),
        ({"do": "set", "path": "seed", "value": 7}, {"seed": 7}, {"seed": 7}, []),
        ({"do": "set", "path": "seed", "value": None}, {"seed": 7}, {"seed": None}, ["seed"]),
        ({"do": "default", "path": "seed", "value": 7}, {"seed": None}, {"seed": 7}, []),
        ({"do": "default", "path": "seed", "value": 7}, {"seed": 0}, {"seed": 0}, []),
        ({"do": "remove", "path": "seed"}, {"seed": 7, "x": 1}, {"x": 1}, ["seed"]),
        ({"do": "remove", "path": "seed"}, {"seed": None}, {}, []),
        ({"do": "remove", "path": "seed"}, {"x": 1}, {"x": 1}, []),
        ({"do": "rename", "path": "a", "to": "b"}, {"a": 1}, {"b": 1}, []),
        ({"do": "rename", "path": "a", "to": "b"}, {"a": 1, "b": 2}, {"b": 2}, ["a"]),
        ({"do": "rename", "path": "a", "to": "b"}, {"a": 1, "b": 1}, {"b": 1}, []),
        ({"do": "rename", "path": "a", "to": "b"}, {"a": 1, "b": None}, {"b": 1}, []),
        ({"do": "rename", "path": "a", "to": "b.c"}, {"a": 1, "b": "text"}, {"b": "text"}, ["a"]),
        ({"do": "rename", "path": "a.x", "to": "a"}, {"a": {"x": 1}}, {"a": {}}, ["a.x"]),
        ({"do": "rename", "path": "a", "to": "b"}, {"a": None}, {}, []),
        ({"do": "rename", "path": "a", "to": "b.c"}, {"a": [1]}, {"b": {"c": [1]}}, []),
        ({"do": "rename", "path": "a.x", "to": "a.y"}, {"a": {"x": 1, "z": 2}}, {"a": {"y": 1, "z": 2}}, []),
        ({"do": "rename", "path": "a.x", "to": "b"}, {"a": {"x": 1}}, {"a": {}, "b": 1}, []),
        ({"do": "set", "path": "a.b", "value": 1}, {}, {"a": {"b": 1}}, []),
        ({"do": "set", "path": "a.b", "value": 1}, {"a": {"b": 2, "c": 3}}, {"a": {"b": 1, "c": 3}}, ["a.b"]),
        ({"do": "set", "path": "a.b", "value": 1}, {"a": "text"}, {"a": "text"}, []),
        ({"do": "set", "path": "a.b", "value": True}, {"a": {"b": 1}}, {"a": {"b": True}}, ["a.b"]),
        ({"do": "default", "path": "a.b", "value": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}, []),
        ({"do": "remove", "path": "a.b"}, {"a": {"b": 2}}, {"a": {}}, ["a.b"]),
        ({"do": "set", "path": "/a.b/c~1d", "value": 1}, {}, {"a.b": {"c/d": 1}}, []),
        (
            {"do": "remove", "path": "messages.*.name"},
            {"messages": MESSAGES},
            {"messages": [{"role": "user", "content": "Hi"}, MESSAGES[1]]},
            ["messages.*.name"],
        ),
        ({"do": "remove", "path": "messages.*.x"}, {"messages": MESSAGES}, {"messages": MESSAGES}, []),
        (
            {"do": "set", "path": "generationConfig.topK", "value": 4},
            {"generation_config": {"top_k": 3}},
            {"generation_config": {"top_k": 4}},
            ["generationConfig.topK"],
        ),
    ],
)
def test_a_rule(rule: dict[str, Any], body: dict[str, Any], sent: dict[str, Any], ignored: list[str]) -> None:
    assert applied(rules_of(rule), body) == (sent, ignored)


def test_rules_are_applied_from_top_to_bottom() -> None:
    rules = rules_of(
        {"do": "rename", "path": "max_tokens", "to": "max_completion_tokens"},
        {"do": "default", "path": "max_completion_tokens", "value": 9},
        {"do": "set", "path": "max_tokens", "value": 1},
    )
    assert applied(rules, {"max_tokens": 5}) == ({"max_completion_tokens": 5, "max_tokens": 1}, [])


def test_members_that_no_rule_is_about_stay_the_bytes_that_they_were() -> None:
    odd = msgspec.Raw(b'[ {"role" :"user" , "content":"1.10e0 \\/" } ]')
    fields = {"messages": odd, "seed": msgspec.Raw(b"1"), "price": msgspec.Raw(b"1.10")}
    rules = rules_of(
        {"do": "remove", "path": "messages.*.name"},
        {"do": "set", "path": "seed", "value": 2},
        {"do": "remove", "path": "nowhere"},
    )
    sent, _ = to_fields(rules, fields)
    assert sent["messages"] is odd and bytes(sent["price"]) == b"1.10" and bytes(sent["seed"]) == b"2"
    same, ignored = to_fields(rules_of({"do": "remove", "path": "nowhere"}), fields)
    assert same is fields and ignored == []


def test_a_form_has_texts() -> None:
    rules = rules_of(
        {"do": "set", "path": "n", "value": 2},
        {"do": "set", "path": "flag", "value": True},
        {"do": "rename", "path": "size", "to": "resolution"},
        {"do": "set", "path": "a.b", "value": 1},
        {"do": "remove", "path": "user"},
        api="images.edits",
    )
    sent, ignored = to_form(rules, fields_of({"size": "1x1", "user": "u", "prompt": "p"}))
    assert {name: msgspec.json.decode(raw) for name, raw in sent.items()} == {
        "prompt": "p",
        "resolution": "1x1",
        "n": "2",
        "flag": "true",
    }
    assert ignored == ["user"]


def test_items_that_stand_in_place_of_the_clients_own() -> None:
    rules = rules_of({"do": "remove", "path": "input.*.status"}, {"do": "remove", "path": "seed"}, api="responses")
    items: list[dict[str, object]] = [{"type": "message", "status": "completed"}, {"type": "message"}]
    assert to_items(rules, "input", items) == ([{"type": "message"}, {"type": "message"}], ["input.*.status"])
    assert items[0]["status"] == "completed"


names = st.sampled_from(["a", "b", "seed", "top_k", "topK", "x_y"])
values = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2), lambda inner: (
    st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3)
), max_leaves=6)  # fmt: skip
paths = st.lists(names, min_size=1, max_size=3).map(".".join)
random_rules = st.one_of(
    st.builds(lambda do, path, value: {"do": do, "path": path, "value": value},
              st.sampled_from(["set", "default"]), paths, values),
    st.builds(lambda path: {"do": "remove", "path": path}, paths),
    st.builds(lambda path, to: {"do": "rename", "path": path, "to": to}, paths, paths).filter(
        lambda rule: rule["path"] != rule["to"]
    ),
)  # fmt: skip


@given(st.lists(random_rules, min_size=1, max_size=4), st.dictionaries(names, values, max_size=4))
def test_both_ways_make_the_same_of_anything(rules: list[dict[str, Any]], body: dict[str, Any]) -> None:
    applied(rules_of(*rules), body)
