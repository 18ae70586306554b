"""Names of tools that an upstream accepts: each tool has one of its own, and the client reads what it wrote."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocols.naming.tool_names import accepted_names, restore_names, short_name, with_accepted_names

NAMES = st.lists(st.text("ab._:-/é", min_size=1, max_size=80), min_size=1, max_size=6, unique=True)


@settings(max_examples=200, deadline=None)
@given(NAMES)
def test_every_name_is_accepted_and_none_is_another(names: list[str]) -> None:
    found = accepted_names(names)
    assert [*found] == names
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", told) for told in found.values())
    assert len(set(found.values())) == len(names)


def test_a_name_that_looks_like_a_shortened_one_stays_another() -> None:
    long = "a" * 70
    taken = short_name(long, long, ())
    assert accepted_names([long, taken])[taken] == taken
    assert accepted_names([long, taken])[long] not in {taken, long}


def test_a_request_has_its_tools_calls_results_and_choices_under_one_name() -> None:
    call: dict[str, Any] = {"id": "a", "type": "function", "function": {"name": "mcp.list", "arguments": "{}"}}
    choice = {"type": "function", "function": {"name": "mcp.list"}}
    hub: dict[str, Any] = {
        "messages": [
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "name": "mcp.list", "content": "x"},
        ],
        "tools": [{"type": "function", "function": {"name": "mcp.list"}}, {"type": "custom", "custom": {"name": "é"}}],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [choice]}},
    }
    found, names = with_accepted_names(hub)
    told: dict[str, Any] = {**found}
    assert names == {"mcp_list": "mcp.list", "_": "é"}
    assert "mcp.list" not in str(told) and "é" not in str(told)
    assert "mcp.list" in str(hub)  # which is the client's
    restore_names(told["messages"], names)
    assert told["messages"][0]["tool_calls"] == [call]


def test_a_request_whose_names_are_accepted_is_not_copied() -> None:
    hub: dict[str, Any] = {"messages": [], "tools": [{"type": "function", "function": {"name": "list"}}]}
    assert with_accepted_names(hub) == (hub, {}) and with_accepted_names(hub)[0] is hub
