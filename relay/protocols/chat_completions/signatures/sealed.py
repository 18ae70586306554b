"""Thoughts of upstreams of other APIs, for clients that keep of a call what Google signs. Pure.

Clients of chat completions have no place for encrypted reasoning and signed thinking, but those that know Gemini keep
`extra_content.google.thought_signature` of calls, the AI SDK and thereby opencode among them.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.chat_completions.dialects import EXTRA
from relay.protocols.chat_completions.hub import THINKING, strip_extensions, thinking_entry
from relay.protocols.chat_completions.signatures.packed import HUB, MARK, is_packed, packed, returned_members

SEALED: Final = base64.b64encode(MARK.encode())[:24]  # how what `sealed_thoughts` returns begins


def sealed_thoughts(thoughts: list[Json]) -> str:
    """The signatures of thoughts as one of Gemini's, which clients that know those send back; empty: there are none.

    One that is not packed is packed: only the account that made it can read it.
    """
    lines: list[str] = []
    for thought in thoughts:
        signature = thought.get("signature")
        if isinstance(signature, str) and signature and not is_packed(signature):
            bare: Json = {"id": text_of(thought, "id"), "signature": signature}
            lines.append(packed({"thought": bare}, HUB))
        elif is_packed(signature):
            lines.append(str(signature))
    return base64.b64encode("\n".join(lines).encode()).decode() if lines else ""


def thoughts_in(signature: str) -> list[Json]:
    """The entries of `hub_thinking` behind a signature that `sealed_thoughts` made; empty for one of Gemini's own."""
    standard = signature.replace("-", "+").replace("_", "/")  # SDKs encode bytes anew
    try:
        text = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return []
    lines = text.split("\n")
    if not all(map(is_packed, lines)):
        return []
    bare = [object_of(returned_members(line, HUB), "thought") for line in lines]
    return [
        thinking_entry(text_of(own, "id"), [], [], own["signature"] if own.get("signature") else line)
        for own, line in zip(bare, lines, strict=True)
    ]


def with_seal(call: Json, signature: str) -> Json:
    """A call with the thoughts that led to it, where Google's own API in OpenAI's form has its signatures.

    One that Google has signed stays as it is.
    """
    extra = object_of(call, EXTRA)
    google = object_of(extra, "google")
    if google.get("thought_signature"):
        return call
    return {**call, EXTRA: {**extra, "google": {**google, "thought_signature": signature}}}


def with_own_thoughts(message: Json) -> Json:
    """A client's message in the hub form: the thoughts that `with_seal` put beside a call are its own again."""
    calls, thoughts = objects_of(message, "tool_calls"), []
    for number, call in enumerate(calls):
        extra = object_of(call, EXTRA)
        google = object_of(extra, "google")
        if found := thoughts_in(text_of(google, "thought_signature")):
            thoughts += found
            rest = {name: value for name, value in google.items() if name != "thought_signature"}
            extra = {**extra, "google": rest} if rest else {name: extra[name] for name in extra if name != "google"}
            bare = {name: value for name, value in call.items() if name != EXTRA}
            calls[number] = {**bare, EXTRA: extra} if extra else bare
    return {**message, "tool_calls": calls, THINKING: thoughts} if thoughts else message


def without_sealed(messages: object) -> object:
    """A client's messages without such thoughts, for a vendor that speaks its API: none but the portal can read them.

    Some refuse members that they do not know, and Google refuses signatures of others.
    """
    if not isinstance(messages, list):
        return messages
    return [strip_extensions(with_own_thoughts(one)) if isinstance(one, dict) else one for one in messages]
