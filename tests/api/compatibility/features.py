"""The rows of the matrix: what a request asks, and what the upstream answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tests.api.compatibility.apis.messages import STOP
from tests.api.compatibility.conversation import (
    IMAGE_URL,
    PDF,
    PDF_URL,
    PNG,
    SOURCE,
    WAV,
    Ask,
    Part,
    Reply,
    Turn,
    Used,
    says,
)

BOTH: Final = (False, True)


@dataclass(frozen=True)
class Feature:
    """A row.

    `otherwise`: what upstreams answer whose API has no form for the reply. `again`: the next turn, with the answer as
    the client's SDK keeps it, is looked at, too.
    """

    name: str
    ask: Ask
    reply: Reply = field(default_factory=Reply)
    otherwise: Reply | None = None
    again: bool = False
    streams: tuple[bool, ...] = BOTH
    counts: bool = False  # tokens are counted, and no answer is made


_HELLO: Final = says("user", "Say hello.")
_WEATHER: Final = ("weather", "clock")
_PARIS, _ROME = Part("call", "Paris", "weather"), Part("call", "CET", "clock")
_ANSWER: Final = Reply('{"city": "Paris"}')


def _asks(*turns: Turn, system: str = "", **options: Any) -> Ask:
    return Ask(list(turns or (_HELLO,)), system, options)


def _tools(*turns: Turn, **options: Any) -> Ask:
    return _asks(*(turns or (says("user", "The weather in Paris?"),)), tools=_WEATHER, **options)


def _results(*results: Part) -> Ask:
    return _tools(
        says("user", "The weather in Paris, and the time?"),
        Turn("assistant", (Part("text", "Let me see."), _PARIS, _ROME)),
        Turn("user", results),
    )


def _calls(*calls: Part) -> Reply:
    return Reply("Let me see.", calls=calls, end="calls")


_TIME: Final = Part("result", "Noon.", "clock")
_SEEN: Final = Part("result", "See the picture.", "weather", inner=(Part("image", PNG),))

GROUPS: Final[dict[str, tuple[Feature, ...]]] = {
    "What is said": (
        Feature("System message", _asks(system="Be brief.")),
        Feature("Developer message", _asks(system="Be brief.", developer=True)),
        Feature(
            "System message in the middle",
            _asks(_HELLO, says("assistant", "Hello."), says("user", "Once more."), says("system", "In French.")),
        ),
        Feature("Several turns", _asks(_HELLO, says("assistant", "Hello."), says("user", "Once more."))),
        Feature("Text in several parts", _asks(says("user", "Say hello.", "Then say goodbye."))),
        Feature("Image in the request", _asks(says("user", "What is this?", Part("image", PNG)))),
        Feature("Image by its address", _asks(says("user", "What is this?", Part("image_url", IMAGE_URL)))),
        Feature("PDF in the request", _asks(says("user", "What is this?", Part("pdf", PDF)))),
        Feature("PDF by its address", _asks(says("user", "What is this?", Part("pdf_url", PDF_URL)))),
        Feature(
            "Audio in the request",
            _asks(says("user", "What is said?", Part("audio", WAV))),
            Reply(used=Used(audio_in=100)),
            Reply(),
        ),
    ),
    "Tools": (
        Feature("Call of a tool, arguments in pieces", _tools(), _calls(_PARIS)),
        Feature("Parallel calls", _tools(), _calls(_PARIS, _ROME)),
        Feature("Results of parallel calls", _results(Part("result", "Sunny.", "weather"), _TIME)),
        Feature("Result with an image", _results(_SEEN, _TIME)),
        Feature("Result that is an error", _results(Part("result", "No such city.", "weather", failed=True), _TIME)),
        Feature("Some tool must be called", _tools(choice="any"), _calls(_PARIS)),
        Feature("A named tool must be called", _tools(choice="tool:weather"), _calls(_PARIS)),
        Feature("No tool may be called", _tools(choice="none")),
        Feature("One call at a time", _tools(single=True), _calls(_PARIS)),
        Feature("Web search by the vendor", _asks(search=True)),
    ),
    "Thinking": (
        Feature("Effort", _asks(effort="high")),
        Feature("Effort: low", _asks(effort="low")),
        Feature("Budget of tokens", _asks(budget=2000)),
        Feature("Thinking turned off", _asks(effort="none")),
        Feature("Thoughts are shown", _asks(effort="high"), Reply(thought="They greet me.")),
        Feature(
            "Thoughts and signatures in the next turn",
            _asks(effort="high"),
            Reply(thought="They greet me.", signature="EqQBCkYIBxgC"),
            Reply(thought="They greet me."),
            again=True,
        ),
        Feature(
            "Redacted thinking in the next turn",
            _asks(effort="high"),
            Reply(redacted="EmwKAhgBEgy3va3pzix"),
            again=True,
        ),
    ),
    "The answer": (
        Feature("JSON by a schema", _asks(schema=True), _ANSWER),
        Feature("Any JSON object", _asks(json=True), _ANSWER),
        Feature("Limit of tokens, and reaching it", _asks(limit=500), Reply("Hello the", end="length")),
        Feature("Stop sequences", _asks(stop=[STOP]), Reply(end="sequence")),
        Feature("Refusal", _asks(), Reply("", refusal="I will not.", end="refusal")),
        Feature("Sources of a text", _asks(), Reply(cited=SOURCE)),
        Feature("Several answers (`n`)", _asks(count=2), Reply(others=("Good day.",)), Reply()),
        Feature("Log probabilities", _asks(logprobs=2), Reply("Hello", logprobs=True), Reply("Hello")),
        Feature("Verbosity", _asks(verbosity="low")),
    ),
    "Sampling": (
        Feature("`temperature`", _asks(temperature=0.5)),
        Feature("`top_p`", _asks(top_p=0.5)),
        Feature("`top_k`", _asks(top_k=40)),
        Feature("Presence penalty", _asks(penalty=0.5)),
        Feature("`seed`", _asks(seed=7)),
    ),
    "Service and money": (
        Feature("Service tier", _asks(tier="flex")),
        Feature("Who asks (`user`)", _asks(user="user-1")),
        Feature("Key of the prompt cache", _asks(cache_key="thread-1")),
        Feature("Mark of the prompt cache", _asks(system="Be brief.", cache_mark=True)),
        Feature("Usage: cached input", _asks(), Reply(used=Used(cached=200))),
        Feature("Usage: cache writes", _asks(), Reply(used=Used(cached=100, written=80))),
        Feature("Usage: cache writes for an hour", _asks(), Reply(used=Used(written=80, hour=50))),
        Feature("Usage: reasoning", _asks(), Reply(used=Used(reasoning=40))),
        Feature("Usage: audio", _asks(), Reply(used=Used(audio_in=100, audio_out=20))),
        Feature("Counting tokens", _asks(system="Be brief."), counts=True, streams=(False,)),
    ),
    "Faults": (
        Feature("The upstream refuses the request", _asks(), Reply(error="The picture of the user is too large.")),
        Feature(
            "The upstream breaks off with an error",
            _asks(),
            Reply(error="The model has failed.", begins=True),
            streams=(True,),
        ),
    ),
}
FEATURES: Final = tuple(feature for group in GROUPS.values() for feature in group)
# Rows of which a part may be left out: JSON can be asked for in words.
PARTLY: Final = frozenset(("Any JSON object",))
# What names of ignored parameters tell that something asked for is lost, by the name of the option or kind of part.
TELLING: Final[dict[str, tuple[str, ...]]] = {
    "limit": ("max_", "max"),
    "count": ("n", "candidatecount"),
    "tier": ("service_tier", "servicetier"),
    "cache_key": ("prompt_cache_key",),
    "cache_mark": ("cache_control",),
    "search": ("web_search", "googlesearch", "tools"),
    "schema": ("format", "responseschema"),
    "json": ("format", "responsemimetype"),
    "single": ("parallel_tool_calls", "disable_parallel"),
    "penalty": ("penalty",),
    "top_p": ("top_p", "topp"),
    "top_k": ("top_k", "topk"),
    "effort": ("reasoning", "effort", "thinking"),
    "budget": ("reasoning", "thinking"),
    "logprobs": ("logprobs",),
    "stop": ("stop",),
    "thought": ("reasoning", "thinking", "thought", "encrypted_content"),
    "redacted": ("reasoning", "thinking", "thought"),
}
