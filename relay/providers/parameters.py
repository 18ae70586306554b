"""Rules about a request's parameters that an upstream does not take, and how they are applied. Pure.

A rule is `name: action` or `family/name: action`; the family is the first word of the API (chat, completions,
responses, embeddings, images, audio …), and a rule with a family stands before one without. A name such as
`messages[].name` reaches into lists, one such as `prompt.id` into objects; `tools[openrouter:fusion]` is the entries of
that type; in place of images (`messages[].content[image_url]`) stands a note. What no rule names is forwarded, but for
parameters that name another model. Actions:

    forward           send it on, whatever another rule says
    drop              leave it out, and say so in x-airelays-ignored-parameters
    rename:<name>     the vendor calls it so
    refuse            422, naming the field; or another channel
    refuse:<JSON>     the same, unless it has this value, which is then left out

Each vendor's rules are in its file in `relay.providers.vendors`; a channel may have more. Both stand above the rules
for every vendor, which are here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from portal.lib.json import Json, encode
from portal.lib.texts import TranslatableError, gettext_noop
from relay.protocols.fields import are_parameters, folded
from relay.protocols.naming import models
from relay.protocols.prompts.counts import COUNTS
from relay.protocols.prompts.removal import EACH, without

_ACTION: Final = re.compile(r"forward|drop|rename:[A-Za-z_][A-Za-z0-9_]*|refuse(?::.+)?")
_MEMBER: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_TYPE: Final = r"\[[A-Za-z0-9_:-]+\]"
_NAME: Final = re.compile(rf"(?:[a-z_]+/)?{_MEMBER}(?:(?:\[\])?\.{_MEMBER})*(?:{_TYPE})?")
_STEP: Final = re.compile(r"\[[^]]*\]|[^.[]+")
_LETTERS: Final = re.compile("[A-Za-z_]+")
_any: Final = msgspec.json.Decoder()
Fields = dict[str, msgspec.Raw]
Policy = Mapping[str, str]
_EMPTY: Final = frozenset((b"null", b"", b"[]", b"{}"))

# Parameters that make more answers than are asked for by `n`, by the APIs that know them in another sense or not at
# all. Seedream makes a sequence of images of one.
_MORE_ANSWERS: Final = {
    "chat": (*COUNTS, "best_of", "num_beams", "beam_width"),
    "completions": (*COUNTS, "num_beams", "beam_width"),
    "responses": (*COUNTS, "n", "best_of", "num_beams", "beam_width"),
    "images": (*COUNTS, "best_of", "sequential_image_generation", "sequential_image_generation_options"),
}
_COUNTED: Final = [f"{family}/{name}" for family, names in _MORE_ANSWERS.items() for name in names]
# By these, an answer costs more than its model's price: OpenAI's priority or fast processing twice as much or more, and
# so at Azure, xAI, Groq, Fireworks, Bedrock and others (their price lists, November 2026).
_DEARER: Final = ("service_tier",)
_DROPPED: Final = (*models.OTHERS, *_COUNTED, *_DEARER)
_FOR_ALL: Final[Policy] = {
    spelled: action
    for action, names in (("drop", _DROPPED), ("refuse", models.NEEDED))
    for name in names
    for spelled in (name, name.lower())
}

# What a client of chat calls a parameter of responses; rules for the latter hold for the former where the upstream
# speaks responses.
_CALLED: Final[Mapping[str, str]] = {
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning",
    "verbosity": "text",
}


def asked_as(name: str, fields: Fields) -> str:
    """What a client of chat has called a parameter of responses in its request; the same name, where it has not."""
    if name in fields:
        return name
    return next((called for called, real in _CALLED.items() if real == name and called in fields), name)


class Rules(dict[str, str]):
    """The rules of one family at one channel, by bare name."""

    def __init__(self, rules: Policy, forwarded: Collection[str] = ()) -> None:
        """`forwarded`: the names of what is sent on, whatever another rule says."""
        super().__init__(rules)
        self.forwarded = frozenset(map(folded, forwarded))
        # By the parameter that they reach into: the names of rules, and the members that must be in its text for them.
        self.nested: dict[str, list[tuple[str, tuple[bytes, ...]]]] = {}
        for name in rules:
            top, *way = _steps(name)
            if way:
                members = tuple(_searched(step) for step in way if step != EACH)
                self.nested.setdefault(top, []).append((name, members))
        self.about = frozenset((*rules, *self.nested))

    @classmethod
    def of(cls, policy: Policy) -> Rules:
        return policy if isinstance(policy, Rules) else cls(policy)


def _steps(name: str) -> list[str]:
    """The way of a rule to what it names: members, `[]` for each entry of a list, `[type]` for those of a type."""
    return _STEP.findall(name)


def _searched(step: str) -> bytes:
    """What the text of a parameter has where a step of a rule finds something: only its letters are no escapes."""
    if step.startswith("["):
        return max(_LETTERS.findall(step), key=len, default="").encode()
    return b'"%s"' % step.encode()


class Unsupported(Exception):
    """The upstream cannot honour a parameter. `param`: its name in the client's request."""

    def __init__(self, param: str) -> None:
        super().__init__(param)
        self.param = param


