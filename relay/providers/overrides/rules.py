"""Overrides: what a channel changes in requests before they are sent to its upstream. Pure.

They are a list of objects, applied from top to bottom to the body in the upstream's own API, after the vendor's rules
about parameters (`relay.providers.parameters`):

    {"do": "set", "path": "reasoning_effort", "value": "low"}           whatever the client sent
    {"do": "default", "path": "top_p", "value": 0.9}                    where the client sent nothing, or null
    {"do": "remove", "path": "temperature", "models": ["o3*"]}
    {"do": "rename", "path": "max_tokens", "to": "max_completion_tokens"}
    {"do": "set_header", "header": "X-Title", "value": "Acme"}
    {"do": "remove_header", "header": "anthropic-beta", "apis": ["messages"]}

A path is the names of members with dots between them, or a JSON pointer (RFC 6901) where a name has dots itself; in
`remove`, `*` is every entry of a list. `models` are patterns such as `gpt-5*` of public names or of the upstream's;
`apis` are words of `FAMILIES`. Without them a rule holds for all, but for the sessions of `realtime`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from portal.lib.json import encode
from portal.lib.texts import TranslatableError, gettext_noop
from relay.protocols.token_estimate import token_units
from relay.providers.overrides.checks import (
    EACH,
    check_header,
    check_header_value,
    check_removed,
    check_source,
    check_value,
    is_inert,
    is_inside_content,
    may_cost,
)

BODY_ACTIONS: Final = ("set", "default", "remove", "rename")
HEADER_ACTIONS: Final = ("set_header", "remove_header")
FAMILIES: Final = (
    "chat",
    "responses",
    "messages",
    "generate_content",
    "interactions",
    "completions",
    "embeddings",
    "embed_content",
    "images",
    "audio",
    "moderations",
    "rerank",
    "realtime",
)
_BODIES: Final[Mapping[str, str]] = {  # the family of each API whose requests are overridden
    "chat.completions": "chat",
    "ollama.chat": "chat",
    "cohere.chat": "chat",
    "converse": "chat",
    "converse.stream": "chat",
    "responses": "responses",
    "messages": "messages",
    "generate_content": "generate_content",
    "generate_content.stream": "generate_content",
    "interactions": "interactions",
    "generate_content.embed": "embed_content",
    "generate_content.embed_batch": "embed_content",
    "completions": "completions",
    "embeddings": "embeddings",
    "cohere.embed": "embeddings",
    "predict": "embeddings",
    "moderations": "moderations",
    "images.generations": "images",
    "images.edits": "images",
    "images.variations": "images",
    "audio.speech": "audio",
    "audio.transcriptions": "audio",
    "audio.translations": "audio",
    "rerank": "rerank",
    "realtime": "realtime",
}
# Whose members are other ones, so that only rules which name it are meant for it.
_SESSIONS: Final = "realtime"
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "set": frozenset(("do", "path", "value")),
    "default": frozenset(("do", "path", "value")),
    "remove": frozenset(("do", "path")),
    "rename": frozenset(("do", "path", "to")),
    "set_header": frozenset(("do", "header", "value")),
    "remove_header": frozenset(("do", "header")),
}
_MOST_KNOWN: Final = 4096
MOST_RULES: Final = 100
MOST_BYTES: Final = 32 * 1024  # of all rules together, as JSON
_MOST_STEPS: Final = 8
_LONGEST_NAME: Final = 100  # characters of a step, of a pattern


class BadOverrides(TranslatableError):
    """Rules that somebody typed cannot be used. The message says which, and why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    action: str
    path: tuple[str, ...]  # of a header: its name in lower case, alone
    name: str  # the path as it was typed
    value: object = None
    target: tuple[str, ...] = ()  # what a member is renamed to
    models: tuple[str, ...] | None = None  # patterns; None: every model
    families: frozenset[str] | None = None  # None: every API
    raw: msgspec.Raw = field(default_factory=lambda: msgspec.Raw(b"null"))  # the value as JSON
    added: int = 0  # estimated tokens that it may add to the prompt
    unsure: bool = False  # it may change the prompt in a way that is not known
    costs: bool = False  # it may change how long or how many the answers are

    def holds(self, family: str, names: Collection[str]) -> bool:
        """Whether it is for an API's requests for a model. `names`: the public one and the upstream's."""
        if self.families is not None and family not in self.families:
            return False
        return self.models is None or any(fnmatchcase(name, pattern) for pattern in self.models for name in names)


