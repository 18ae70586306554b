"""Thinking in the text of a model."""

from __future__ import annotations

import pytest

from relay.protocols.prompts.thoughts import said_in, says_something, without_thinking

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
        ("<THINK>shouted</Think>They like tea.", "They like tea."),
        ("<longcat_think>cat</longcat_think>They like tea.", "They like tea."),
        ("<think:opensource>hunyuan</think:opensource>They like tea.", "They like tea."),
        ("<mm:think>minimax</mm:think>They like tea.", "They like tea."),
        ("<|inner_prefix|>apertus<|inner_suffix|>They like tea.", "They like tea."),
        ("<|begin_of_thought|>\n\nsky\n\n<|end_of_thought|>\n\nThey like tea.", "They like tea."),
        ("<|channel>thought\ngemma<channel|>They like tea.", "They like tea."),
        ("<|open|>think<|sep|>kimi<|close|>think<|sep|>They like tea.", "They like tea."),
        ("solar, which the template began<|think:end|>\nThey like tea.", "They like tea."),
        ("Here's my thought process: granite\nHere is my response: They like tea.", "They like tea."),
        ("Here is my thought process: granite without an end", ""),
        ("<|start|>assistant<|channel|>analysis<|message|>oss<|end|>", ""),
        ("<|channel|>analysis<|message|>oss<|start|>assistant<|channel|>final<|message|>Tea.<|return|>", "Tea."),
        ("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>", ""),
        ("analysisThey want a summary.assistantfinalThey like tea.", "They like tea."),
        ("analysis of the tea market: small", "analysis of the tea market: small"),
        ("Well, <think>\nmore\n</think>\nThey like tea.", "Well,\n\nThey like tea."),
        ("They render <ThinkingPanel>\nwith tea.", "They render <ThinkingPanel>\nwith tea."),
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Okay. <think>The user wants a summary of whales.</think>", False),
        ("<summary></summary>", False),
        ("<|START_TEXT|><|END_TEXT|>", False),
        ("<answer>\n</answer>", False),
        ("<summary>They like tea.</summary>", True),
        ("<analysis>tea or coffee?</analysis>\n<summary>They like tea.</summary>", True),
        ("They ask what <think> does.", True),
        ("They ask what stands between <think> and </think> in it.", True),
        ("茶", True),
    ],
)
def test_a_word_before_a_thought_and_marks_alone_say_nothing(text: str, said: bool) -> None:
    assert bool(said_in(text)) is said
