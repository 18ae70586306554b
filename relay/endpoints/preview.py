"""What a channel would be sent for a request, before and after its overrides. Nothing is sent, and no key is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from asgiref.sync import async_to_sync

from portal.lib.json import Json, decode, decode_object, encode, objects_of
from relay.endpoints.overrides import Rules
from relay.endpoints.passthrough_request import PASSTHROUGH_ENDPOINTS, ClientRequest, parse_request
from relay.endpoints.text.apis.messages import API_VERSION
from relay.endpoints.text.endpoint import UPSTREAMS, dialect_of
from relay.endpoints.vectors import OPENAI, vector_upstream_among
from relay.gateway.snapshot import hops
from relay.gateway.snapshot.views import ChannelView
from relay.gateway.upstream import with_model
from relay.protocols import contract
from relay.protocols.anthropic_messages.client import MessagesClient
from relay.protocols.anthropic_messages.request import MessagesRequest, parse_messages_request
from relay.protocols.chat_completions.client import ChatClient
from relay.protocols.chat_completions.request import parse_chat_request
from relay.protocols.fields import BadRequest, Fields
from relay.protocols.gemini.client import GeminiClient
from relay.protocols.gemini.request import parse_gemini_request
from relay.protocols.interactions.request import Target, parse_interaction_request
from relay.protocols.responses.client import ResponsesClient
from relay.protocols.responses.request import UpstreamTarget, parse_responses_request
from relay.providers import parameters
from relay.providers.overrides.apply import to_body, to_fields
from relay.providers.overrides.rules import Overrides
from relay.providers.vendors import VENDORS
from relay.transport.body import request_headers

_UNSERVED: Final = "This channel does not serve this API, and a request for it cannot be converted."
MASK: Final = "••••••"
_TEXT: Final = ("chat.completions", "responses", "messages", "generate_content")
_STREAM: Final = "generate_content.stream"  # whose requests do not say in their bodies that they want one
STREAMED: Final = {"generate_content": _STREAM}  # what streams are called here, where that is another API
_PASSED: Final = tuple(name for name, spec in PASSTHROUGH_ENDPOINTS.items() if not spec.files)
# The APIs whose requests can be shown: those in JSON.
APIS: Final = (*_TEXT, _STREAM, "interactions", *_PASSED)


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
    if api in {"generate_content", _STREAM}:
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
    turns, limits of what can be paid for, who asks) is not shown.
    """
    asked = _read(api, body, public, channel)
    find = (lambda name: overrides.of_body(name, public, upstream)) if overrides is not None else (lambda _name: ())
    found = []
    for rules_of, headers in ((lambda _name: (), None), (find, overrides)):
        form = asked.send(upstream, rules_of)
        url = (channel.stream_urls.get(form.api) if asked.stream else None) or channel.urls[form.api]
        url = with_model(url, upstream)
        found.append(
            Sent(
                str(url.copy_with(query=form.query.encode()) if form.query else url),
                _headers(channel, headers, form, public, upstream),
                decode_object(form.body) or {},
                tuple(dict.fromkeys(form.ignored)),
            )
        )
    return found[0], found[1]


RulesOf = Callable[[str], Rules]  # of an API


@dataclass(frozen=True, slots=True)
class _Form:
    """What is sent to one API."""

    api: str
    body: bytes
    ignored: Sequence[str]
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that was read. `send`: writes it for the channel, with its name of the model."""

    stream: bool
    send: Callable[[str, RulesOf], _Form]


def _read(api: str, body: bytes, model: str, channel: ChannelView) -> _Asked:
    """Read a client's request as its endpoint does. Raises BadRequest."""
    if api in PASSTHROUGH_ENDPOINTS:
        request = async_to_sync(parse_request)(PASSTHROUGH_ENDPOINTS[api], body, "application/json", "")
        return _Asked(request.parsed.stream, partial(_passed, channel, request))
    if api == "interactions":
        turn = parse_interaction_request(body)
        return _Asked(
            turn.stream,
            _native(
                channel, api, turn.fields, lambda name, fields: turn.upstream_body(Target(name, stores=True), fields)
            ),
        )
    if api == "chat.completions":
        chat = parse_chat_request(body)
        client: contract.Client = ChatClient(decode_object(chat.body) or {}, chat.include_usage, "", 0)
        usage, limit = channel.stream_usage, channel.output_field
        native = _native(
            channel, api, chat.fields, lambda name, fields: chat.upstream_body(name, usage, None, limit, fields)
        )
        return _text(channel, api, client, chat.stream, native)
    if api == "responses":
        response = parse_responses_request(body)
        client = ResponsesClient(decode_object(response.body) or {}, response.items(), {}, lambda: "", lambda: 0)
        stores = channel.stores and not response.background
        native = _native(
            channel,
            api,
            response.fields,
            lambda name, fields: response.upstream_body(UpstreamTarget(name, stores, None), fields, None),
        )
        return _text(channel, api, client, response.stream, native)
    if api == "messages":
        message = parse_messages_request(body)
        client = MessagesClient(decode_object(message.body) or {}, "")
        return _text(channel, api, client, message.stream, partial(_message, channel, message))
    stream = api == _STREAM
    content = parse_gemini_request(body, model, stream, stream)
    client = GeminiClient(decode_object(content.body) or {}, model, "", stream)
    native = _native(
        channel,
        "generate_content",
        content.fields,
        lambda _name, fields: content.upstream_body(None, fields),
        *((_STREAM, "alt=sse") if stream else ("generate_content", "")),
    )
    return _text(channel, "generate_content", client, stream, native)


