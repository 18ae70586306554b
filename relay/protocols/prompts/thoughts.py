"""What of a text that a model has written is its thinking, and whether the rest says anything. Pure.

Servers without a reasoning parser leave the thinking of a model in its text, in the marks of the model.
"""

from __future__ import annotations

import unicodedata
from typing import Final

# By which models mark what they think, as vLLM's and SGLang's reasoning parsers list them (November 2026).
_MARKS: Final = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
)
_ANSWER: Final = "<|start|>assistant<|channel|>final<|message|>"  # begins what gpt-oss answers
_FENCES: Final = ("```", "~~~")
_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0")  # letters by their category, and blank


def without_thinking(text: str) -> str:
    """The text without what its model thought, stripped; empty where a thought has no end: nothing followed it.

    A mark counts where it begins a line; in a block of code it is a quotation. An end alone closes a thought that the
    server's template has begun.
    """
    kept: list[str] = []
    end = quoted = fence = ""
    left = [*reversed(text.splitlines(keepends=True))]
    while left:
        line = left.pop()
        if end:
            _, found, rest = line.partition(end)
            if found:
                end = ""
                left.append(rest)
            continue
        begun = line.lstrip()
        if begun.startswith(_ANSWER):
            line = begun = begun.removeprefix(_ANSWER)
        if begun.startswith(_FENCES) and (not fence or begun.startswith(fence)):
            fence = "" if fence else begun[:3]
        mark = next(((start, stop) for start, stop in _MARKS if begun.startswith(start)), None)
        if mark is not None and not fence:
            end = mark[1]
            left.append(begun.removeprefix(mark[0]))
        elif mark is not None:
            quoted = mark[1]
            kept.append(line)
        elif quoted and quoted in line:
            quoted = ""
            kept.append(line)
        elif (after := _after_thought(begun)) is not None:
            kept.clear()
            fence = ""
            left.append(after)
        else:
            kept.append(line)
    return "" if end else "".join(kept).strip()


def _after_thought(line: str) -> str | None:
    """What follows the end of a thought that this line has, None: it has none. In a sentence it is a quotation."""
    for start, end in _MARKS:
        if line.startswith(end):
            return line.removeprefix(end)
        if line.rstrip().endswith(end) and start not in line and "`" not in line:
            return ""
    return None


def says_something(text: str) -> bool:
    """Whether a text has a letter or a digit: signs, blanks and characters without width alone say nothing."""
    return any(unicodedata.category(one)[0] in "LN" and one not in _FILLERS for one in text)