class Overrides:
    """The rules of one channel."""

    __slots__ = ("_body", "_headers", "_known")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._body = tuple(rule for rule in rules if rule.action in BODY_ACTIONS)
        self._headers = tuple(rule for rule in rules if rule.action in HEADER_ACTIONS)
        self._known: dict[tuple[str, str, str], tuple[Rule, ...]] = {}  # what `of_body` found, of the models that exist

    @property
    def change_bodies(self) -> bool:
        return bool(self._body)

    def of_body(self, api: str, public: str, upstream: str) -> tuple[Rule, ...]:
        """The rules for bodies that are sent to an API for a model, by its public name and the upstream's."""
        family = _BODIES.get(api, "")
        if not family or not self._body:
            return ()
        key = (family, public, upstream)
        found = self._known.get(key)
        if found is None:
            rules = (rule for rule in self._body if family != _SESSIONS or rule.families is not None)
            found = tuple(rule for rule in rules if rule.holds(family, (public, upstream)))
            if len(self._known) < _MOST_KNOWN:
                self._known[key] = found
        return found

    def headers(
        self, headers: Mapping[str, str], api: str = "", public: str = "", upstream: str = ""
    ) -> dict[str, str]:
        """Headers of a request as they are sent. Without an API: of requests that are about no model, such as lists."""
        family = _BODIES.get(api) or api.partition(".")[0]
        found = dict(headers)
        for rule in self._headers:
            limited = rule.models is not None or rule.families is not None
            if not rule.holds(family, (public, upstream)) if api else limited:
                continue
            (name,) = rule.path
            for same in [one for one in found if one.lower() == name]:
                del found[same]
            if rule.action == "set_header":
                found[name] = str(rule.value)
        return found

    @property
    def change_headers(self) -> bool:
        return bool(self._headers)


def read_overrides(data: object, credential: str = "") -> Overrides | None:
    """The rules of a channel as they are stored; None: it has none. Raises BadOverrides.

    `credential`: the header in which its vendor expects the key.
    """
    if data is None or data == []:
        return None
    if not isinstance(data, list):
        raise BadOverrides(gettext_noop("Overrides are a list of rules."))
    try:
        size = len(encode(data))
    except (ValueError, RecursionError):
        raise BadOverrides(gettext_noop("Overrides are a list of rules.")) from None
    if len(data) > MOST_RULES or size > MOST_BYTES:
        raise BadOverrides(gettext_noop("These are too many overrides: at most 100 rules with 32 KB together."))
    found = []
    for number, entry in enumerate(data, 1):
        try:
            found.append(_rule(entry, credential))
        except RecursionError:
            raise BadOverrides(gettext_noop("Overrides are a list of rules.")) from None
        except TranslatableError as error:
            text = gettext_noop("Rule %(number)s: %(why)s")
            raise BadRule(text, error, number) from None
    return Overrides(found)


class BadRule(BadOverrides):
    """The same, of one rule."""

    def __init__(self, text: str, why: TranslatableError, number: int) -> None:
        super().__init__(text, number=str(number), why=str(why))
        self.why, self.number = why, number

    def translated(self, gettext: Callable[[str], str]) -> str:
        return gettext(self.text) % {"number": self.number, "why": self.why.translated(gettext)}


