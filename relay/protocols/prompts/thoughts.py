"""What of a text that a model has written is its thinking, and whether the rest says anything. Pure.

Servers without a reasoning parser leave the thinking of a model in its text, in the marks of the model.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# By which models mark what they think, as the reasoning parsers of vLLM and SGLang and the tags of Open WebUI have them
# (November 2026). Elements go by their names: <think> (DeepSeek, Qwen, GLM …), <thinking>, <thought>, <reason>,
# <reasoning>, <seed:think>, <mm:think> (MiniMax M3), <longcat_think>, <think:opensource> (Hunyuan) …
_NAME: Final = (
    r"(?:[a-z0-9]+[_:.-])*(?:think|thinking|thoughts?|reason|reasoning|reflections?|scratch_?pad|analysis|monologue)"
    r"(?:[_:.-][a-z0-9]+)*"
)
_TOKENS: Final = (
    ("[THINK]", "[/THINK]"),  # Mistral
    ("◁think▷", "◁/think▷"),  # Kimi VL
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),  # Kimi K3
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThoughts
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|content_thinking|>", "<|end_message|>"),  # Inkling
    ("<|think:start|>", "<|think:end|>"),  # Solar Open 2
)
# gpt-oss: `<|start|>assistant<|channel|>analysis<|message|>…<|end|>`, a call in `commentary to=functions.name`.
_CHANNEL: Final = r"(?:<\|start\|>assistant[^<]*)?<\|channel\|>(?:analysis|commentary)[^<]*(?:<\|constrain\|>[^<]*)?"
_CHANNEL_END: Final = re.compile(r"<\|(?:end|call|return)\|>|(?=<\|start\|>|<\|channel\|>)")
_ANSWER: Final = re.compile(r"(?:<\|start\|>assistant[^<]*)?<\|channel\|>final[^<]*<\|message\|>")
_ANSWER_END: Final = re.compile(r"(?:\s*<\|(?:end|return)\|>)+\s*\Z")
_SKIPPED: Final = re.compile(r"\Aanalysis(?=[A-Z])(?:.*?assistantfinal)?", re.DOTALL)  # of it, without special tokens
# Granite 3.2, whose quantized versions write the shorter form (vLLM's granite_reasoning_parser).
_GRANITE: Final = r"Here(?:'s| is) my thought process:"
_GRANITE_END: Final = re.compile(r"Here(?:'s| is) my response:")

_OPENING: Final = re.compile(
    rf"<(?P<name>{_NAME})>|(?P<token>{'|'.join(re.escape(start) for start, _ in _TOKENS)})"
    rf"|(?P<channel>{_CHANNEL}<\|message\|>)",
    re.IGNORECASE,
)
_BEGINNING: Final = re.compile(rf"(?P<granite>{_GRANITE})", re.IGNORECASE)  # of a text alone
_CLOSING: Final = re.compile(rf"</{_NAME}>|{'|'.join(re.escape(end) for _, end in _TOKENS)}", re.IGNORECASE)
_ENDS: Final = {start.lower(): re.compile(re.escape(end), re.IGNORECASE) for start, end in _TOKENS}
_TAG: Final = re.compile(r"</?[^\W\d][\w:.|-]*/?>|<\|[^<>]{1,60}\|>|\[/?[A-Z_]+\]")
_FENCES: Final = ("```", "~~~")
_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0")  # letters by their category, and blank
_ASIDE: Final = 40  # letters and digits that may introduce a thought: a summary has more
_INLINE: Final = 16  # thoughts that are looked for within lines


def said_in(text: str) -> str:
    """The text without what its model thought; empty when the rest says nothing: marks, or a word before a thought."""
    said = without_thinking(text)
    outside = _outside_thoughts(said)
    beside = _letters(_TAG.sub(" ", outside))
    hidden = _letters(said) - _letters(outside)
    return "" if not beside or (beside < _ASIDE and hidden > beside) else said


def without_thinking(text: str) -> str:
    """The text without what its model thought, stripped; empty where a thought has no end: nothing followed it.

    A mark counts where it begins a line, or is closed on another one; in a block of code it is a quotation. An end
    alone closes a thought that the server's template has begun.
    """
    text = _ANSWER_END.sub("", _SKIPPED.sub("", text.lstrip()))
    if (granite := _BEGINNING.match(text)) is not None:
        answer = _GRANITE_END.search(text, granite.end())
        text = text[answer.end() :] if answer is not None else ""
    kept: list[str] = []
    end: re.Pattern[str] | None = None
    quoted: re.Pattern[str] | None = None
    fence, inline = "", _INLINE
    left = [*reversed(text.splitlines(keepends=True))]
    while left:
        line = left.pop()
        if end is not None:
            if (found := end.search(line)) is not None:
                end = None
                left.append(line[found.end() :])
            continue
        begun = line.lstrip()
        if (answer := _ANSWER.match(begun)) is not None:
            line = begun = begun[answer.end() :]
        if begun.startswith(_FENCES) and (not fence or begun.startswith(fence)):
            fence = "" if fence else begun[:3]
        mark = _OPENING.match(begun)
        if mark is not None and not fence:
            end = _end_of(mark)
            left.append(begun[mark.end() :])
        elif mark is not None:
            quoted = _end_of(mark)
            kept.append(line)
        elif quoted is not None and quoted.search(line):
            quoted = None
            kept.append(line)
        elif (after := _after_thought(begun)) is not None:
            kept.clear()
            fence = ""
            left.append(after)
        elif not fence and inline and "`" not in line and (mark := _OPENING.search(line)) is not None:
            inline -= 1
            closed = _end_of(mark)
            if closed.search(line, mark.end()) is None and any(map(closed.search, left)):
                end = closed
                kept.append(f"{line[: mark.start()].rstrip()}\n")
            else:
                kept.append(line)
        else:
            kept.append(line)
    return "" if end is not None else "".join(kept).strip()


def _end_of(mark: re.Match[str]) -> re.Pattern[str]:
    if mark["channel"] is not None:
        return _CHANNEL_END
    if mark["token"] is not None:
        return _ENDS[mark["token"].lower()]
    return re.compile(re.escape(f"</{mark['name']}>"), re.IGNORECASE)


def _after_thought(line: str) -> str | None:
    """What follows the end of a thought that this line has, None: it has none. In a sentence it is a quotation."""
    if (found := _CLOSING.match(line)) is not None:
        return line[found.end() :]
    if "`" in line or (found := _CLOSING.search(line)) is None or line[found.end() :].strip():
        return None
    return "" if _OPENING.search(line) is None else None


def _outside_thoughts(text: str) -> str:
    """The text without the thoughts that are left in it, within its lines: those that are closed."""
    kept, position = [], 0
    while (mark := _OPENING.search(text, position)) is not None:
        closed = _end_of(mark).search(text, mark.end())
        kept.append(text[position : mark.start() if closed is not None else mark.end()])
        position = closed.end() if closed is not None else mark.end()
    return "".join((*kept, text[position:]))


def _letters(text: str) -> int:
    return sum(map(_is_letter, text))


def _is_letter(one: str) -> bool:
    return unicodedata.category(one)[0] in "LN" and one not in _FILLERS


def says_something(text: str) -> bool:
    """Whether a text has a letter or a digit: signs, blanks and characters without width alone say nothing."""
    return any(map(_is_letter, text))
