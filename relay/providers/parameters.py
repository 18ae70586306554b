"""Rules about a request's parameters that an upstream does not take, and how they are applied. Pure.

A rule is `name: action` or `family/name: action`; the family is the first word of the API (chat, completions,
responses, embeddings, images, audio …), and a rule with a family stands before one without. A name such as
`messages[].name` reaches into lists. What no rule names is forwarded. Actions:

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
from collections.abc import Mapping
from typing import Final

import msgspec

from portal.lib.json import encode
from portal.lib.texts import TranslatableError, gettext_noop
from relay.protocols.fields import are_parameters, folded
from relay.protocols.prompts.counts import COUNTS

_ACTION: Final = re.compile(r"forward|drop|rename:[A-Za-z_][A-Za-z0-9_]*|refuse(?::.+)?")
_NAME: Final = re.compile(r"(?:[a-z_]+/)?[A-Za-z_][A-Za-z0-9_]*(?:\[\](?:\.[A-Za-z_][A-Za-z0-9_]*)+)?")
_any: Final = msgspec.json.Decoder()
Fields = dict[str, msgspec.Raw]
Policy = Mapping[str, str]
_EMPTY: Final = frozenset((b"null", b"", b"[]", b"{}"))

# Parameters by which clients name other models than `model`, or choose by themselves who serves it, at which address or
# with which key: what such a request costs is not known here, and whether its user may use the model neither. Source:
# the API references of OpenRouter, LiteLLM's proxy, Vercel's AI gateway, Requesty, Perplexity, Groq, LM Studio,
# Fireworks, LoRAX, new-api and Anthropic (`fallbacks`, tools that name their model), read in November 2026.
_OTHER_MODELS: Final = (
    "models", "fallbacks", "fallback", "fallback_model", "fallback_models", "route", "provider", "providers", "preset",
    "plugins", "context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks",
    "context_window_fallback_dict", "model_list", "user_config", "router_settings_override", "specific_deployment",
    "deployment", "deployment_id", "engine", "model_id", "model_name", "base_model", "target_model", "model_info",
    "litellm_params", "litellm_metadata", "custom_llm_provider", "api_base", "base_url", "api_key", "api_version",
    "extra_body", "extra_headers", "extra_query", "prompt_id", "tags", "group", "providerOptions", "provider_options",
    "requesty", "compound_custom", "draft_model", "speculation", "adapter_id", "adapter_source", "lora_path",
    "tools[].model", "tools[].parameters.model",
)  # fmt: skip
# Parameters that make more answers than are asked for by `n`, by the APIs that know them in another sense or not at
# all. Seedream makes a sequence of images of one.
_MORE_ANSWERS: Final = {
    "chat": (*COUNTS, "best_of", "num_beams", "beam_width"),
    "completions": (*COUNTS, "num_beams", "beam_width"),
    "responses": (*COUNTS, "n", "best_of", "num_beams", "beam_width"),
    "images": (*COUNTS, "best_of", "sequential_image_generation", "sequential_image_generation_options"),
}
_FOR_ALL: Final[Policy] = {
    spelled: "drop"
    for name in (*_OTHER_MODELS, *(f"{family}/{name}" for family, names in _MORE_ANSWERS.items() for name in names))
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


class Rules(dict[str, str]):
    """The rules of one family at one channel, by bare name."""

    def __init__(self, rules: Policy) -> None:
        super().__init__(rules)
        self.nested: dict[str, list[tuple[str, bytes]]] = {}  # of lists: names of rules, and what they look for
        for name in rules:
            top, brackets, rest = name.partition("[].")
            if brackets:
                self.nested.setdefault(top, []).append((name, b'"%s"' % rest.rpartition(".")[2].encode()))


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
        if "[]" in name and action not in {"drop", "forward"}:
            raise BadPolicy(gettext_noop("Inside lists, parameters can be dropped only: “%(name)s”."), name=name)
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
    return Rules({name: action for name, action in found.items() if action != "forward"})


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
    """The rules, in place, for a request that was converted. Returns what was dropped."""
    dropped = []
    for name, action in policy.items():
        if name in body and action == "drop":
            if body.pop(name) not in (None, "", [], {}):
                dropped.append(name)
        elif name in body and action.startswith("rename:"):
            body.setdefault(action[7:], body.pop(name))
        elif name in body and action.startswith("refuse"):
            body.pop(name)  # it has the value that is fine
    return dropped


def apply(policy: Policy, fields: Fields, strip_nulls: bool = False) -> tuple[Fields, list[str]]:
    """The fields to send, and the names of those that were dropped with a value that would have meant something.

    The fields themselves where no rule is about one of them, so that the client's bytes may go on as they are.
    """
    others = _in_other_letters(fields)
    nested = policy.nested if isinstance(policy, Rules) else Rules(policy).nested
    reached = set() if nested.keys().isdisjoint(fields) else _reached(nested, fields)
    if not others and not reached and not strip_nulls and policy.keys().isdisjoint(fields):  # nearly always
        return fields, []
    named = [name for name in policy if name in fields or name in others or name in reached]
    if not named and not strip_nulls:
        return fields, []
    out = dict(fields)
    dropped = []
    for name in named:
        action = policy[name]
        if name in others and not action.startswith("rename:"):
            dropped += [other for other in others[name] if out.pop(other, None) is not None]
        if "[]" in name:
            dropped += [name] * _drop_inside(out, name)
        elif name in out:
            raw = out.pop(name)
            if action.startswith("rename:"):
                out.setdefault(action[7:], raw)
            elif action == "drop" and bytes(raw).strip() not in _EMPTY:
                dropped.append(name)
    if strip_nulls:
        out = {name: raw for name, raw in out.items() if bytes(raw).strip() != b"null"}
    return out, dropped


def _reached(nested: Mapping[str, list[tuple[str, bytes]]], fields: Fields) -> set[str]:
    """The rules that may find what they name in a list. A search costs 0.5 ms for 1 MB."""
    found: set[str] = set()
    for top in nested.keys() & fields.keys():
        text = bytes(fields[top])
        seen = {named: named in text for named in {named for _, named in nested[top]}}
        found.update(name for name, named in nested[top] if seen[named])
    return found


def _drop_inside(fields: Fields, path: str) -> bool:
    """Take a member out of every object of a list. True when there was one."""
    top, _, rest = path.partition("[].")
    *way, last = rest.split(".")
    entries = _decoded(bytes(fields.get(top, b"")))
    found = False
    for entry in entries if isinstance(entries, list) else ():
        holder: object = entry
        for step in way:
            holder = holder.get(step) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and holder.pop(last, None) is not None:
            found = True
    if found:
        fields[top] = msgspec.Raw(encode(entries))
    return found


_NOTHING: Final = object()


def _decoded(text: bytes) -> object:
    try:
        return _any.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _NOTHING
