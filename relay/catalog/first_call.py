"""The request that tries a token: the model that it can call, and a command that works when it is pasted.

Guide, token pages and the page of apps take their first command from here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from relay.catalog.offers import Offer

# Kinds of requests by the ability that they need, in the order in which one is preferred.
KINDS: Final = ("chat", "image_generation", "embeddings", "speech", "transcription", "moderation", "rerank")
# The kinds that a purpose of tokens opens, in its own order. Empty purpose: all.
_OF_PURPOSE: Final[Mapping[str, Sequence[str]]] = {
    "": KINDS,
    "chat": ("chat", "embeddings", "moderation", "rerank"),
    "images": ("image_generation",),
    "audio": ("speech", "transcription"),
    "tasks": (),
}


@dataclass(frozen=True, slots=True)
class FirstCall:
    """A request that a token can make: its kind, of KINDS, and its model."""

    kind: str
    model: str


def kinds_of(offer: Offer, purpose: str = "") -> list[str]:
    """Return the kinds of requests that a model takes, of those that a token's purpose opens.

    A model of unknown abilities is taken for one of the purpose's first kind, unless its name says otherwise.
    """
    opened = _OF_PURPOSE[purpose]
    known = offer.model.known_abilities
    if known:
        return [kind for kind in opened if kind in known]
    return list(opened[:1]) if opened[:1] != ("chat",) or offer.chats else []


def choose_call(offers: Sequence[Offer], purpose: str = "", wanted: str = "") -> FirstCall | None:
    """Return the first call of a token of this purpose that can call `offers`, None when it can make none.

    `wanted`: the name of a model that is preferred. The demo comes last; models whose abilities are known go before the
    others, chat models before the rest.
    """
    found = [(kind, offer) for offer in offers for kind in kinds_of(offer, purpose)[:1]]
    found.sort(
        key=lambda one: (
            one[1].model.name != wanted, one[1].is_demo, KINDS.index(one[0]), not one[1].model.known_abilities
        )
    )  # fmt: skip
    return FirstCall(found[0][0], found[0][1].model.name) if found else None


def curl(base_url: str, token: str, call: FirstCall) -> str:
    """A curl command for a call. `base_url` ends in /v1."""
    return _COMMANDS[call.kind](base_url, token, call.model)


def _json_command(base_url: str, path: str, token: str, body: Mapping[str, object], *, options: str = "") -> str:
    data = json.dumps(body, ensure_ascii=False)
    return (
        f"curl {options}{base_url}{path} \\\n  -H 'Authorization: Bearer {token}' \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(data)}"
    )


def _chat(base_url: str, token: str, model: str) -> str:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
    return _json_command(base_url, "/chat/completions", token, body, options="-N ")


def _image(base_url: str, token: str, model: str) -> str:
    return _json_command(base_url, "/images/generations", token, {"model": model, "prompt": "A lighthouse at dusk"})


def _embedding(base_url: str, token: str, model: str) -> str:
    return _json_command(base_url, "/embeddings", token, {"model": model, "input": "Hello!"})


def _speech(base_url: str, token: str, model: str) -> str:
    body = {"model": model, "voice": "alloy", "input": "Hello!"}
    return _json_command(base_url, "/audio/speech", token, body, options="-o hello.mp3 ")


def _transcription(base_url: str, token: str, model: str) -> str:
    return (
        f"curl {base_url}/audio/transcriptions \\\n  -H 'Authorization: Bearer {token}' \\\n"
        f"  -F {shlex.quote(f'model={model}')} \\\n  -F file=@hello.mp3"
    )


def _moderation(base_url: str, token: str, model: str) -> str:
    return _json_command(base_url, "/moderations", token, {"model": model, "input": "Hello!"})


def _rerank(base_url: str, token: str, model: str) -> str:
    body = {"model": model, "query": "Hello!", "documents": ["A greeting", "A farewell"]}
    return _json_command(base_url, "/rerank", token, body)


_COMMANDS: Final[Mapping[str, Callable[[str, str, str], str]]] = {
    "chat": _chat,
    "image_generation": _image,
    "embeddings": _embedding,
    "speech": _speech,
    "transcription": _transcription,
    "moderation": _moderation,
    "rerank": _rerank,
}
