"""What a channel would be sent for a request, before and after its overrides. Nothing is sent, and no key is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, encode
from relay.endpoints.overrides import Rules
from relay.endpoints.passthrough_request import PASSTHROUGH_ENDPOINTS
from relay.endpoints.text.endpoint import UPSTREAMS, dialect_of
from relay.gateway.snapshot.views import ChannelView
from relay.gateway.upstream import with_model
from relay.protocols import contract
from relay.protocols.anthropic_messages.client import MessagesClient
from relay.protocols.anthropic_messages.request import parse_messages_request
from relay.protocols.chat_completions.client import ChatClient
from relay.protocols.chat_completions.request import parse_chat_request
from relay.protocols.fields import BadRequest, Fields, read_document
from relay.protocols.gemini.client import GeminiClient
from relay.protocols.gemini.request import parse_gemini_request
from relay.protocols.responses.client import ResponsesClient
from relay.protocols.responses.request import parse_responses_request
from relay.providers import parameters
from relay.providers.overrides.apply import to_body, to_fields
from relay.providers.overrides.rules import Overrides
from relay.providers.vendors import VENDORS
from relay.transport.body import request_headers

MASK: Final = "••••••"
_TEXT: Final = ("chat.completions", "responses", "messages", "generate_content")
# The APIs whose requests can be shown: those in JSON.
APIS: Final = (*_TEXT, "interactions", *(name for name, spec in PASSTHROUGH_ENDPOINTS.items() if not spec.files))


@dataclass(frozen=True, slots=True)
class Sent:
    """A request to an upstream."""

    url: str
    headers: Mapping[str, str]  # the key masked
    body: Json
    ignored: tuple[str, ...]  # what the client is told that it lost


def sample_request(api: str, model: str, stream: bool) -> Json:
    """A short request of an API, to begin with."""
    asked: Json = {"model": model}
    if api == "generate_content":
        return {
            "contents": [{"role": "user", "parts": [{"text": "Say hello."}]}],
            "generationConfig": {"temperature": 0.7, "maxOutputTokens": 256},
        }
    if api in {"chat.completions", "messages"}:
        asked |= {"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0.7, "max_tokens": 256}
    elif api == "responses":
        asked |= {"input": "Say hello.", "temperature": 0.7, "max_output_tokens": 256}
    elif api == "completions":
        asked |= {"prompt": "Say", "max_tokens": 256}
    elif api.startswith("images."):
        asked |= {"prompt": "A lighthouse", "n": 1, "size": "1024x1024"}
    elif api == "audio.speech":
        asked |= {"input": "Hello.", "voice": "alloy"}
    elif api == "rerank":
        asked |= {"query": "lighthouse", "documents": ["A tower with a lamp.", "A loaf of bread."]}
    else:
        asked |= {"input": "Say hello."}
    return asked | {"stream": True} if stream and api in {*_TEXT, "completions"} else asked


def preview(
    channel: ChannelView, overrides: Overrides | None, api: str, public: str, upstream: str, body: bytes
) -> tuple[Sent, Sent]:
    """A client's request as the channel is sent it without the overrides, and with them. Raises BadRequest.

    `public`, `upstream`: the names of the model. What is left out or put in for one user alone (stored files, earlier
    turns, limits of what can be paid for) is not shown.
    """
    fields, client, stream = _read(api, body, public)
    asked = api
    converted: contract.Upstream | None = None
    if api not in channel.urls:
        converted = next((one for one in UPSTREAMS if one.api in channel.urls), None) if client is not None else None
        if converted is None:
            message = "This channel does not serve this API, and a request for it cannot be converted."
            raise BadRequest(message)
        asked, _ = converted.address(stream)
    elif api == "generate_content" and stream:
        asked = "generate_content.stream"
    rules = overrides.of_body(asked, public, upstream) if overrides is not None else ()
    found = []
    for applied in ((), rules):
        if converted is not None and client is not None:
            sent, ignored = _converted(channel, converted, client, stream, upstream, applied)
        else:
            sent, ignored = _native(channel, api, fields, upstream, applied)
        headers = _headers(channel, overrides if applied is rules else None, asked, public, upstream)
        url = str(with_model(channel.urls[asked], upstream))
        found.append(Sent(url, headers, sent, tuple(dict.fromkeys(ignored))))
    return found[0], found[1]


def _read(api: str, body: bytes, model: str) -> tuple[Fields, contract.Client | None, bool]:
    """The members of a request, the request as a client of the hub, and whether it asks for a stream."""
    if api == "chat.completions":
        chat = parse_chat_request(body)
        return chat.fields, ChatClient(decode_object(chat.body) or {}, chat.include_usage, "", 0), chat.stream
    if api == "responses":
        turn = parse_responses_request(body)
        client = ResponsesClient(decode_object(turn.body) or {}, turn.items(), {}, lambda: "", lambda: 0)
        return turn.fields, client, turn.stream
    if api == "messages":
        message = parse_messages_request(body)
        return message.fields, MessagesClient(decode_object(message.body) or {}, ""), message.stream
    if api == "generate_content":
        content = parse_gemini_request(body, model, False, False)
        return content.fields, GeminiClient(decode_object(content.body) or {}, model, "", False), False
    return read_document(body).fields, None, False


def _native(channel: ChannelView, api: str, fields: Fields, upstream: str, rules: Rules) -> tuple[Json, Sequence[str]]:
    sent, dropped = parameters.apply(channel.policy(api), fields, channel.strips_nulls)
    sent, ignored = to_fields(rules, sent)
    if api != "generate_content":
        name = "agent" if api == "interactions" and "agent" in sent else "model"
        sent = {**sent, name: msgspec.Raw(encode(upstream))}
    return decode_object(encode(sent)) or {}, [*dropped, *ignored]


def _converted(
    channel: ChannelView,
    protocol: contract.Upstream,
    client: contract.Client,
    stream: bool,
    upstream: str,
    rules: Rules,
) -> tuple[Json, Sequence[str]]:
    dialect, hub = dialect_of(channel), client.hub_request()
    form = protocol.request({**hub.body, "model": upstream}, dialect)
    sent: Json = {**form.body, "model": upstream}
    dropped = parameters.apply_to(channel.policy(protocol.api), sent)
    ignored = to_body(rules, sent)
    return decode_object(protocol.encode(sent, stream, dialect)) or {}, [
        *hub.dropped,
        *form.dropped,
        *dropped,
        *ignored,
    ]


def _headers(
    channel: ChannelView, overrides: Overrides | None, api: str, public: str, upstream: str
) -> Mapping[str, str]:
    vendor = VENDORS[channel.provider]
    key = vendor.credentials.headers(MASK) if vendor.needs_key or channel.keys else {}
    found = dict(request_headers({**vendor.headers, **key}))
    return overrides.headers(found, api, public, upstream) if overrides is not None else found