class BadPolicy(TranslatableError):
    """Rules that somebody typed cannot be used. The message says why."""


def check_policy(rules: object) -> None:
    """Raises BadPolicy for rules that cannot be used."""
    if not isinstance(rules, dict):
        raise BadPolicy(gettext_noop('Write an object such as {"seed": "drop"}.'))
    for name, action in rules.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadPolicy(
                gettext_noop(
                    "“%(name)s” is no name of a parameter: write seed, responses/max_output_tokens or messages[].name."
                ),
                name=str(name),
            )
        if not isinstance(action, str) or not _ACTION.fullmatch(action):
            raise BadPolicy(
                gettext_noop(
                    "“%(action)s” is no action: write forward, drop, refuse, refuse:<value that is fine> or "
                    "rename:<other name>."
                ),
                action=str(action),
            )
        if ("." in name or "[" in name) and action not in {"drop", "forward"}:
            raise BadPolicy(
                gettext_noop("Inside lists and objects, parameters can be dropped only: “%(name)s”."), name=name
            )
        if action.startswith("refuse:") and _decoded(action[7:].encode()) is _NOTHING:
            raise BadPolicy(gettext_noop("“%(value)s” is not JSON."), value=action[7:])


def policy_of(vendors: Policy, own: Policy, family: str) -> Policy:
    """The rules of one family at one channel, by bare name: the channel's own before the vendor's before all others."""
    found: dict[str, str] = {}
    for rules in (_FOR_ALL, vendors, own):
        for name, action in sorted(rules.items(), key=lambda rule: "/" in rule[0]):
            prefix, slash, bare = name.rpartition("/")
            if not slash or prefix == family:
                found[bare] = action
    forwarded = [name for name, action in found.items() if action == "forward"]
    return Rules({name: action for name, action in found.items() if action != "forward"}, forwarded)


def with_drop(policy: Policy, name: str) -> Policy:
    """A policy by which one parameter more is left out."""
    rules = Rules.of(policy)
    return Rules({**rules, name: "drop"}, rules.forwarded - {name})


def _naming_models(policy: Rules, names: Iterable[str]) -> list[str]:
    """The parameters that name another model, by what they are called; rules about them stand before that."""
    found = []
    for name in names:
        plain = folded(name)
        if plain.endswith(models.ENDINGS) and plain != "model" and name not in policy and plain not in policy:
            found += [name] if plain not in policy.forwarded else []
    return found


def refused(policy: Policy, fields: Fields, converted: bool = False) -> str:
    """The parameter by which this request cannot be sent, empty when it can.

    `converted`: a request of chat for an upstream that speaks responses.
    """
    others = _in_other_letters(fields)
    if not others and not converted and policy.keys().isdisjoint(fields):  # nearly always
        return ""
    for name, action in policy.items():
        if not action.startswith("refuse"):
            continue
        called = (called for called, real in _CALLED.items() if converted and real == name)
        for sent in [sent for said in (name, *called) for sent in (said, *others.get(said, []))]:
            if sent in fields and not _fine(fields[sent], action[7:]):
                return sent
    return ""


def _in_other_letters(fields: Fields) -> dict[str, list[str]]:
    """The names of fields by what a parser takes them for that ignores case, as those of Go do."""
    if are_parameters(fields):  # nearly always
        return {}
    names = "".join(fields)
    if names.islower() and names.isascii() and names.isidentifier():
        return {}
    found: dict[str, list[str]] = {}
    for name in fields:
        if (plain := folded(name)) != name:
            found.setdefault(plain, []).append(name)
    return found


def _fine(raw: msgspec.Raw, allowed: str) -> bool:
    value = bytes(raw).strip()
    if value in _EMPTY:
        return True
    return bool(allowed) and _decoded(value) == _decoded(allowed.encode())


def refused_value(policy: Policy, body: Mapping[str, object]) -> str:
    """The same for a request that was converted to the upstream's API."""
    for name, action in policy.items():
        if action.startswith("refuse") and name in body:
            value = body[name]
            if value not in (None, "", [], {}) and not (len(action) > 7 and value == _decoded(action[7:].encode())):
                return name
    return ""


def apply_to(policy: Policy, body: dict[str, object]) -> list[str]:
    """The rules, in place, for a request that was converted, or an object of a session. Returns what was dropped."""
    rules = Rules.of(policy)
    dropped = []
    for name, action in rules.items():
        if name in body and action == "drop":
            if body.pop(name) not in (None, "", [], {}):
                dropped.append(name)
        elif name in body and action.startswith("rename:"):
            body.setdefault(action[7:], body.pop(name))
        elif name in body and action.startswith("refuse"):
            body.pop(name)  # it has the value that is fine
    for name in _naming_models(rules, body):
        if body.pop(name) not in (None, "", [], {}):
            dropped.append(name)
    for top in rules.nested.keys() & body.keys():
        body[top], inside = apply_inside(rules, top, body[top])
        dropped += inside
        if inside and body[top] == []:
            del body[top]
    return dropped


