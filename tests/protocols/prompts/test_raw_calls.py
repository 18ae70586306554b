"""Calls of tools in the text of a model."""

from __future__ import annotations

import pytest

from relay.protocols.prompts.raw_calls import ends_in_call

CALL = '{"name": "read", "arguments": {"path": "a.py"}}'


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{CALL}\n</tool_call>",  # Hermes, Qwen
        f"I look at the file first.\n\n<tool_call>{CALL}</tool_call>",
        f"I look at the file first. <tool_call>{CALL}</tool_call>",
        f"<tool_call>{CALL}",
        "<tool_call><function=read><parameter=path>a.py</parameter></function></tool_call>",  # Qwen 3 Coder
        "<function=read>{}</function>",  # Functionary
        '<minimax:tool_call><invoke name="read"></invoke></minimax:tool_call>',
        '<function_calls><invoke name="read"><parameter name="path">a.py</parameter></invoke></function_calls>',
        "<seed:tool_call>x</seed:tool_call>",
        f"<|tool_call|>[{CALL}]",  # Granite
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.read:0<|tool_call_argument_begin|>{}<|tool_call_end|>",
        "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>function",
        "<|python_tag|>read.call(path='a.py')",
        f"[TOOL_CALLS][{CALL}]",
        '[TOOL_CALLS]read{"path": "a.py"}',
        f"<TOOLCALL>[{CALL}]</TOOLCALL>",
        "<|tool_call_start|>[read(path='a.py')]<|tool_call_end|>",
        f"<|START_ACTION|>[{CALL}]<|END_ACTION|>",
        CALL,
        f"[{CALL}, {CALL}]",
        f"```json\n{CALL}\n```",
        '{"name": "read", "parameters": {}}',  # Llama
        "[read(path='a.py'), read(path='b.py')]",
        f"functools[{CALL}]",
    ],
)
def test_a_text_that_is_a_call_or_announces_one(text: str) -> None:
    assert ends_in_call(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "They like tea.",
        "They write `<tool_call>` where a call begins.",
        f"The last call was <tool_call>{CALL}</tool_call>, and it failed.",
        f"It printed:\n```\n<tool_call>{CALL}</tool_call>\n```",
        'The file has {"name": "read"} in it.',
        '{"name": "Ann", "age": 7}',
        "[a list](https://example.org)",
        "[1, 2]",
        "[]",
        "[ ] read(a.py) is open",
        "The template has '[TOOL_CALLS]' in it.",
    ],
)
def test_what_is_quoted_is_none(text: str) -> None:
    assert not ends_in_call(text)
