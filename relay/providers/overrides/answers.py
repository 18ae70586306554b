"""How long and how many answers a request asks for once it has been overridden, and keeping it to what is paid for.

Pure. The members of a request are `msgspec.Raw`, or decoded where it was converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from portal.lib.json import decode, encode
from relay.protocols.fields import MAX_TOKENS, as_object
from relay.protocols.prompts.lengths import is_length
from relay.protocols.prompts.thinking import thinking_budget

# Gemini's, Ollama's and Bedrock's.
_CONFIGS: Final = ("generationConfig", "generation_config", "options", "inferenceConfig")
_COUNTS: Final = ("n", "candidateCount", "candidate_count")


def answer_limit(members: Mapping[str, object]) -> int | None:
    """The tokens of each answer; None: no limit. Of two limits, upstreams keep to either."""
    found = [
        _tokens(value)
        for holder in _holders(members)
        for name, value in holder.items()
        if is_length(name) and _plain(value) is not None
    ]
    known = [limit for limit in found if limit is not None]
    return max(known) if found and len(known) == len(found) else None


def answer_count(members: Mapping[str, object]) -> int:
    """How many answers are requested."""
    return max((_count(holder[name]) for holder in _holders(members) for name in _COUNTS if name in holder), default=1)


def thinking_of(members: Mapping[str, object]) -> int | None:
    """The tokens of thinking that are named, as `relay.protocols.prompts.thinking` has them."""
    return max(
        (budget for holder in _holders(members) if (budget := thinking_budget(_raw(holder))) is not None), default=None
    )


def hold_answers(members: dict[str, object], tokens: int | None, count: int) -> bool:
    """Keep to so many answers of so many tokens, in place. `tokens`: None: no limit.

    Returns whether the request names a limit of its answers, under whatever name.
    """
    named = False
    undecoded = any(isinstance(value, msgspec.Raw) for value in members.values())
    for place in ("", *_CONFIGS):
        if place and place not in members:
            continue
        holder = _object(members[place]) if place else members
        lowered: dict[str, object] = {}
        for name, value in holder.items():
            if is_length(name):
                named = named or _plain(value) is not None
                limit = _tokens(value)
                if tokens is not None and (limit is None or limit > tokens):
                    lowered[name] = tokens
            elif name in _COUNTS and _count(value) > count:
                lowered[name] = count
        if not lowered:
            continue
        if not place:
            members.update({name: _written(value, undecoded) for name, value in lowered.items()})
        else:
            members[place] = _written({**holder, **lowered}, undecoded)
    return named


def _holders(members: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The objects that have such members: the request, and those of `_CONFIGS`."""
    return [members, *(_object(members[name]) for name in _CONFIGS if name in members)]


def _object(value: object) -> Mapping[str, object]:
    if isinstance(value, msgspec.Raw):
        return as_object(value)
    return value if isinstance(value, dict) else {}


def _plain(value: object) -> object:
    return decode(value) if isinstance(value, msgspec.Raw) else value


def _tokens(value: object) -> int | None:
    """A limit; None for what is no number of tokens, which some servers read as no limit."""
    found = _plain(value)
    if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
        return min(found, MAX_TOKENS)
    return None


def _count(value: object) -> int:
    found = _plain(value)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 1


def _raw(holder: Mapping[str, object]) -> Mapping[str, msgspec.Raw]:
    return {
        name: value if isinstance(value, msgspec.Raw) else msgspec.Raw(encode(value))
        for name, value in holder.items()
        if isinstance(value, (msgspec.Raw, dict, int, float, bool))
    }


def _written(value: object, undecoded: bool) -> object:
    return msgspec.Raw(encode(value)) if undecoded else value