def items_to_send(policy: Policy, items: list[Json]) -> tuple[list[Json], list[str]]:
    """The same for the items of `input`, where they are not the client's own bytes."""
    sent, dropped = apply_inside(policy, "input", items)
    return (sent if isinstance(sent, list) else items), dropped


def apply_inside(policy: Policy, name: str, value: object) -> tuple[object, list[str]]:
    """The rules that reach into a parameter, for its value; which is not changed. Returns what to send, and what was
    dropped.
    """
    dropped = []
    for rule, _ in Rules.of(policy).nested.get(name, ()):
        sent = without(value, _steps(rule)[1:])
        if sent is not value:
            value = sent
            dropped.append(rule)
    return value, dropped


def dropped_from_form(policy: Policy, names: Iterable[str]) -> list[str]:
    """The fields of a form that are not sent. Those of objects are written as `svg[model]`, of lists as `models[]`."""
    rules = Rules.of(policy)
    found = []
    for name in names:
        base, _, inner = name.partition("[")
        spelled = (base, folded(base)) if inner else (name, folded(name))
        member = inner.rpartition("[")[2].rstrip("]")
        if (
            any(rules.get(one) == "drop" for one in spelled)
            or _naming_models(rules, (base,) if base else ())
            or (inner and folded(base) not in rules.forwarded and folded(member or base).endswith(models.ENDINGS))
        ):
            found.append(name)
    return found


def apply(policy: Policy, fields: Fields, strip_nulls: bool = False) -> tuple[Fields, list[str]]:
    """The fields to send, and the names of those that were dropped with a value that would have meant something.

    The fields themselves where no rule is about one of them, so that the client's bytes may go on as they are.
    """
    rules = Rules.of(policy)
    if not strip_nulls and rules.about.isdisjoint(fields) and are_parameters(fields):  # nearly always
        return fields, []
    others, naming = _in_other_letters(fields), _naming_models(rules, fields)
    reached = set() if rules.nested.keys().isdisjoint(fields) else _reached(rules.nested, fields)
    named = [name for name in rules if name in fields or name in others or name in reached]
    if not named and not naming and not strip_nulls:
        return fields, []
    out = dict(fields)
    dropped = []
    for name in named:
        action = rules[name]
        if name in others and not action.startswith("rename:"):
            dropped += [other for other in others[name] if out.pop(other, None) is not None]
        if name in reached:
            dropped += [name] * _drop_inside(out, name)
        elif name in out:
            raw = out.pop(name)
            if action.startswith("rename:"):
                out.setdefault(action[7:], raw)
            elif action == "drop" and bytes(raw).strip() not in _EMPTY:
                dropped.append(name)
    for name in naming:
        if (value := out.pop(name, None)) is not None and bytes(value).strip() not in _EMPTY:
            dropped.append(name)
    if strip_nulls:
        out = {name: raw for name, raw in out.items() if bytes(raw).strip() != b"null"}
        if b"null" in bytes(out.get("input", b"")):
            items = _decoded(bytes(out["input"]))
            if isinstance(items, list):
                sent = [without_nulls(item) if isinstance(item, dict) else item for item in items]
                out["input"] = msgspec.Raw(encode(sent)) if sent != items else out["input"]
    return out, dropped


def without_nulls(item: Json) -> Json:
    """An item of `input` without its members that are null, as clients send the reasoning of an answer back."""
    return {name: value for name, value in item.items() if value is not None} if None in item.values() else item


def _reached(nested: Mapping[str, list[tuple[str, tuple[bytes, ...]]]], fields: Fields) -> set[str]:
    """The rules that may find what they name inside a parameter. A search costs 0.5 ms for 1 MB."""
    found: set[str] = set()
    for top in nested.keys() & fields.keys():
        text = bytes(fields[top])
        seen: dict[bytes, bool] = {}
        for name, members in nested[top]:
            for member in members:
                if member not in seen:
                    seen[member] = member in text
                if not seen[member]:
                    break
            else:
                found.add(name)
    return found


def _drop_inside(fields: Fields, rule: str) -> bool:
    """Take a member, or entries of a type, out of a parameter; a list without entries goes. True when there was one."""
    top, *way = _steps(rule)
    value = _decoded(bytes(fields.get(top, b"")))
    sent = without(value, way)
    if sent is value:
        return False
    if sent == []:
        del fields[top]
    else:
        fields[top] = msgspec.Raw(encode(sent))
    return True


_NOTHING: Final = object()


def _decoded(text: bytes) -> object:
    try:
        return _any.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _NOTHING