def _rule(entry: object, credential: str) -> Rule:
    action = entry.get("do") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(action, str) or action not in _KEYS:
        raise BadOverrides(
            gettext_noop("Say what it does: “do” is set, default, remove, rename, set_header or remove_header.")
        )
    needed = _KEYS[action]
    strange = sorted(map(str, entry.keys() - needed - {"models", "apis"})) or sorted(needed - entry.keys())
    if strange:
        raise BadOverrides(
            gettext_noop("“%(action)s” is written with %(names)s, and “models” or “apis” if it is not for all."),
            action=action,
            names=", ".join(f"“{name}”" for name in sorted(needed - {"do"})),
        )
    models, families = _patterns(entry), _families(entry)
    if action in HEADER_ACTIONS:
        name = check_header(entry["header"], credential)
        value = check_header_value(name, entry["value"]) if action == "set_header" else None
        return Rule(action, (name,), name, value, models=models, families=families)
    typed = entry["path"]
    path = path_of(typed)
    if action == "remove":
        check_removed(path)
        unsure = is_inside_content(path)
        return Rule(action, path, typed, models=models, families=families, unsure=unsure, costs=may_cost(path))
    if action == "rename":
        target = path_of(entry["to"])
        check_source(path)
        check_value(target, None, families, renamed=True)
        if target == path:
            raise BadOverrides(gettext_noop("A member is renamed to what it is called already."))
        unsure, costs = not is_inert(target[0]), may_cost(path) or may_cost(target)
        return Rule(action, path, typed, None, target, models, families, unsure=unsure, costs=costs)
    value = entry["value"]
    check_value(path, value, families)
    raw = encode(value)
    added = int(token_units(raw)) + 1
    unsure = not is_inert(path[0])
    return Rule(action, path, typed, value, (), models, families, msgspec.Raw(raw), added, unsure, may_cost(path))


def path_of(typed: object) -> tuple[str, ...]:
    """The steps of a path, which are names of members, or `*`. Raises BadOverrides."""
    if not isinstance(typed, str) or not typed.strip("/. "):
        raise BadOverrides(
            gettext_noop("A path is missing: write temperature, reasoning.effort or /generationConfig/topK.")
        )
    if typed.startswith("/"):
        steps = tuple(step.replace("~1", "/").replace("~0", "~") for step in typed[1:].split("/"))
    else:
        steps = tuple(typed.split("."))
    for step in steps:
        if not step or step != step.strip() or len(step) > _LONGEST_NAME or not step.isprintable():
            raise BadOverrides(
                gettext_noop("“%(path)s” is no path: a name in it is empty, too long, or begins or ends with a space."),
                path=typed[:200],
            )
        if step.isdecimal() or step.endswith("]"):
            raise BadOverrides(
                gettext_noop("“%(path)s” names one entry of a list. Write * for every entry, as in messages.*.name."),
                path=typed[:200],
            )
    if len(steps) > _MOST_STEPS or steps[0] == EACH:
        raise BadOverrides(gettext_noop("“%(path)s” is no path into a request."), path=typed[:200])
    return steps


def _patterns(entry: Mapping[str, object]) -> tuple[str, ...] | None:
    if "models" not in entry:
        return None
    found = entry["models"]
    if (
        not isinstance(found, list)
        or not found
        or not all(isinstance(one, str) and one.strip() and len(one) <= _LONGEST_NAME * 2 for one in found)
    ):
        raise BadOverrides(
            gettext_noop("“models” is a list of names such as gpt-5*. Leave it out when the rule is for every model.")
        )
    return tuple(str(one).strip() for one in found)


def _families(entry: Mapping[str, object]) -> frozenset[str] | None:
    if "apis" not in entry:
        return None
    found = entry["apis"]
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and one in FAMILIES for one in found):
        raise BadOverrides(
            gettext_noop("“apis” is a list of these: %(names)s. Leave it out when the rule is for every API."),
            names=", ".join(FAMILIES),
        )
    return frozenset(map(str, found))