def _native(
    channel: ChannelView,
    api: str,
    fields: Fields,
    write: Callable[[str, Fields], bytes],
    sent_to: str = "",
    query: str = "",
) -> Callable[[str, RulesOf], _Form]:
    """Writes a request in the client's own API."""

    def send(upstream: str, rules_of: RulesOf) -> _Form:
        if (sent_to or api) not in channel.urls:
            raise BadRequest(_UNSERVED)
        sent, dropped = parameters.apply(channel.policy(api), fields, channel.strips_nulls)
        sent, ignored = to_fields(rules_of(api), sent)
        return _Form(sent_to or api, write(upstream, sent), [*dropped, *ignored], query)

    return send


def _message(channel: ChannelView, message: MessagesRequest, upstream: str, rules_of: RulesOf) -> _Form:
    """A request of the Messages API, in the form of a cloud where the channel is at one."""
    vendor = VENDORS[channel.provider]
    form = _native(
        channel,
        "messages",
        message.fields,
        lambda name, fields: message.upstream_body(name, None, fields, vendor.signs_thinking),
    )(upstream, rules_of)
    if vendor.envelope is None:
        return replace(form, headers={"anthropic-version": API_VERSION})
    return replace(form, body=vendor.envelope.put_bytes(form.body)[0])


def _passed(channel: ChannelView, request: ClientRequest, upstream: str, rules_of: RulesOf) -> _Form:
    """A request that passes through, or one for vectors that are made in another API."""
    api = request.spec.endpoint
    if api in channel.urls:
        body, ignored = request.upstream_body(channel, upstream, rules=rules_of(api))
        return _Form(api, body if isinstance(body, bytes) else b"".join(body), ignored)
    maker = vector_upstream_among(channel.urls, channel.provider) if api == OPENAI else None
    if maker is None:
        raise BadRequest(_UNSERVED)
    fields, dropped = parameters.apply(channel.policy(api), request.fields, channel.strips_nulls)
    asked = maker.request({name: decode(raw) for name, raw in fields.items()}, upstream)
    lost = [*dropped, *asked.lost]
    for one in objects_of(asked.body, "requests") or [asked.body]:
        lost += parameters.apply_to(channel.policy(maker.api), one)
        lost += to_body(rules_of(asked.api), one)
    return _Form(asked.api, encode(asked.body), lost)


def _text(
    channel: ChannelView, api: str, client: contract.Client, stream: bool, native: Callable[[str, RulesOf], _Form]
) -> _Asked:
    """A request of a text API, which is converted where the channel does not speak it."""
    protocol = next((one for one in UPSTREAMS if one.api in channel.urls), None)
    if api in channel.urls or protocol is None:
        return _Asked(stream, native)
    return _Asked(stream, partial(_converted, channel, protocol, client, stream))


def _converted(
    channel: ChannelView,
    protocol: contract.Upstream,
    client: contract.Client,
    stream: bool,
    upstream: str,
    rules_of: RulesOf,
) -> _Form:
    dialect, hub = dialect_of(channel), client.hub_request()
    form = protocol.request({**hub.body, "model": upstream}, dialect)
    sent: Json = {**form.body, "model": upstream}
    dropped = parameters.apply_to(channel.policy(protocol.api), sent)
    ignored = to_body(rules_of(protocol.api), sent)
    api, query = protocol.address(stream)
    return _Form(api, protocol.encode(sent, stream, dialect), [*hub.dropped, *form.dropped, *dropped, *ignored], query)


def _headers(
    channel: ChannelView, overrides: Overrides | None, form: _Form, public: str, upstream: str
) -> Mapping[str, str]:
    vendor = VENDORS[channel.provider]
    key = vendor.credentials.headers(MASK) if vendor.needs_key or channel.keys else {}
    via = {hops.HEADER: hops.own_id()} if channel.may_be_relay else {}
    found = {**request_headers({**vendor.headers, **via, **key}), **form.headers}
    return overrides.headers(found, form.api, public, upstream) if overrides is not None else found
