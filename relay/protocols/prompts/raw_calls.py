"""Calls of tools that a model has written into its text, in its own form. Pure.

Servers without a tool parser leave them there (vLLM without `--tool-call-parser`), and models call tools that only the
conversation before had.
"""

from __future__ import annotations

import re
from typing import Final

from portal.lib.json import NOTHING, decode

# How calls begin, as the tool parsers of vLLM and SGLang have them (November 2026). Elements have an end of their name;
# what follows a token is a call up to the end of the text. In quotation marks they are quoted.
_ELEMENT: Final = (
    r"<(?P<name>(?:[a-z0-9]+[_:])*(?:tool_?calls?|function_?calls?)|invoke|function)"
    r"(?:=[^<>\n]*|\s[^<>\n]*)?>"
)
_TOKEN: Final = "|".join(
    re.escape(start)
    for start in (
        "<|tool_call|>",  # Granite 3, Phi 4
        "<|tool_call>",  # Gemma 4
        "<|tool_calls|>",
        "<|tool_call_start|>",  # LFM2
        "<|tool_call:start|>",  # Solar Open 2
        "<|tool_call_begin|>",
        "<|tool_calls_section_begin|>",  # Kimi K2
        "<|open|>tools<|sep|>",  # Kimi K3
        "<\uff5ctool\u2581calls\u2581begin\uff5c>",  # DeepSeek V3
        "<\uff5ctool\u2581call\u2581begin\uff5c>",
        "<\uff5cDSML\uff5c",  # DeepSeek V3.2
        "<\uff5ctool_calls_begin\uff5c>",  # Step 3
        "<|START_ACTION|>",  # Cohere
        "<|action_start|>",  # InternLM
        "<|tools_prefix|>",  # Apertus
        "<|python_tag|>",  # Llama 3
        "<start_function_call>",  # FunctionGemma
        "[TOOL_CALLS]",  # Mistral
        "<TOOLCALL>",  # Nemotron
    )
)
_CALL: Final = re.compile(rf"(?<![`\"'“„«\w])(?:{_ELEMENT}|{_TOKEN})", re.IGNORECASE)
_FENCE: Final = re.compile(r"^[ \t]*(?P<fence>```|~~~).*?^[ \t]*(?P=fence)[^\n]*$", re.MULTILINE | re.DOTALL)
_FENCED: Final = re.compile(r"\A(?:```|~~~)[a-z_]*\n(?P<text>.*)\n(?:```|~~~)\Z", re.DOTALL)
_PYTHONIC: Final = re.compile(r"\A\[\s*\w+(?:\.\w+)*\(.*\)\s*\]\Z", re.DOTALL)  # Llama 4, Olmo 3
_FUNCTOOLS: Final = "functools["  # Firefunction, Phi 4 mini
_ARGUMENTS: Final = ("arguments", "parameters", "args", "input")


def ends_in_call(text: str) -> bool:
    """Whether a text ends in a call, or is one. What another sentence follows, or is in a block of code, is quoted."""
    text = text.strip()
    if _is_call(text):
        return True
    unfenced = _FENCE.sub("", text).rstrip()
    last: dict[str, int] = {}  # where an element began, by its name
    for call in _CALL.finditer(unfenced):
        if call["name"] is None:
            return True
        last[call["name"].lower()] = call.start()
    lower = unfenced.lower()
    return any(lower.endswith(f"</{name}>") or f"</{name}>" not in lower[start:] for name, start in last.items())


def _is_call(text: str) -> bool:
    """Whether a text is nothing but calls in JSON, or as Python writes them."""
    if (fenced := _FENCED.match(text)) is not None:
        text = fenced["text"].strip()
    if _PYTHONIC.match(text) is not None or text.startswith(_FUNCTOOLS):
        return True
    found = decode(text) if text[:1] in {"{", "["} else NOTHING
    calls = found if isinstance(found, list) else [found]
    return bool(calls) and all(
        isinstance(call, dict) and isinstance(call.get("name"), str) and any(name in call for name in _ARGUMENTS)
        for call in calls
    )
