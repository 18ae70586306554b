"""What a request asks and what an answer says, in the words of no API: what every cell of the matrix is compared in.

`apis/` writes and reads it in the form of each API. What an API has no form for is `Inexpressible` there.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Final

from tests.support.upstream import sound

Json = dict[str, Any]

PNG: Final = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 24).decode()
PDF: Final = base64.b64encode(b"%PDF-1.7\n%compatibility\n").decode()
WAV: Final = base64.b64encode(sound(0.1)).decode()
IMAGE_URL: Final = "https://pictures.example.com/cat.png"
PDF_URL: Final = "https://papers.example.com/one.pdf"
SOURCE: Final = ("https://news.example.com/paris", "News of Paris")
SCHEMA: Final[Json] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
# The functions that can be offered: a schema with one member each.
TOOLS: Final = {"weather": "city", "clock": "zone"}
FAILED: Final = "[The tool failed.]"  # what APIs without a member for it are told


class Inexpressible(Exception):
    """This API has no form for it."""


def parameters_of(tool: str) -> Json:
    return {"type": "object", "properties": {TOOLS[tool]: {"type": "string"}}, "required": [TOOLS[tool]]}


def has_member(schema: Any, name: str) -> bool:
    """Whether a schema is one of an object with this member, which is a text."""
    if not isinstance(schema, dict) or str(schema.get("type", "")).lower() != "object":
        return False
    return str((schema.get("properties") or {}).get(name, {}).get("type", "")).lower() == "string"


@dataclass(frozen=True)
class Part:
    """A piece of what somebody says.

    The kinds: text, image and pdf and audio (`value`: Base64), image_url and pdf_url, call (`name`: the tool, `value`:
    the member of its arguments), result (`name`: the tool, `value`: the text), thought (`name`: its signature),
    redacted.
    """

    kind: str
    value: str
    name: str = ""
    failed: bool = False
    inner: tuple[Part, ...] = ()  # pictures in a result


@dataclass(frozen=True)
class Turn:
    role: str  # user, assistant or system
    parts: tuple[Part, ...]


def says(role: str, *parts: Part | str) -> Turn:
    return Turn(role, tuple(Part("text", part) if isinstance(part, str) else part for part in parts))


@dataclass
class Ask:
    """A request.

    Options by name: tools, choice (auto, any, none or `tool:…`), single, schema, json, effort, budget, limit, stop,
    temperature, top_p, top_k, penalty, seed, count, logprobs, tier, user, cache_key, cache_mark, search, verbosity.
    """

    turns: list[Turn] = field(default_factory=list)
    system: str = ""
    options: Json = field(default_factory=dict)

    def parts(self) -> list[tuple[str, Part]]:
        """Everything that is said, by whom; pictures of a result follow it."""
        found = []
        for turn in self.turns:
            for part in turn.parts:
                found.append((turn.role, part))
                found += [(turn.role, inner) for inner in part.inner]
        return found


@dataclass(frozen=True)
class Used:
    """The tokens of an answer by class, as OpenAI counts them; None: the API has no such class."""

    input: int | None = 300
    cached: int | None = 0  # of the input
    written: int | None = 0  # of the input, all lifetimes
    hour: int | None = 0  # of the written ones, those kept for an hour
    output: int | None = 60
    reasoning: int | None = 0  # of the output
    audio_in: int | None = 0  # of the input, not cached
    audio_out: int | None = 0  # of the output

    def without(self, *names: str) -> Used:
        return Used(**{one.name: None if one.name in names else getattr(self, one.name) for one in fields(self)})

    def differs(self, other: Used) -> str:
        """The classes that both have and that differ, in words; empty: none."""
        pairs = ((one.name, getattr(self, one.name), getattr(other, one.name)) for one in fields(self))
        wrong = [f"{name} {mine} ≠ {its}" for name, mine, its in pairs if None not in (mine, its) and mine != its]
        return ", ".join(wrong)


@dataclass(frozen=True)
class Reply:
    """An answer."""

    text: str = "Hello there."
    thought: str = ""
    signature: str = ""
    redacted: str = ""
    calls: tuple[Part, ...] = ()
    refusal: str = ""
    cited: tuple[str, str] | None = None  # the address and the title of a source
    end: str = "stop"  # or calls, length, sequence, refusal
    others: tuple[str, ...] = ()  # the texts of further choices
    logprobs: bool = False
    used: Used = field(default_factory=Used)
    error: str = ""  # the words of the error that it is, or ends with
    begins: bool = False  # an answer comes before the error

    def with_used(self, used: Used) -> Reply:
        return Reply(**{**{one.name: getattr(self, one.name) for one in fields(self)}, "used": used})


# -- comparing ---------------------------------------------------------------------------------------------------------


def lost_of_ask(asked: Ask, sent: Ask) -> list[str]:
    """What was asked and did not arrive, in words."""
    lost = [] if asked.system in sent.system else ["system"]
    have = sent.parts()
    place = 0
    for role, part in asked.parts():
        if part.kind in {"text", "call", "result"}:  # whose order matters
            found = next((n for n in range(place, len(have)) if _is_it(role, part, *have[n])), -1)
            if found < 0:
                lost.append(part.kind if part.kind != "text" else f"text of {role}")
            else:
                place = found
        elif not any(_is_it(role, part, *other) for other in have):
            lost.append(part.kind)
    lost += [name for name, value in asked.options.items() if not _is_option(name, value, asked, sent.options)]
    return list(dict.fromkeys(lost))


def _is_it(role: str, part: Part, its_role: str, other: Part) -> bool:
    if part.kind != other.kind:
        return False
    if part.kind == "text":
        wrapped = role == "system" and its_role in {"system", "user"}  # in the middle of a conversation
        return part.value in other.value and (role == its_role or wrapped)
    if part.kind == "result":
        failed = other.failed or FAILED in other.value
        return part.value in other.value and part.name == other.name and part.failed == failed
    if part.kind == "thought":
        return part.name == other.name and (not part.value or part.value in other.value)
    return (part.value, part.name or other.name) == (other.value, other.name)


def _is_option(name: str, value: Any, asked: Ask, sent: Json) -> bool:
    if name == "developer":  # it is the system message, which is looked for
        return True
    if name == "user":  # who it is may be told as a digest
        return bool(sent.get("user"))
    if name == "tools" and str(asked.options.get("choice")).startswith("tool:"):
        return set(sent.get("tools", ())) <= set(value)  # others cannot be called anyway
    if name == "tools" and asked.options.get("choice") == "none" and "tools" not in sent:
        return True
    if name == "choice" and value == "none" and "tools" not in sent:
        return True
    if name == "budget":  # the effort that comes nearest is as good
        return bool(sent.get("budget") == value or sent.get("effort"))
    if name == "effort" and value == "low" and "budget" in sent:  # and the other way around
        return bool(sent["budget"] <= 1024)
    return bool(sent.get(name) == value)


def lost_of_reply(said: Reply, came: Reply) -> list[str]:
    """What the upstream said and the client was not told, in words."""
    if said.error:
        return [] if said.error in came.error else ["error"]
    lost = [] if (said.text or said.refusal) in came.text + came.refusal else ["text"]
    lost += [
        name
        for name in ("thought", "signature", "redacted", "others", "logprobs", "cited")
        if _misses(name, said, came)
    ]
    lost += ["calls"] if said.calls != came.calls else []
    lost += ["end"] if said.end != came.end else []
    return lost


def _misses(name: str, said: Reply, came: Reply) -> bool:
    value = getattr(said, name)
    if name in {"signature", "redacted"}:  # what they are worth the next turn shows
        return False
    return bool(value) and value != getattr(came, name)


def joined(parts: Iterable[str]) -> str:
    return "".join(parts)
