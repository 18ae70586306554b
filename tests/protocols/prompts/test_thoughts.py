"""Thinking in the text of a model."""

from __future__ import annotations

import pytest

from relay.protocols.prompts.thoughts import says_something, without_thinking

CODE = "They parse:\n```\n<think>\nwhales\n</think>\n```\nThat is all."


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("They like tea.", "They like tea."),
        ("<think>the user wants a summary of whales</think>\n", ""),
        ("<think>the user wants a summary", ""),
        ("<think>\nfirst\n</think>\n\nThey like tea.\n", "They like tea."),
        ("<think></think><think>again</think>They like tea.", "They like tea."),
        ("\n  <think>first</think> They like tea.", "They like tea."),
        ("Well.\n<think>\nmore\n</think>\nThey like tea.", "Well.\n\nThey like tea."),
        ("They like tea.\n<think>and then", ""),
        ("what the template has begun\n</think>\n\nThey like tea.", "They like tea."),
        ("a thought on one line</think>\nThey like tea.", "They like tea."),
        ("a thought\n</think>They like tea.", "They like tea."),
        ("a thought with ``` in it\n```\n</think>\nThey like tea.", "They like tea."),
        ("only thought\n</think>\n", ""),
        ("[THINK]mistral[/THINK]They like tea.", "They like tea."),
        ("<seed:think>seed</seed:think>They like tea.", "They like tea."),
        ("◁think▷kimi◁/think▷They like tea.", "They like tea."),
        ("<|START_THINKING|>command<|END_THINKING|>They like tea.", "They like tea."),
        (
            "<|channel|>analysis<|message|>oss<|end|><|start|>assistant<|channel|>final<|message|>They like tea.",
            "They like tea.",
        ),
        ("They ask what <think> does.", "They ask what <think> does."),
        ("Cut it at `</think>`\nas before.", "Cut it at `</think>`\nas before."),
        ("It is between <think> and </think>\nas before.", "It is between <think> and </think>\nas before."),
        (CODE, CODE),
    ],
)
def test_what_a_model_thought_is_no_part_of_what_it_says(text: str, left: str) -> None:
    assert without_thinking(text) == left


@pytest.mark.parametrize(
    ("text", "something"),
    [
        ("", False),
        ("\u00a0\u200b\n", False),
        ("\u2060\ufeff\u00ad\u034f\ufe0f\u2800\u3164\u115f\uffa0", False),
        ("... – * #", False),
        ("7", True),
        ("茶", True),
        ("\u200bT", True),
    ],
)
def test_blanks_say_nothing(text: str, something: bool) -> None:
    assert says_something(text) is something
