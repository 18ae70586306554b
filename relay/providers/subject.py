"""What a refusal is about: a parameter, a path that the upstream lacks, or a model other than the one asked for. Pure.

A refusal that is about a part of the request is the request's, whatever its status and code say.
"""

from __future__ import annotations

import re
from typing import Final

from relay.protocols.errors import NO_REASON, UpstreamError, read_error

# What the parameter at fault is called when it is none of the client's: the model, which the relay itself wrote into
# the request, or the key; LiteLLM says “None” of none.
_OUR_PARAMS: Final = frozenset(
    ("", "model", "body.model", "deployment", "engine", "none", "null", "key", "api_key", "authorization")
)
_PATH_STATUSES: Final = frozenset((404, 405, 501))
# Path and method are ours, so that a redirect is about them: a framework's that wants a slash at the end (FastAPI), a
# sign-in proxy's that does not let the path through.
REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
# What servers say of a path that they do not know, as the whole message or its beginning: OpenAI ("Invalid URL (POST
# /v1/x)"), Groq ("Unknown request URL: POST /x"), FastAPI, Spring and vLLM ("Not Found"), llama.cpp ("File Not Found"),
# Azure ("Resource not found"), Kong ("no Route matched with those values"), Express ("Cannot POST /v1/x"), LM Studio
# ("Unexpected endpoint or method"), Moonshot ("url.not_found").
_UNKNOWN_PATH: Final = re.compile(
    r"(?:unknown request url\b|invalid url \(|no route matched\b|cannot post /|unexpected endpoint or method\b"
    r"|(?:(?:file|resource|path|route|page|404 page|endpoint) )?not found\.?$|url\.not_found)",
    re.I,
)
_ROUTE: Final = r"(?:api|endpoint|route|path|url|uri|method|operation|resource)s?"
# What servers say with 405 and 501 of a path: frameworks ("Method Not Allowed", "Not Implemented"), new-api ("API not
# implemented"), Google ("Operation is not implemented, or supported, or enabled."), llama.cpp ("This server does not
# support embeddings. Start it with …"). vLLM says with 501 that it lacks a parameter's value.
_LACKED: Final = re.compile(
    rf"(?:not (?:yet )?(?:implemented|supported|allowed|available)|unsupported|unimplemented)(?: {_ROUTE})?\.?$"
    rf"|(?:(?!in |for |with |by |via |on |to )[\w./-]+ ){{0,5}}?{_ROUTE}:? (?:[\w./-]+ ){{0,3}}?"
    r"(?:not|isn't|unsupported|unimplemented|unknown|disabled)\b"
    rf"|(?:unsupported|unknown|invalid|unimplemented|no such) (?:\S+ )?{_ROUTE}\b"
    r"|(?:\S+ ){0,4}?(?:does not|doesn't|do not|cannot) (?:support|implement|have|serve|provide) (?:the |this |any )?"
    rf"(?:\S+ ){{0,2}}?(?:{_ROUTE}|embeddings?|completions|responses|rerank(?:ing)?|moderations?)(?:[.,;]|$)",
    re.I,
)
# The rights that a restricted key lacks; the one that every request for a model needs.
_SCOPES: Final = re.compile(r"\bmissing scopes?: ((?:[a-z_]+\.[a-z_.]+[, ]*)+)", re.I)
_EVERY_REQUEST: Final = frozenset(("model.request", "api.model.request"))
# A name behind the word “model”, or that of a limit (“Rate limit reached for gpt-image-1 in organization …”).
_NAMED: Final = re.compile(r"\b(?:models?|limit reached for)\b:? ?[`'\"“‘«]?([\w./:@-]{2,150})", re.I)
# Models of OpenAI's image tool, which has one of its own when the request names none.
_IMAGE_MODELS: Final = ("gpt-image", "chatgpt-image", "dall-e")


def names_a_parameter(error: UpstreamError) -> bool:
    """Whether an error names the parameter at fault, and it is one that the client chooses."""
    return str(error.param or "").lower() not in _OUR_PARAMS


def lacks_scope(error: UpstreamError) -> bool:
    """Whether an error is about a right that one API or tool needs, not every request (OpenAI's restricted keys)."""
    found = _SCOPES.search(error.message)
    return found is not None and _EVERY_REQUEST.isdisjoint(re.split(r"[, ]+", found[1].strip(" .,").lower()))


def says_missing(status: int, body: bytes) -> bool:
    """Whether an answer suggests that the upstream has no such path.

    What comes without an error object is a framework's or a proxy's, also a 401. An error object is about something
    that the request named (an item, a voice, a tool), unless its words are about the path.
    """
    if status in REDIRECTS:
        return True
    error = read_error(body)
    return error is None if status == 401 else status in _PATH_STATUSES and (error is None or lacks_path(status, error))


def lacks_path(status: int, error: UpstreamError) -> bool:
    """Whether an error object with the status 404, 405 or 501 is about the path."""
    if names_a_parameter(error):
        return False
    if _UNKNOWN_PATH.match(error.message):
        return True
    return status != 404 and (error.message == NO_REASON or _LACKED.match(error.own.strip()) is not None)


def other_models(error: UpstreamError, asked: str) -> set[str]:
    """The models that an error names; empty when the one that was asked for is among them."""
    found = {name.rstrip(".:,").lower().removeprefix("models/") for name in _NAMED.findall(error.message)}
    found = {name for name in found if "-" in name or any(letter.isdigit() for letter in name)}
    return set() if asked.lower().removeprefix("models/") in found else found


def about_chosen_model(error: UpstreamError, asked: str, sent: bytes) -> bool:
    """Whether an error is about a model of a tool or of another part of the request, not about the one asked for.

    The name must be in the request: other relays name the models behind theirs. `asked`: the upstream's name.
    """
    for name in other_models(error, asked):
        if name.startswith(_IMAGE_MODELS) and b'"image_generation"' in sent:
            return True
        if re.search(rb'"model"\s*:\s*"' + re.escape(name.encode()) + rb'"', sent, re.I):
            return True
    return False
