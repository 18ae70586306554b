"""How long an answer a request lets a model write, under whatever name. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from portal.lib.json import encode
from relay.protocols.fields import PARAMETERS, Fields, absent, folded, lowered, token_limit

# Every name for the output limit that a server may read: those of OpenAI's endpoints, and of llama.cpp (which takes its
# own before `max_tokens`), Ollama, Hugging Face, KoboldCpp, Llama, Anthropic, SambaNova, Aleph Alpha, NeMo, Gemini,
# Bedrock and AI21 (their references, November 2026). Compared as `folded`.
_LENGTHS: Final = frozenset((
    "max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict", "num_predict", "max_new_tokens",
    "max_length", "max_gen_len", "max_tokens_to_sample", "max_tokens_to_generate", "maximum_tokens",
    "tokens_to_generate", "maxoutputtokens", "maxtokens", "maxtokencount", "maxnewtokens",
))  # fmt: skip
# What an answer has at least, at vLLM, Hugging Face and AI21. Some servers exceed the limit for it.
_LEAST_LENGTHS: Final = frozenset(("min_tokens", "min_new_tokens", "min_length", "mintokens"))
# Known parameters that are none of these.
_NO_LENGTHS: Final = frozenset(name for name in PARAMETERS if folded(name) not in _LENGTHS | _LEAST_LENGTHS)


def is_length(name: str) -> bool:
    """Whether a server may read a member of this name as the limit of its answer."""
    return folded(name) in _LENGTHS


def is_least_length(name: str) -> bool:
    """The same, as what its answer has at least."""
    return folded(name) in _LEAST_LENGTHS


def one_limit(body: bytes, fields: Fields, *own: str) -> tuple[bytes, Fields]:
    """A body whose output limit has no other names than the API's, which are `own`; none where there is no such limit.

    A server that knows another name might keep to that one, and answer at more length than is held for it. It stands
    for the limit where the request names none, under the first name. A least length above the limit is left out.
    """
    if _NO_LENGTHS.issuperset(fields) or fields.keys() - _NO_LENGTHS <= set(own):  # nearly always
        return body, fields
    foreign = [name for name in fields if name not in own and folded(name) in _LENGTHS]
    if foreign:
        fields = dict(fields)
        limits = [token_limit(raw) for raw in (fields.pop(name) for name in foreign) if not absent(raw)]
        if own and limits and None not in limits and all(absent(fields.get(name)) for name in own):
            fields[own[0]] = msgspec.Raw(b"%d" % min(limit for limit in limits if limit is not None))
    given = [token_limit(fields[name]) for name in own if not absent(fields.get(name))]
    most = max((limit for limit in given if limit is not None), default=0)
    too_long = _too_long(fields, most) if given and None not in given else []
    if too_long:
        fields = {name: raw for name, raw in fields.items() if name not in too_long}
    return (encode(fields) if foreign or too_long else body), fields


def hold_to(fields: Fields, names: Iterable[str], tokens: int) -> None:
    """Lower the limit of the answer to so many tokens, in place, under these names."""
    for name in _too_long(fields, tokens):
        del fields[name]
    for name in names:
        fields[name] = lowered(fields.get(name), tokens)


def _too_long(fields: Fields, tokens: int) -> list[str]:
    """The members by which an answer has more tokens than these at least, or that cannot be understood."""
    least = [name for name in fields if folded(name) in _LEAST_LENGTHS and not absent(fields[name])]
    limits = {name: token_limit(fields[name]) for name in least}
    return [name for name, limit in limits.items() if limit is None or limit > tokens]
